"""The ONNX steps: survey the file, copy it, run it, compare its weights. They run in workers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mnnprep.core.evidence import Check
from mnnprep.core.files import FileRef, file_ref, load_arrays
from mnnprep.core.messages import Exported, ExportJob, Ran, RunJob, Survey, SurveyJob, WeightsJob
from mnnprep.core.running import run_cases
from mnnprep.core.survey import declare, survey
from mnnprep.core.weightmatch import match_weights
from mnnprep.deps import require
from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.isolate.server import doing

MODEL = "model.onnx"
EXTERNAL = "model.onnx.data"
EXTERNAL_FROM = 1024  # bytes: smaller tensors stay in the model file


def survey_file(job: SurveyJob) -> Survey:
    """Survey an ONNX file with onnxruntime, unoptimized, as the reference."""
    doing("loading the model in onnxruntime")
    net = OnnxNet(job.source.path)
    doing("running the reference")
    found = survey(net, job.wants)
    return Survey(
        signature=found.signature, cases=found.write(Path(job.directory)), checks=[graph.inference_mode(net.model), *found.checks],
        noise=found.noise, exempt=found.exempt, swept=found.swept, infeasible=found.infeasible,
        parameters=sum(_elements(t.dims) for t in net.model.graph.initializer),
    )  # fmt: skip


def _elements(sizes: Any) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def copy(job: ExportJob) -> Exported:
    """The file itself; its weights in one external file where it has them outside; shapes fixed as declared.

    A file that needs no change keeps its bytes.
    """
    source, target = Path(job.source.path), Path(job.directory) / MODEL
    model = graph.load_graph(source)
    external = any(t.HasField("data_location") and t.data_location == 1 for t in _initializers(model.graph))
    fixed = _fixed_shapes(job, model)
    if not external and not fixed:
        shutil.copyfile(source, target)
        files = [file_ref(target)]
    else:
        files = save(_with_shapes(require("onnx_ir").load(str(source)), fixed), target.parent, external=external)
    return Exported(format="onnx", opset=graph.opset_of(model), files=files, checks=[graph.inference_mode(model)])


def _initializers(graph_proto: Any) -> Any:
    yield from graph_proto.initializer
    for node in graph_proto.node:
        for body in graph.subgraphs(node):
            yield from _initializers(body)


def _fixed_shapes(job: ExportJob, model: Any) -> dict[str, tuple[int | str, ...]]:
    """The inputs whose declared shape fixes a dimension that the file leaves open."""
    if not job.wants.inputs:
        return {}
    net = OnnxNet(job.source.path)
    specs, _, _ = declare(net.inputs, job.wants)
    return {
        new.name: new.shape
        for old, new in zip(net.inputs, specs, strict=True)
        if any(isinstance(a, str) and isinstance(b, int) for a, b in zip(old.shape, new.shape, strict=True))
    }


def _with_shapes(model: Any, shapes: dict[str, tuple[int | str, ...]]) -> Any:
    """Set the inputs' shapes and forget every shape inferred from the old ones."""
    ir = require("onnx_ir")
    for value in model.graph.inputs:
        if value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    if shapes:
        inputs = set(model.graph.inputs)
        for node in model.graph.all_nodes():
            for value in node.outputs:
                if value not in inputs and value.shape is not None:
                    value.shape = ir.Shape([None] * len(value.shape)) if value.is_graph_output() else None
    return model


def save(model: Any, directory: Path, *, external: bool) -> list[FileRef]:
    """Save an onnx-ir model as ``model.onnx``, its weights in ``model.onnx.data`` if *external*."""
    ir = require("onnx_ir")
    target = directory / MODEL
    if external:
        ir.save(model, target, external_data=EXTERNAL, size_threshold_bytes=EXTERNAL_FROM)
    else:
        require("onnx_ir.external_data").load_to_model(model)
        ir.save(model, target)
    data = directory / EXTERNAL
    return [file_ref(target), *([file_ref(data)] if data.exists() else [])]


def run_model(job: RunJob) -> Ran:
    """Run an ONNX artifact in onnxruntime, optimized as an app would."""
    return run_cases(job, lambda: OnnxNet(job.model, optimize=True).run)


def compare_weights(job: WeightsJob) -> Check:
    """The ``weights`` check: every parameter of the source that reaches an output is in the artifact."""
    doing("comparing the artifact's initializers with the source's parameters")
    artifact = graph.tensors_of(job.model)
    if job.source_model:
        return match_weights(graph.tensors_of(job.source_model), artifact)
    arrays = load_arrays(job.source)
    used = {n.removeprefix("used/"): a for n, a in arrays.items() if n.startswith("used/")}
    return match_weights(used, artifact)
