"""The TensorFlow steps: survey a source, make an artifact, run a frozen graph, compare its weights.

They run in workers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from mnnprep.comparison.tolerance import ARTIFACT_SQNR
from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.onnx import graph as onnx_graph
from mnnprep.formats.onnx.skeleton import skeleton as without_weights
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.derived import count, derived, parameters, scalars
from mnnprep.formats.tensorflow.graph_files import read_graph
from mnnprep.formats.tensorflow.load import load
from mnnprep.formats.tensorflow.loaded import Loaded
from mnnprep.formats.tensorflow.net import TensorFlowNet, open_frozen
from mnnprep.formats.tensorflow.skeleton import Skeleton
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.model.net import any_ranks
from mnnprep.model.running import run_cases
from mnnprep.reference.declaration import declare
from mnnprep.reference.replay import replay
from mnnprep.reference.samples import read_samples
from mnnprep.reference.survey import survey
from mnnprep.text import listed
from mnnprep.workers.server import doing

MODEL = "model.pb"


def survey_source(job: SurveyJob) -> Survey:
    """Survey a source with TensorFlow as the reference."""
    doing("loading the source in TensorFlow")
    loaded = load(job.source, job.wants)
    net = TensorFlowNet(loaded)
    doing("running the reference")
    found = survey(
        net,
        job.wants,
        ranks=lambda: any_ranks(node.op for node in net.skeleton.graph.node),
        steps=net.steps,
    )
    doing("following the weights to the outputs")
    weights = parameters(net.skeleton)
    arrays: Arrays = {f"used/{n}": a for n, a in weights.items()}
    numbers = {name: (value, list[str]()) for name, value in scalars(net.skeleton).items()}
    for name, (value, parents) in (numbers | derived(net.skeleton, weights)).items():
        arrays |= {f"derived/{name}": value, f"parents/{name}": np.array(parents, np.str_)}
    path = Path(job.directory) / "weights.npz"
    save_arrays(path, arrays)
    return Survey(
        signature=found.signature,
        cases=found.write(Path(job.directory)),
        checks=[_inference(loaded.training, "source"), *found.checks],
        noise=found.noise,
        exempt=found.exempt,
        steps=found.steps,
        weights=file_ref(path),
        sweep=found.sweep,
        parameters=count(net.skeleton, weights),
        notes=loaded.notes,
    )


def _inference(left: list[str], subject: str) -> Check:
    if left:
        return catalog.INFERENCE_MODE.failed(
            f"training is left in the graph: {listed(left, 5, '; ')}; save the model called with"
            " training=False",
            subject=left[0],
        )
    return catalog.INFERENCE_MODE.passed(subject=subject)


def export_source(job: ExportJob) -> Exported:
    """Make an artifact by ``job.method``."""
    doing("loading the source in TensorFlow")
    loaded = load(job.source, job.wants)
    doing("making the inference graph")
    skeleton = loaded.skeleton()
    directory = Path(job.directory)
    doing(f"exporting by {job.method}")
    if job.method == "onnx":
        from mnnprep.formats.tensorflow.onnx_route import to_onnx

        files = to_onnx(skeleton, directory, job.opset)
        model = without_weights(files[0].path)
        return Exported(
            format="onnx",
            opset=onnx_graph.opset_of(model),
            files=files,
            checks=[onnx_graph.inference_mode(model)],
            notes=loaded.notes,
        )
    checks = [_inference(graphs.leftovers(skeleton.graph, skeleton.outputs), "artifact")]
    if job.method == "tflite":
        from mnnprep.formats.tensorflow.tflite_route import to_tflite

        samples = _samples(job, loaded)
        files = to_tflite(skeleton, directory, job.tflite_precision, samples)
        return Exported(
            format="tflite",
            opset=0,
            files=files,
            checks=checks,
            notes=loaded.notes,
            sqnr_db=ARTIFACT_SQNR.get(job.tflite_precision),
        )
    target = directory / MODEL
    skeleton = skeleton.ended()
    if job.source.kind == "frozen-graph" and _same(skeleton, read_graph(job.source.path)):
        shutil.copyfile(job.source.path, target)  # there was nothing to do
    else:
        skeleton.write(target)
    return Exported(format="tf", opset=0, files=[file_ref(target)], checks=checks, notes=loaded.notes)


def _same(skeleton: Skeleton, graph: object) -> bool:
    return bool(not skeleton.values and skeleton.graph == graph)


def _samples(job: ExportJob, loaded: Loaded) -> list[Arrays]:
    specs, _, _ = declare(loaded.inputs, job.wants)
    return [arrays for _, arrays in read_samples(job.wants, specs)] if job.wants.samples else []


def run_graph(job: RunJob) -> RunResult:
    """Run a frozen graph in TensorFlow, by the signature's names."""
    inputs, outputs = [s.name for s in job.signature.inputs], [s.name for s in job.signature.outputs]
    return run_cases(job, lambda: open_frozen(job.model, inputs, outputs))


def compare_graph_weights(job: WeightsJob) -> Check:
    """The ``weights`` check of a frozen graph."""
    doing("comparing the graph's constants with the source's weights")
    artifact = Skeleton(read_graph(job.model), [], []).constants()
    arrays = load_arrays(job.source)
    return match_weights(
        {n.removeprefix("used/"): a for n, a in arrays.items() if n.startswith("used/")}, artifact
    )


def replay_source(job: ReplayJob) -> Replayed:
    """Run a source on another's cases."""
    doing("loading the source in TensorFlow")
    return replay(TensorFlowNet(load(job.source, job.wants)), job)
