"""Making artifacts of a PyTorch source: one function a method.

Every method goes through an adapter whose forward has exactly the signature's inputs, calls the
model as its user does and gives its outputs flattened.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mnnprep.core.error_text import cause, message, said, without_paths
from mnnprep.core.files import Arrays, FileRef, file_ref
from mnnprep.core.messages import OpsetRefused
from mnnprep.core.signature import TensorSpec, dim_names
from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.torch.archive import save_script
from mnnprep.formats.torch.aside import Written, as_array, large_weights_aside
from mnnprep.formats.torch.calling import calling
from mnnprep.formats.torch.load import Loaded
from mnnprep.formats.torch.structure import flatten, places
from mnnprep.formats.torch.watch import Watch, current_place

if TYPE_CHECKING:
    import onnx_ir as ir
    from google.protobuf.message import Message
    from onnx import ModelProto
    from torch import Tensor, nn
    from torch.jit import ScriptModule

T = TypeVar("T")

EXTERNAL_THRESHOLD = (
    1_800_000_000  # bytes of weights past which an ONNX file gets its data outside (protobuf holds 2 GiB)
)
FOLD_LIMIT = 1 << 30  # bytes of a tensor that constant folding may read or write
EXPORT_OPSET = 18  # the lowest the torch.export-based exporter writes itself


@dataclass(frozen=True)
class Subject:
    """What is exported: the loaded source, its inputs, and example arrays."""

    loaded: Loaded
    specs: tuple[TensorSpec, ...]
    arrays: Arrays
    output_ranks: dict[str, int]  # the outputs' names, in order, and their ranks
    watch: Watch = field(default_factory=Watch)  # what a trace decides on values
    places: bool = False  # keep in each node where in the user's code it came from

    @property
    def module(self) -> nn.Module:
        return self.loaded.module

    @property
    def names(self) -> list[str]:
        return [s.name for s in self.specs]

    def tensors(self) -> tuple[Any, ...]:
        torch = require("torch")
        return tuple(torch.from_numpy(self.arrays[s.name].copy()) for s in self.specs)


class UnsupportedAtOpset(Exception):
    """An operator of the model has no form at this opset; ``needed`` is the opset that has one (0:
    unknown).
    """

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


def adapter(subject: Subject) -> nn.Module:
    """An nn.Module around the model: positional inputs in the signature's order, a tuple of tensors out."""
    torch = require("torch")
    names = subject.names
    call = calling(subject.module, names)

    class Adapter(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Tensor) -> object:
            outputs = tuple(
                flatten(call(self.model, dict(zip(names, tensors, strict=True))), tuple(names)).values()
            )
            return outputs[0] if len(outputs) == 1 else outputs

    made = Adapter(subject.module)
    made.training = False
    return made


@contextmanager
def tracer_notes(notes: list[str]) -> Iterator[None]:
    """Collect the tracer's warnings as notes, each with the place in the source, instead of printing them."""
    torch = require("torch")

    def note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        if issubclass(category, torch.jit.TracerWarning):
            text = re.split(r"[.:] (?:We|This|Please)", without_paths(str(message)))[0].strip()
            place = current_place()
            if (entry := f"{place}: {text}") not in notes:
                notes.append(entry)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        yield


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within, nn.TransformerEncoderLayer runs its documented formula, not the fused operator no exporter
    has.
    """
    mha = require("torch").backends.mha
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(fast)


def trace(subject: Subject, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``trace``: torch.jit.trace of the adapter."""
    torch = require("torch")
    from mnnprep.formats.torch.attention import attention_written_out

    with torch.no_grad(), tracer_notes(notes), subject.watch.mode(), attention_written_out():
        traced = torch.jit.trace(adapter(subject), subject.tensors(), check_trace=False)
    return _save(_with_names(traced, subject), directory)


def _with_names(traced: ScriptModule, subject: Subject) -> ScriptModule:
    """Name the trace's inputs after the signature's."""
    for value, spec in zip(list(traced.graph.inputs())[1:], subject.specs, strict=True):
        if re.fullmatch(r"[A-Za-z_]\w*", spec.name):
            value.setDebugName(spec.name)
    return traced


def script(subject: Subject, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``script``: torch.jit.script of the model, its control flow kept."""
    return _save(scripted(subject), directory)


def scripted(subject: Subject) -> ScriptModule:
    """The model as a ScriptModule. Raises RefusedError with the place that scripting can't take."""
    torch = require("torch")
    from mnnprep.formats.torch.attention import attention_written_out

    module = subject.module
    if isinstance(module, torch.jit.ScriptModule):
        return cast("ScriptModule", module)
    try:
        with attention_written_out():
            compiled: ScriptModule = torch.jit.script(module).eval()
    except Exception as error:  # the compiler raises RuntimeError, NotSupportedError, FrontendError and more
        raise RefusedError(
            "torch.jit.script can't compile the model",
            seen=script_complaint(said(error)),
            next="use --method trace, or mend the place named",
        ) from error
    return compiled


def script_complaint(text: str) -> str:
    """The compiler's complaint and the line it is about, out of its long message."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    place = re.search(r'File "([^"]+)", line (\d+)', text)
    where = f" (at {Path(place[1]).name}:{place[2]})" if place else ""
    return (lines[0].rstrip(":") if lines else "no message") + where


def recopied(subject: Subject, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``copy`` of a TorchScript file: the same module in eval, saved anew without debug records."""
    return _save(subject.module, directory)


def _save(module: nn.Module, directory: Path) -> list[FileRef]:
    target = directory / "model.pt"
    save_script(module, target)
    return [file_ref(target)]


def onnx_trace(subject: Subject, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
    """Method ``onnx-trace``: the TorchScript-based exporter.

    The batch norms stay as they are (MNN folds them itself), so that the file holds the source's parameters.
    Raises UnsupportedAtOpset.
    """
    torch = require("torch")
    module = (
        without_dictionaries(subject.module, subject)
        if isinstance(subject.module, torch.jit.ScriptModule)
        else adapter(subject)
    )
    return _torchscript_exporter(module, subject, directory, notes, opset)


def onnx_script(subject: Subject, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
    """Method ``onnx-script``: the model scripted first, so that its control flow becomes If and Loop
    nodes.
    """
    return _torchscript_exporter(
        without_dictionaries(scripted(subject), subject), subject, directory, notes, opset
    )


def without_dictionaries(module: nn.Module, subject: Subject) -> nn.Module:
    """A ScriptModule of the subject's inputs that gives what *module* does: as a tuple where a dictionary is
    in it, since the exporter has no form for one, and with the inputs by keyword that the module does not
    take by place.
    """
    torch = require("torch")
    call = calling(module, subject.names)
    with torch.no_grad():
        outputs = call(module, dict(zip(subject.names, subject.tensors(), strict=True)))
    found = list(places(outputs, "outputs"))
    named = any("['" in place for place in found)
    if not named and call.places == tuple(subject.names):
        return module
    holder = torch.nn.Module()
    holder.model = module
    wrapper = torch.jit.script(holder)
    names = {name: f"x{number}" for number, name in enumerate(subject.names)}
    arguments = [names[n] if isinstance(n, str) else repr(n.value) for n in call.places] + [
        f"{n}={names[n]}" for n in call.keywords
    ]
    given = f"({', '.join(found)},)" if named else "outputs"
    wrapper.define(
        f"def forward(self, {', '.join(names.values())}):\n    outputs = self.model({', '.join(arguments)})\n"
        f"    return {given}\n"
    )
    unwrapping: nn.Module = wrapper.eval()
    return unwrapping


def _torchscript_exporter(
    module: nn.Module, subject: Subject, directory: Path, notes: list[str], opset: int
) -> list[FileRef]:
    size = sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
    if size <= EXTERNAL_THRESHOLD:
        written = Written()
        torchscript_exporter(module, subject, written, notes, opset)
        return [_tidy_proto(written, directory, subject)]
    raw = empty(directory / "raw") / "model.onnx"
    torchscript_exporter(module, subject, str(raw), notes, opset)
    external = len(list(raw.parent.iterdir())) > 1  # past 2 GiB the exporter writes a file for every tensor
    files = (
        _tidy(require("onnx_ir").load(str(raw)), directory, subject)
        if external
        else [_tidy_proto(Written(raw.read_bytes()), directory, subject)]
    )
    shutil.rmtree(raw.parent)
    return files


def torchscript_exporter(
    module: nn.Module,
    subject: Subject,
    raw: str | Written,
    notes: list[str],
    opset: int,
    kept: int | None = None,
    **options: bool,
) -> None:
    """Export *module* to *raw*, a path or what keeps it, by torch's TorchScript-based exporter. Raises
    UnsupportedAtOpset, RefusedError.

    *kept* is how many outputs the model gives while it is exported, where those are fewer: the comparison
    then misses the rest.
    """
    torch = require("torch")
    aside = raw.weights if isinstance(raw, Written) else None
    axes = {s.name: {i: e for i, e in enumerate(s.shape) if isinstance(e, str)} for s in subject.specs}
    outputs = list(subject.output_ranks)[:kept]
    varying = (
        {n: {i: f"{n}_{i}" for i in range(rank)} for n, rank in subject.output_ranks.items() if n in outputs}
        if dim_names(subject.specs)
        else {}
    )
    try:
        with (
            torch.no_grad(),
            tracer_notes(notes),
            subject.watch.mode(),
            plain_attention(),
            large_weights_aside(aside),
        ):
            torch.onnx.export(
                module,
                subject.tensors(),
                raw,
                dynamo=False,
                opset_version=opset,
                input_names=subject.names,
                output_names=outputs,
                dynamic_axes={n: a for n, a in {**axes, **varying}.items() if a},
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=True,
                verbose=subject.places,
                **options,
            )
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise UnsupportedAtOpset(message(error), _needed_opset(str(error))) from error
    except torch.onnx.errors.OnnxExporterError as error:
        needed = _needed_opset(str(error))
        if needed > opset:
            raise UnsupportedAtOpset(message(error), needed) from error
        raise RefusedError(
            "the exporter can't express an operator", seen=message(error), next="try --method onnx-export"
        ) from error
    except Exception as error:  # the exporter raises bare RuntimeError, and whatever the model raises
        fewer = re.search(
            r"number of output names provided \(\d+\) exceeded number of outputs \((\d+)\)", str(error)
        )
        if fewer and kept is None:
            return torchscript_exporter(module, subject, raw, notes, opset, int(fewer[1]), **options)
        raise RefusedError(
            "the TorchScript-based exporter failed", seen=cause(error), next="try --method onnx-export"
        ) from error


def search_opset(opset: int, make: Callable[[int], T]) -> tuple[T, list[OpsetRefused]]:
    """What *make* gives at the opset asked for, going up to where every operator of the model has a form; and
    the opsets before it.

    Raises RefusedError when no opset has every operator.
    """
    refused: list[OpsetRefused] = []
    while True:
        try:
            return make(opset), refused
        except UnsupportedAtOpset as error:
            refused.append(OpsetRefused(opset, str(error)))
            if error.needed <= opset:
                raise RefusedError(
                    "no opset has every operator of the model",
                    seen=str(error),
                    next="try --method onnx-export",
                ) from error
            opset = error.needed


def empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def _needed_opset(message: str) -> int:
    found = re.search(
        r"added in (?:opset )?version (\d+)|opset(?: version)? (\d+)(?: or|\+| and)|requires?"
        r" opset(?:_version)?\s*(?:>=)?\s*(\d+)",
        message,
    )
    return int(next(g for g in found.groups() if g)) if found else 0


def onnx_export(subject: Subject, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
    """Method ``onnx-export``: the torch.export-based exporter, at opset 18 or above."""
    torch = require("torch")
    auto = torch.export.Dim.AUTO
    shapes = tuple({i: auto for i, e in enumerate(s.shape) if isinstance(e, str)} for s in subject.specs)
    dynamic = bool(dim_names(subject.specs))
    program = subject.loaded.program
    if isinstance(subject.module, torch.jit.ScriptModule):
        raise RefusedError(
            "the torch.export-based exporter takes no TorchScript", next="use --method onnx-trace"
        )
    try:
        with torch.no_grad(), warnings.catch_warnings(), plain_attention():
            warnings.simplefilter("ignore")
            if program is not None:
                exported = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=max(opset, EXPORT_OPSET),
                    verbose=False,
                    optimize=False,
                )
            else:
                exported = torch.onnx.export(
                    adapter(subject),
                    subject.tensors(),
                    dynamo=True,
                    opset_version=max(opset, EXPORT_OPSET),
                    verbose=False,
                    optimize=False,
                    dynamic_shapes=(shapes,) if dynamic else None,
                )
    except Exception as error:  # torch.export raises many classes of its own
        root = error.__cause__ or error
        raise RefusedError(
            "the torch.export-based exporter failed",
            seen=_export_complaint(root),
            next="try --method onnx-trace",
        ) from error
    _name_values(exported.model, subject.names, list(subject.output_ranks))
    _fold(exported.model)
    return _tidy(exported.model, directory, subject)


def _fold(model: ir.Model) -> None:
    """Inline functions and fold constants, in place; unlike the exporter's own clean-up no batch norm is
    folded into a weight, so that the file holds the source's parameters.
    """
    optimizer, passes = require("onnxscript.optimizer"), require("onnx_ir.passes.common")
    passes.InlinePass()(model)
    optimizer.fold_constants(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    for tidy in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)


def _export_complaint(error: BaseException) -> str:
    text = str(error)
    place = re.findall(r'File "([^"]+)", line (\d+), in', text)
    outside = [(f, n) for f, n in place if "/torch/" not in f and "mnnprep" not in f]
    where = f" (at {Path(outside[-1][0]).name}:{outside[-1][1]})" if outside else ""
    return f"{cause(error)}{where}"


def _name_values(model: ir.Model, inputs: list[str], outputs: list[str]) -> None:
    for value, name in [
        *zip(model.graph.inputs, inputs, strict=True),
        *zip(model.graph.outputs, outputs, strict=True),
    ]:
        value.name = name


def _tidy_proto(raw: Written, directory: Path, subject: Subject) -> FileRef:
    """:func:`_tidy` for the usual file, whose weights are inside, without the second onnx-ir takes to
    import.
    """
    from mnnprep.formats.onnx import splice

    def parts(extent: splice.Extent) -> list[splice.Part]:
        weight = raw.weights.get(splice.name_of(raw.data, extent))
        if weight is None:
            return splice.without_notes(raw.data, extent)
        return splice.filled(raw.data, extent, as_array(weight))

    model, initializers = splice.apart(raw.data)
    declare_inputs(model, subject)
    if not subject.places:
        forget(model)
    return splice.write(directory / "model.onnx", model, map(parts, initializers))


def declare_inputs(model: ModelProto, subject: Subject) -> None:
    """Give the first graph inputs, which are the subject's, its sizes and names of dimensions."""
    for value, spec in zip(model.graph.input, subject.specs, strict=False):
        for dim, extent in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            dim.ClearField("dim_param" if isinstance(extent, int) else "dim_value")
            setattr(dim, "dim_value" if isinstance(extent, int) else "dim_param", extent)


def forget(message: Message) -> None:
    """Clear every ``doc_string`` and ``metadata_props`` of a model's messages."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in ("doc_string", "metadata_props"):
        if name in fields:
            message.ClearField(name)
    for field_, value in message.ListFields():
        if field_.name in (
            "graph",
            "node",
            "attribute",
            "g",
            "graphs",
            "functions",
            "input",
            "output",
            "value_info",
            "initializer",
        ):
            for item in (value,) if hasattr(value, "DESCRIPTOR") else value:
                if hasattr(item, "DESCRIPTOR"):
                    forget(item)


def _tidy(model: ir.Model, directory: Path, subject: Subject) -> list[FileRef]:
    """Save the exporter's onnx-ir model as ours: no stack traces and paths, dimensions by their names,
    weights in one place.
    """
    ir = require("onnx_ir")
    from mnnprep.formats.onnx.steps import save

    for value, spec in zip(model.graph.inputs, subject.specs, strict=True):
        value.shape = ir.Shape(spec.shape)
    if not subject.places:
        _strip(model)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    return save(model, directory, external=size > EXTERNAL_THRESHOLD)


def _strip(model: ir.Model) -> None:
    """Remove what names the machine or the code: documentation strings and metadata."""
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in graph.all_nodes() if hasattr(graph, "all_nodes") else graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
