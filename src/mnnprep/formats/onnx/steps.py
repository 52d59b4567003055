"""The ONNX steps: survey the file, copy it or bring it to another opset, run it, compare its weights.

They run in workers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.comparison.weight_equivalence import match_folded, match_weights
from mnnprep.deps import require
from mnnprep.evidence.check import Check
from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.constant_growth import require_bounded
from mnnprep.formats.onnx.coverage import decisive_values
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.formats.onnx.opset_convert import at_opset
from mnnprep.formats.onnx.parameters import parameters
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.onnx.sound import require_names
from mnnprep.formats.onnx.standard import standard
from mnnprep.formats.onnx.stepped import input_scales, steps
from mnnprep.model.files import FileRef, file_ref, load_arrays
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    Located,
    LocateJob,
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
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from onnx import GraphProto, ModelProto, TensorProto

MODEL = "model.onnx"
EXTERNAL = "model.onnx.data"
ALIGNMENT = 4096  # bytes: the offset of a tensor that is to be mapped (docs/ExternalData.md)
EXTERNAL_FROM = 1024  # bytes: smaller tensors stay in the model file


def survey_file(job: SurveyJob) -> Survey:
    """Survey an ONNX file with onnxruntime, unoptimized, as the reference."""
    doing("loading the model in onnxruntime")
    net = OnnxNet(job.source.path)
    doing("running the reference")
    found = survey(
        net,
        job.wants,
        decisive_values(net.model),
        ranks=lambda: any_ranks(n.op_type for n in graph.all_nodes(net.model.graph)),
        steps=lambda cases: steps(net, cases),
        borders=input_scales(net.model),
    )
    cases = found.write(Path(job.directory))
    return Survey(
        signature=found.signature,
        cases=cases,
        checks=[
            graph.inference_mode(net.model),
            *found.checks,
            *standard(net.model, Path(job.source.path), cases, Path(job.directory)),
        ],
        noise=found.noise,
        steps=found.steps,
        exempt=found.exempt,
        sweep=found.sweep,
        parameters=parameters(net.model),
    )


def export_file(job: ExportJob) -> Exported:
    """Write the file itself (method ``copy``), or its graph at ``job.opset`` (method ``opset``).

    Weights that lie outside come into one file beside it.

    A copied graph is left alone, also if fewer sizes were declared than it takes: the signature says
    what was proven.  A copied file that holds its own weights keeps its bytes.
    """
    source, target = Path(job.source.path), Path(job.directory) / MODEL
    model = graph.load_graph(source)
    require_names(model, source.name)
    require_bounded(model, source.name)
    notes: list[str] = []
    if job.method == "opset":
        doing(f"converting the graph to opset {job.opset}")
        notes.append(f"converted from opset {graph.opset_of(model)} by onnx's version converter")
        model = at_opset(model, job.opset)
    if any(t.HasField("data_location") and t.data_location == 1 for t in _initializers(model.graph)):
        files = _consolidated(model, source.parent, target)
    elif job.method == "opset":
        target.write_bytes(model.SerializeToString(deterministic=True))
        files = [file_ref(target)]
    else:
        shutil.copyfile(source, target)
        files = [file_ref(target)]
    return Exported(
        format="onnx",
        opset=graph.opset_of(model),
        files=files,
        checks=[graph.inference_mode(model)],
        notes=notes,
        form=graph.form(model),
    )


def _consolidated(model: ModelProto, directory: Path, target: Path) -> list[FileRef]:
    """Write *model* to *target*, its data files in *directory* as one beside it.

    The data files may be links, as in a download cache.
    """
    data = target.parent / EXTERNAL
    external_info = require("onnx.external_data_helper").ExternalDataInfo
    with data.open("wb") as file:
        for tensor in _initializers(model.graph):
            if not (tensor.HasField("data_location") and tensor.data_location == 1):
                continue
            info = external_info(tensor)
            with (directory / info.location).open("rb") as part:
                part.seek(info.offset or 0)
                left = info.length or (directory / info.location).stat().st_size - part.tell()
                file.write(bytes(-file.tell() % ALIGNMENT))
                entries = {"location": EXTERNAL, "offset": str(file.tell()), "length": str(left)}
                while chunk := part.read(min(left, 1 << 24)):
                    file.write(chunk)
                    left -= len(chunk)
            del tensor.external_data[:]
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return [file_ref(target), file_ref(data)]


def _initializers(graph_proto: GraphProto) -> Iterator[TensorProto]:
    yield from graph_proto.initializer
    for node in graph_proto.node:
        for body in graph.subgraphs(node):
            yield from _initializers(body)


def save(model: ir.Model, directory: Path, *, external: bool) -> list[FileRef]:
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


def run_model(job: RunJob) -> RunResult:
    """Run an ONNX artifact in onnxruntime, optimized as an app would."""
    return run_cases(job, lambda: OnnxNet(job.model, optimize=True).run)


def locate(job: LocateJob) -> Located:
    """The nodes of the operators, those of subgraphs and functions included."""
    model = skeleton(job.model)
    nodes = [*graph.all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    return Located(nodes=[graph.label(node) for node in nodes if node.op_type in job.operators])


def compare_weights(job: WeightsJob) -> Check:
    """The ``weights`` check: every parameter of the source that reaches an output is in the artifact."""
    doing("comparing the artifact's initializers with the source's parameters")
    artifact = graph.tensors_of(job.model)
    if job.source_model:
        return match_weights(graph.tensors_of(job.source_model, settings=False), artifact)
    return match_folded(load_arrays(job.source), artifact)


def replay_file(job: ReplayJob) -> Replayed:
    """Run the file on another source's cases."""
    doing("loading the model in onnxruntime")
    return replay(OnnxNet(job.source.path), job)
