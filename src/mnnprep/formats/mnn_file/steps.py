"""The steps of a ``.mnn`` source: survey the file as given, copy it, run it, compare its weights.

They run in workers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.mnn_file.net import MnnNet, input_specs, open_info
from mnnprep.formats.mnn_file.summary import read_summary
from mnnprep.formats.mnn_file.text import from_json, to_json
from mnnprep.mnn.convert import WEIGHTS_SUFFIX
from mnnprep.model.files import file_ref, sha256
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    InputSpecs,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Survey,
    SurveyJob,
    TextJob,
    TextWritten,
    WeightsJob,
)
from mnnprep.model.net import any_ranks
from mnnprep.model.running import run_cases
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey
from mnnprep.workers.server import doing

ARTIFACT = "source.mnn"


def survey_file(job: SurveyJob) -> Survey:
    """Survey a ``.mnn`` file; the reference is the file itself in MNN, before anything was changed."""
    doing("loading the model in MNN")
    info = open_info(job.source.path)
    net = MnnNet(job.source.path, input_specs(info.inputs, job.wants), info)
    doing("running the reference")
    found = survey(net, job.wants, ranks=lambda: any_ranks(read_summary(Path(job.source.path)).ops))
    return Survey(
        signature=found.signature,
        cases=found.write(Path(job.directory)),
        checks=[inference_mode(job.source.path), *found.checks],
        noise=found.noise,
        exempt=found.exempt,
        sweep=found.sweep,
        parameters=read_summary(Path(job.source.path)).parameters,
    )


def inference_mode(path: str) -> Check:
    """Whether the file is one for inference.

    MNN keeps Dropout and training-mode BatchNorm only in files made for training.
    """
    summary = read_summary(Path(path))
    left = [f"{name} ({count})" for name, count in summary.ops.items() if name == "Dropout"]
    if summary.usage == "TRAIN" or left:
        return catalog.INFERENCE_MODE.failed(
            f"the file was made for training: {', '.join(left) or 'usage TRAIN'}; convert it without"
            " --forTraining",
        )
    return catalog.INFERENCE_MODE.passed(numbers={"operators": sum(summary.ops.values())})


def copy(job: ExportJob) -> Exported:
    """The file itself; the change is what MNN's converter makes of it."""
    target = Path(job.directory) / ARTIFACT
    shutil.copyfile(job.source.path, target)
    files = [file_ref(target)]
    beside = Path(job.source.path + WEIGHTS_SUFFIX)
    if beside.is_file():  # the weights of a model over 2 GB
        files.append(file_ref(shutil.copyfile(beside, str(target) + WEIGHTS_SUFFIX)))
    return Exported(format="mnn", opset=0, files=files, checks=[inference_mode(str(target))])


def run_file(job: RunJob) -> RunResult:
    """Run a ``.mnn`` artifact in MNN."""
    info = open_info(job.model)
    wants = InputSpecs(inputs=job.signature.inputs)
    return run_cases(job, lambda: MnnNet(job.model, input_specs(info.inputs, wants), info).run)


def replay_file(job: ReplayJob) -> Replayed:
    """Run the file on another source's cases."""
    doing("loading the model in MNN")
    info = open_info(job.source.path)
    return replay(MnnNet(job.source.path, input_specs(info.inputs, job.wants), info), job)


def convert_text(job: TextJob) -> TextWritten:
    """A model as JSON, or JSON as a model."""
    target, scratch = Path(job.target), Path(job.target).with_suffix(".scratch")
    scratch.mkdir()
    doing("reading the JSON" if job.from_json else "writing the model as JSON")
    (from_json if job.from_json else to_json)(Path(job.source), target, scratch)
    return TextWritten(file_ref(target))


def compare_weights(job: WeightsJob) -> Check:
    """Make the ``weights`` check: the artifact is the source, byte for byte.

    What the converter changes, ``mnn_compare`` sees.
    """
    if sha256(job.model) != sha256(job.source_model):
        return catalog.WEIGHTS.failed("the artifact's bytes are not the source's")
    return catalog.WEIGHTS.passed(numbers={"bytes": Path(job.model).stat().st_size})
