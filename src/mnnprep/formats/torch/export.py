"""Making artifacts of a PyTorch source: one function a method.

Every method goes through an adapter whose forward has exactly the signature's inputs, calls the
model as its user does and gives its outputs flattened.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.torch import onnx_cleanup
from mnnprep.formats.torch.adding_forms import UnsupportedAtOpset
from mnnprep.formats.torch.archive import save_script
from mnnprep.formats.torch.calling import calling
from mnnprep.formats.torch.exportable import Exportable, adapter
from mnnprep.formats.torch.exporter_forms import exporter_forms
from mnnprep.formats.torch.externalized_weights import WriteBuffer, large_weights_aside
from mnnprep.formats.torch.structure import holds, places
from mnnprep.formats.torch.watch import current_place
from mnnprep.model.files import FileRef, file_ref
from mnnprep.model.messages import OpsetRefused
from mnnprep.model.signature import dim_names
from mnnprep.safety.error_text import cause, message, said, without_paths

if TYPE_CHECKING:
    from torch import nn
    from torch.jit import ScriptModule

T = TypeVar("T")

EXPORT_OPSET = 18  # the lowest the torch.export-based exporter writes itself
FEWER_OUTPUTS = re.compile(r"number of output names provided \(\d+\) exceeded number of outputs \((\d+)\)")


@contextmanager
def tracer_notes(notes: list[str]) -> Iterator[None]:
    """Collect the tracer's warnings as notes, each with the place in the source; none is printed."""
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
    """Have nn.TransformerEncoderLayer run its documented formula within the block.

    It would run the fused operator, which no exporter has.
    """
    mha = require("torch").backends.mha
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(fast)


def trace(subject: Exportable, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``trace``: torch.jit.trace of the adapter."""
    torch = require("torch")
    from mnnprep.formats.torch.attention import attention_written_out

    with torch.no_grad(), tracer_notes(notes), subject.watch.mode(), attention_written_out():
        traced = torch.jit.trace(adapter(subject), subject.tensors(), check_trace=False)
    return _save(_with_names(traced, subject), directory)


def _with_names(traced: ScriptModule, subject: Exportable) -> ScriptModule:
    """Name the trace's inputs after the signature's."""
    for value, spec in zip(list(traced.graph.inputs())[1:], subject.specs, strict=True):
        if re.fullmatch(r"[A-Za-z_]\w*", spec.name):
            value.setDebugName(spec.name)
    return traced


def script(subject: Exportable, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``script``: torch.jit.script of the model, its control flow kept."""
    return _save(scripted(subject), directory)


def scripted(subject: Exportable) -> ScriptModule:
    """The model as a ScriptModule.

    Raises:
        RefusedError: scripting can't take a place of the code, which is named.
    """
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
            next="use --method trace, or fix the place named",
        ) from error
    return compiled


def script_complaint(text: str) -> str:
    """The compiler's complaint and the line it is about, out of its long message."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    place = re.search(r'File "([^"]+)", line (\d+)', text)
    where = f" (at {Path(place[1]).name}:{place[2]})" if place else ""
    return (lines[0].rstrip(":") if lines else "no message") + where


def recopied(subject: Exportable, directory: Path, notes: list[str]) -> list[FileRef]:
    """Method ``copy`` of a TorchScript file: the same module in eval, saved anew without debug records."""
    return _save(subject.module, directory)


def _save(module: nn.Module, directory: Path) -> list[FileRef]:
    target = directory / "model.pt"
    save_script(module, target)
    return [file_ref(target)]


def onnx_trace(subject: Exportable, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
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


def onnx_script(subject: Exportable, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
    """Export by the method ``onnx-script``.

    The model is scripted first, so that its control flow becomes If and Loop nodes.
    """
    return _torchscript_exporter(
        without_dictionaries(scripted(subject), subject), subject, directory, notes, opset
    )


def without_dictionaries(module: nn.Module, subject: Exportable) -> nn.Module:
    """Return a ScriptModule of the subject's inputs that gives what *module* does.

    It gives a tuple if a dictionary or a list is in it: the exporter has no form for the one and makes a
    sequence of the other. It takes the inputs by keyword that the module does not take by place.
    """
    torch = require("torch")
    call = calling(module, subject.names)
    with torch.no_grad():
        outputs = call(module, dict(zip(subject.names, subject.tensors(), strict=True)))
    found = list(places(outputs, "outputs"))
    packed = holds(outputs, (dict, list))
    if not packed and call.places == tuple(subject.names):
        return module
    holder = torch.nn.Module()
    holder.model = module
    wrapper = torch.jit.script(holder)
    names = {name: f"x{number}" for number, name in enumerate(subject.names)}
    arguments = [names[n] if isinstance(n, str) else repr(n.value) for n in call.places] + [
        f"{n}={names[n]}" for n in call.keywords
    ]
    given = f"({', '.join(found)},)" if packed else "outputs"
    wrapper.define(
        f"def forward(self, {', '.join(names.values())}):\n    outputs = self.model({', '.join(arguments)})\n"
        f"    return {given}\n"
    )
    unwrapping: nn.Module = wrapper.eval()
    return unwrapping


def _torchscript_exporter(
    module: nn.Module, subject: Exportable, directory: Path, notes: list[str], opset: int
) -> list[FileRef]:
    size = sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
    if size <= onnx_cleanup.EXTERNAL_THRESHOLD:
        written = WriteBuffer()
        torchscript_exporter(module, subject, written, notes, opset)
        return [onnx_cleanup.tidy_proto(written, directory, subject.specs, places=subject.places)]
    raw = empty(directory / "raw") / "model.onnx"
    torchscript_exporter(module, subject, str(raw), notes, opset)
    external = len(list(raw.parent.iterdir())) > 1  # past 2 GiB the exporter writes a file for every tensor
    specs, keep = subject.specs, subject.places
    if external:
        files = onnx_cleanup.tidy(require("onnx_ir").load(str(raw)), directory, specs, places=keep)
    else:
        files = [onnx_cleanup.tidy_proto(WriteBuffer(raw.read_bytes()), directory, specs, places=keep)]
    shutil.rmtree(raw.parent)
    return files


def torchscript_exporter(
    module: nn.Module,
    subject: Exportable,
    raw: str | WriteBuffer,
    notes: list[str],
    opset: int,
    kept: int | None = None,
    **options: bool,
) -> None:
    """Export *module* to *raw*, a path or what keeps it, by torch's TorchScript-based exporter.

    *kept* is the number of outputs while it is exported, if it is smaller: the comparison misses the rest.

    Raises:
        UnsupportedAtOpset: an operator has no form at the opset.
        RefusedError: the exporter fails for another reason.
    """
    torch = require("torch")
    aside = raw.weights if isinstance(raw, WriteBuffer) else None
    outputs = list(subject.output_ranks)[:kept]
    inner = any(isinstance(e, str) for s in subject.specs for e in s.shape[1:])
    noted = (tracer_notes(notes), subject.watch.mode(), plain_attention())
    try:
        with contextlib.ExitStack() as stack:
            for context in (torch.no_grad(), *noted, exporter_forms(opset, open_sizes=inner)):
                stack.enter_context(context)
            stack.enter_context(large_weights_aside(aside))
            torch.onnx.export(
                module,
                subject.tensors(),
                raw,
                dynamo=False,
                opset_version=opset,
                input_names=subject.names,
                output_names=outputs,
                dynamic_axes=_dynamic_axes(subject, outputs),
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=True,
                verbose=subject.places,
                **options,
            )
    except UnsupportedAtOpset:
        raise
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
        fewer = FEWER_OUTPUTS.search(str(error))
        if fewer and kept is None:
            return torchscript_exporter(module, subject, raw, notes, opset, int(fewer[1]), **options)
        raise RefusedError(
            "the TorchScript-based exporter failed", seen=cause(error), next="try --method onnx-export"
        ) from error


def _dynamic_axes(subject: Exportable, outputs: list[str]) -> dict[str, dict[int, str]]:
    """The dimensions that vary: the inputs' by name, and all of the outputs where any of the inputs does."""
    axes = {s.name: {i: e for i, e in enumerate(s.shape) if isinstance(e, str)} for s in subject.specs}
    if dim_names(subject.specs):
        axes |= {n: {i: f"{n}_{i}" for i in range(subject.output_ranks[n])} for n in outputs}
    return {name: found for name, found in axes.items() if found}


def search_opset(opset: int, make: Callable[[int], T]) -> tuple[T, list[OpsetRefused]]:
    """Return the first result of *make* from the opset asked for on, and the opsets before it.

    It goes up to an opset that has a form for every operator of the model.

    Raises:
        RefusedError: no opset has every operator.
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
    """Make *directory* anew, whatever was in it before."""
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


def onnx_export(subject: Exportable, directory: Path, notes: list[str], opset: int) -> list[FileRef]:
    """Method ``onnx-export``: the torch.export-based exporter, at opset 18 or above."""
    torch = require("torch")
    from mnnprep.formats.torch.attention import masked_rows_written_out

    auto = torch.export.Dim.AUTO
    shapes = tuple({i: auto for i, e in enumerate(s.shape) if isinstance(e, str)} for s in subject.specs)
    dynamic = bool(dim_names(subject.specs))
    program = subject.loaded.program
    if isinstance(subject.module, torch.jit.ScriptModule):
        raise RefusedError(
            "the torch.export-based exporter takes no TorchScript", next="use --method onnx-trace"
        )
    try:
        with torch.no_grad(), warnings.catch_warnings(), plain_attention(), masked_rows_written_out():
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
    onnx_cleanup.name_values(exported.model, subject.names, list(subject.output_ranks))
    onnx_cleanup.fold(exported.model)
    return onnx_cleanup.tidy(exported.model, directory, subject.specs, places=subject.places)


def _export_complaint(error: BaseException) -> str:
    text = str(error)
    place = re.findall(r'File "([^"]+)", line (\d+), in', text)
    outside = [(f, n) for f, n in place if "/torch/" not in f and "mnnprep" not in f]
    where = f" (at {Path(outside[-1][0]).name}:{outside[-1][1]})" if outside else ""
    return f"{cause(error)}{where}"
