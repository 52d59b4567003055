"""The PyTorch steps: survey a source, export it, run a TorchScript artifact, compare its weights.

They run in workers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from mnnprep.comparison.constant_parts import Trail
from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.deps import require
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.formats.onnx import graph as onnx_graph
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.torch import export
from mnnprep.formats.torch.calling import Call, calling, forward_parameters
from mnnprep.formats.torch.exportable import Exportable
from mnnprep.formats.torch.externalized_weights import as_array
from mnnprep.formats.torch.load import input_specs, keep, load
from mnnprep.formats.torch.net import (
    OtherwiseFirst,
    TorchNet,
    all_tensors,
    materialize,
    script_leftovers,
    script_nodes,
    used_tensors,
)
from mnnprep.formats.torch.parameters import parameter_count
from mnnprep.formats.torch.stateless import require_stateless
from mnnprep.formats.torch.structure import flatten
from mnnprep.model.files import Arrays, FileRef
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    LoadJob,
    OwnWeightsJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    SourceLoaded,
    Survey,
    SurveyJob,
)
from mnnprep.model.running import case_inputs, run_cases
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import base_case, survey
from mnnprep.safety.error_text import cause
from mnnprep.workers.server import doing

SCRIPT_METHODS = {"trace": export.trace, "script": export.script, "copy": export.recopied}
ONNX_METHODS = {
    "onnx-trace": export.onnx_trace,
    "onnx-script": export.onnx_script,
    "onnx-export": export.onnx_export,
}


def load_source(job: LoadJob) -> SourceLoaded:
    """Load the source once for every step of a run; each works on its own copy, in its own process."""
    doing("loading the source")
    keep(job.source)
    return SourceLoaded(psutil.Process().num_threads())


def survey_module(job: SurveyJob) -> Survey:
    """Survey a PyTorch source, untouched but for its inference mode."""
    doing("loading the source")
    loaded = load(job.source)
    net = TorchNet(
        loaded.module,
        input_specs(loaded, job.wants.inputs),
        loaded.example,
        loaded.dims,
        precise=not job.source.lean,
    )
    doing("running the reference")
    found = survey(
        net, job.wants, one_sided=net.watch.one_sided, ranks=lambda: net.watch.ranked, steps=net.steps
    )
    return Survey(
        signature=found.signature,
        cases=found.write(Path(job.directory)),
        checks=[net.inference_mode(), *found.checks],
        noise=found.noise,
        exempt=found.exempt,
        steps=found.steps,
        decides=list(net.watch.decisions),
        one_sided=net.watch.one_sided(),
        sweep=found.sweep,
        parameters=parameter_count(net.module),
        notes=loaded.notes,
    )


def export_module(job: ExportJob) -> Exported:
    """Make an artifact by ``job.method``; its opset is read from the file."""
    doing("loading the source")
    loaded = load(job.source)
    specs = input_specs(loaded, job.wants.inputs)
    net = OtherwiseFirst(loaded.module, specs, loaded.example, loaded.dims)
    arrays = base_case(net, job.wants, job.at)
    materialize(loaded.module)
    subject = Exportable(loaded, specs, arrays, net.output_ranks(arrays), places=job.places)
    directory = Path(job.directory)
    notes: list[str] = []
    if job.at:
        notes.append(f"exported at {', '.join(f'{name}={size}' for name, size in job.at.items())}")
    doing(f"exporting by {job.method}")
    if job.method in SCRIPT_METHODS:
        files = SCRIPT_METHODS[job.method](subject, directory, notes)
        return Exported(
            format="torchscript",
            opset=0,
            files=files,
            checks=[_script_inference(files[0])],
            notes=notes,
            operators=script_operators(files[0].path),
            decided=list(subject.watch.decisions),
        )
    files, refused = export.search_opset(
        job.opset, lambda opset: ONNX_METHODS[job.method](subject, directory, notes, opset)
    )
    model = skeleton(files[0].path, whole_nodes=True)
    return Exported(
        format="onnx",
        opset=onnx_graph.opset_of(model),
        files=files,
        checks=[onnx_graph.inference_mode(model)],
        notes=notes,
        refused_opsets=refused,
        decided=list(subject.watch.decisions),
        form=onnx_graph.form(model),
    )


def _script_inference(file: FileRef) -> Check:

    torch = require("torch")
    left = script_leftovers(torch.jit.load(file.path))
    return (
        catalog.INFERENCE_MODE.failed("; ".join(left[:10]), subject=left[0])
        if left
        else catalog.INFERENCE_MODE.passed(subject="artifact")
    )


def script_operators(path: str) -> list[str]:
    """The aten operators that MNN's Torch frontend meets: those of the frozen, inlined graph."""
    torch = require("torch")
    module = torch.jit.freeze(torch.jit.load(path).eval())
    return sorted({n.kind() for n in script_nodes(module.inlined_graph)})


def run_script(job: RunJob) -> RunResult:
    """Run a TorchScript artifact where the user's code can't be imported."""
    if not job.trust:
        require_stateless(Path(job.model), "torchscript")
    torch = require("torch")
    torch.set_num_threads(1)
    names = [o.name for o in job.signature.outputs]
    order = [s.name for s in job.signature.inputs]

    def open_model() -> Callable[[Arrays], Arrays]:
        module = torch.jit.load(job.model).eval()
        own = set(order) <= set(
            forward_parameters(module)
        )  # a trace has other names where ours are no identifiers
        call = calling(module, order) if own else Call(tuple(order))

        def run(inputs: Arrays) -> Arrays:
            from mnnprep.model.net import Refused

            try:
                with torch.no_grad():
                    result = flatten(call(module, {n: torch.from_numpy(inputs[n].copy()) for n in order}))
            except RuntimeError as error:
                raise Refused(cause(error)) from error
            values = [np.asarray(t.detach().contiguous().numpy()).copy() for t in result.values()]
            return dict(zip(names, values, strict=False)) | {
                f"surplus_{i}": v for i, v in enumerate(values[len(names) :])
            }

        return run

    return run_cases(job, open_model)


def compare_weights(job: OwnWeightsJob) -> Check:
    """The ``weights`` check: every parameter of the source that reaches an output is in the artifact.

    Which do is only asked if one is not.
    """
    doing("loading the source")
    module = load(job.source).module
    materialize(module)
    doing("comparing the artifact's tensors with the source's parameters")
    artifact = onnx_graph.tensors_of(job.model) if job.format == "onnx" else _script_tensors(job.model)

    def compare(tensors: dict[str, Any], follow: Callable[[list[str]], list[Trail]] | None = None) -> Check:
        return match_weights({n: as_array(t) for n, t in tensors.items()}, artifact, trails=follow)

    check = compare(all_tensors(module))
    if check.status is Status.PASSED:
        return check
    doing("following the parameters to the outputs")
    inputs = sorted(
        (case_inputs(case.file.path) for case in job.cases),
        key=lambda arrays: sum(a.size for a in arrays.values()),
    )
    tensors, notes = used_tensors(module, inputs)

    def follow(names: list[str]) -> list[Trail]:
        from mnnprep.formats.torch.parameter_trail import trails

        return trails(module, names, inputs)

    check = compare(tensors, follow)
    return msgspec.structs.replace(check, numbers=check.numbers | {"notes": notes}) if notes else check


def _script_tensors(path: str) -> Arrays:
    """The tensors of a TorchScript file: its state, and the constants of its code."""
    torch = require("torch")
    module = torch.jit.load(path).eval()
    found = {n: as_array(t) for n, t in module.state_dict().items()}
    for number, node in enumerate(script_nodes(module.inlined_graph)):
        value = next(node.outputs(), None)
        constant = value.toIValue() if node.kind() == "prim::Constant" and value is not None else None
        if isinstance(constant, torch.Tensor):
            found[f"constant {number}"] = as_array(constant)
    return found


def replay_module(job: ReplayJob) -> Replayed:
    """Run a source on another's cases."""
    doing("loading the source")
    loaded = load(job.source)
    materialize(loaded.module)
    specs = input_specs(loaded, job.wants.inputs or (() if loaded.example else job.signature.inputs))
    return replay(TorchNet(loaded.module, specs, loaded.example, precise=not job.source.lean), job)
