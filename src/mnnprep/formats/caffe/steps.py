"""The Caffe steps: survey a pair with OpenCV, write it as V2 or as ONNX, run it, compare its weights.

They run in workers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.deps import installed
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.caffe import opencv
from mnnprep.formats.caffe.blobs import effective, unused_weights
from mnnprep.formats.caffe.caffemodel import WeightLayer, write_weights
from mnnprep.formats.caffe.lower import OPSET, lower
from mnnprep.formats.caffe.net import Layer, definition
from mnnprep.formats.caffe.pair import Pair, input_specs, load
from mnnprep.formats.caffe.prototext import write
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import (
    CaseFile,
    Exported,
    ExportJob,
    HalfJob,
    InputSpecs,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Source,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.model.net import Case, Net, Refused, any_ranks
from mnnprep.model.running import run_cases
from mnnprep.model.signature import TensorSpec
from mnnprep.reference.checks import write_case
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey
from mnnprep.workers.server import doing

DEFINITION, WEIGHTS = "model.prototxt", "model.caffemodel"
THIRD = "onnxruntime, on the ONNX form that mnnprep writes"


def survey_pair(job: SurveyJob) -> Survey:
    """Survey a pair with OpenCV as the reference, and onnxruntime on our ONNX form as the third opinion.

    Without OpenCV, or if it can't load the net, the cases hold the third opinion's numbers and
    ``reference`` is not run.
    """
    doing("reading the pair")
    pair = load(Path(job.source.path), Path(job.source.weights), job.wants)
    specs = input_specs(pair.net.inputs, job.wants)
    directory = Path(job.directory)
    doing("loading the pair in OpenCV")
    reference, why_no_reference = _reference_net(job.source, pair, specs, directory)
    third, why_no_third = (None, "") if reference else _third_net(pair, specs, directory)
    net = reference or third
    if net is None:
        raise RefusedError(
            "neither OpenCV nor mnnprep's own ONNX form can run this network",
            seen=f"{why_no_reference}; {why_no_third}",
            next="pip install 'mnnprep[caffe]', or replace the layers named",
        )
    doing("running the reference")
    found = survey(net, job.wants, ranks=lambda: any_ranks(la.type for la in pair.net.layers))
    checks = [_inference_mode(pair), unused_weights(pair.net, pair.weights), *found.checks]
    if reference is None:
        checks = [c for c in checks if c.check != catalog.REFERENCE.name] + [
            catalog.REFERENCE.not_run(why_no_reference)
        ]
    opinion: list[CaseFile] = []
    if reference is not None:
        doing("running the third runtime")
        third, why_no_third = _third_net(pair, specs, directory)
        opinion, agrees = (
            _third_opinion(third, found.cases, directory, Tolerance(noise=found.noise))
            if third
            else ([], None)
        )
        checks.append(agrees or catalog.THIRD_OPINION.not_run(why_no_third))
    weights = directory / "weights.npz"
    tensors = effective(pair.net, pair.blobs)
    save_arrays(weights, {f"used/{n}": a for n, a in tensors.items()})
    return Survey(
        signature=found.signature,
        cases=found.write(directory),
        checks=checks,
        noise=found.noise,
        exempt=found.exempt,
        weights=file_ref(weights),
        sweep=found.sweep,
        parameters=sum(a.size for values in pair.blobs.values() for a in values),
        notes=list(pair.net.removed),
        third_opinion=opinion,
    )


def _reference_net(
    source: Source, pair: Pair, specs: tuple[TensorSpec, ...], directory: Path
) -> tuple[Net | None, str]:
    """The source in OpenCV, or why it can't be."""
    if not installed("cv2"):
        return None, "OpenCV, the reference of Caffe models, is not installed: pip install 'mnnprep[caffe]'"
    prototxt, caffemodel = source.path, source.weights
    foreign = pair.weights.doubles or pair.weights.version == 0
    if (
        not pair.untouched or foreign
    ):  # what OpenCV does not read, it gets as `upgrade` writes it: data layers; doubles and V0's blobs
        written = write_pair(pair, _fresh(directory / "reference"))
        prototxt = prototxt if pair.untouched else str(written[0])
        caffemodel = str(written[1]) if foreign else caffemodel
    try:
        return opencv.CaffeNet(prototxt, caffemodel, pair.net, specs), ""
    except RefusedError as error:
        return None, f"{error.what}: {error.seen}"


def _third_net(pair: Pair, specs: tuple[TensorSpec, ...], directory: Path) -> tuple[Net | None, str]:
    from mnnprep.formats.onnx.net import OnnxNet

    try:
        return OnnxNet(str(lower(pair.net, pair.blobs, specs, _fresh(directory / "third")))), ""
    except RefusedError as error:
        return None, f"{error.what}: {error.seen}"


def replay_pair(job: ReplayJob) -> Replayed:
    """Run the pair in OpenCV on another source's cases."""
    doing("loading the pair in OpenCV")
    pair = load(Path(job.source.path), Path(job.source.weights), job.wants)
    net, why = _reference_net(job.source, pair, input_specs(pair.net.inputs, job.wants), Path(job.directory))
    if net is None:
        raise RefusedError(
            "OpenCV can't run this network", seen=why, next="give it first, and the other second"
        )
    return replay(net, job)


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _third_opinion(
    third: Net, cases: list[Case], directory: Path, tolerance: Tolerance
) -> tuple[list[CaseFile], Check]:
    """The third opinion's outputs as cases, and whether they are the reference's."""
    files, errors = [], []
    where = _fresh(directory / "opinion")
    for index, case in enumerate(cases):
        try:
            outputs = third.run(case.inputs)
        except Refused as error:
            return [], catalog.THIRD_OPINION.not_run(f"{THIRD}, did not run case {index}: {error}")
        errors += compare_outputs(index, case.outputs, outputs, tolerance)
        files.append(write_case(where, index, Case(case.origin, case.dims, case.inputs, outputs)))
    problems = [f"{e.output} in case {e.case}: {e.problem}" for e in errors if e.problem]
    worst = max((e.max_abs for e in errors if e.max_abs is not None), default=0.0)
    numbers = {"max_abs": worst, "cases": len(cases)}
    if problems:
        return files, catalog.THIRD_OPINION.failed(
            f"{THIRD}, disagrees with OpenCV: {problems[0]}", numbers=numbers
        )
    return files, catalog.THIRD_OPINION.passed(numbers=numbers, subject=THIRD)


def _inference_mode(pair: Pair) -> Check:
    """Whether a layer would still compute as in training: a BatchNorm told to use the batch at hand."""
    left = [f"{la.name} (BatchNorm) has use_global_stats: false" for la in pair.net.layers if _uses_batch(la)]
    if left:
        reason = f"training is left in the definition: {', '.join(left[:10])}; remove the setting"
        return catalog.INFERENCE_MODE.failed(reason, subject=left[0])
    numbers = {
        "layers": len(pair.net.layers),
        "training_removed": len(pair.net.removed),
        "gradient_bytes": pair.weights.gradient_bytes,
    }
    return catalog.INFERENCE_MODE.passed(numbers=numbers)


def _uses_batch(layer: Layer) -> bool:
    return layer.type == "BatchNorm" and not layer.param("batch_norm_param").flag("use_global_stats", True)


def export_pair(job: ExportJob) -> Exported:
    """Write the pair by ``job.method``: ``upgrade`` as V2 for inference, ``onnx`` as ONNX, opset 13."""
    pair = load(Path(job.source.path), Path(job.source.weights), job.wants)
    directory = Path(job.directory)
    if job.method == "onnx":
        doing("writing the network as ONNX")
        path = lower(pair.net, pair.blobs, input_specs(pair.net.inputs, job.wants), directory)
        return Exported(
            format="onnx",
            opset=OPSET,
            files=[file_ref(path)],
            checks=[_inference_mode(pair)],
            notes=list(pair.net.removed),
        )
    doing("writing the network as V2")
    return Exported(
        format="caffe",
        opset=0,
        files=[file_ref(p) for p in write_pair(pair, directory)],
        checks=[_inference_mode(pair)],
        notes=list(pair.net.removed),
    )


def write_pair(pair: Pair, directory: Path) -> tuple[Path, Path]:
    """Write ``model.prototxt`` and ``model.caffemodel``.

    They hold the layers of inference in V2, and float32 blobs in the shapes they should have.
    """
    prototxt, caffemodel = directory / DEFINITION, directory / WEIGHTS
    prototxt.write_text(write(definition(pair.net)), encoding="utf-8")
    stored = {layer.name: layer for layer in pair.weights.layers}
    layers = []
    for layer in pair.net.layers:
        kept = stored[layer.name].unknown if layer.name in stored else b""
        layers.append((WeightLayer(layer.name, layer.type, (), 2, kept), pair.blobs.get(layer.name, [])))
    write_weights(caffemodel, pair.net.name, layers)
    return prototxt, caffemodel


def _beside(prototxt: str) -> str:
    return str(Path(prototxt).with_name(WEIGHTS))


def run_pair(job: RunJob) -> RunResult:
    """Run a Caffe artifact in OpenCV.

    If that can't be, run it as the survey did: our ONNX form in onnxruntime, for a verdict of unproven.
    """
    caffemodel = _beside(job.model)
    pair = load(Path(job.model), Path(caffemodel), InputSpecs())
    source = Source(kind="caffe-prototxt", path=job.model, weights=caffemodel)

    def open_model() -> Net:
        net, why = _reference_net(source, pair, job.signature.inputs, Path(job.directory))
        if net is None:
            net, problem = _third_net(pair, job.signature.inputs, Path(job.directory))
            why = f"{why}; {problem}"
        if net is None:
            raise RefusedError(
                "neither OpenCV nor mnnprep's own ONNX form can run the artifact",
                seen=why,
                next="replace the layers named",
            )
        return net

    return run_cases(job, lambda: open_model().run)


def run_half(job: HalfJob) -> RunResult:
    """Run a Caffe artifact with its numbers rounded to ``job.rounding``, by way of our ONNX form.

    Raises:
        RefusedError: a layer has no ONNX form, or the form does not give the references.
    """
    from mnnprep.formats.onnx.half import run_half_form

    pair = load(Path(job.model), Path(_beside(job.model)), InputSpecs())
    form = lower(pair.net, pair.blobs, job.signature.inputs, _fresh(Path(job.directory) / "form"))
    return run_half_form(job, form)


def compare_pair_weights(job: WeightsJob) -> Check:
    """The ``weights`` check of a Caffe artifact: its blobs are the source's."""
    pair = load(Path(job.model), Path(_beside(job.model)), InputSpecs())
    artifact: Arrays = {n: np.asarray(a) for n, a in effective(pair.net, pair.blobs).items()}
    used = {n.removeprefix("used/"): a for n, a in load_arrays(job.source).items() if n.startswith("used/")}
    return match_weights(used, artifact)
