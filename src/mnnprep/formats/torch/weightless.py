"""Exporting a factory's model without its weights.

Their names go into the graph, no byte of them into memory.

The factory runs with every parameter on torch's meta device as soon as a module takes it, so nothing is
allocated or initialized; buffers, which code computes, stay real.  Tracing then needs tensors with storage
(the tracer tells tensors apart by it), so the parameters get pages that were never written: they read as
zero, and the kernel keeps none of them.

A net that decides by values would decide by these zeros: it is refused.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.errors import Code, RefusedError, UsageError
from mnnprep.formats.onnx import graph as onnx_graph
from mnnprep.formats.streaming import Skeleton
from mnnprep.formats.torch import export, onnx_cleanup
from mnnprep.formats.torch.exportable import Exportable, adapter
from mnnprep.formats.torch.externalized_weights import passes_replaced
from mnnprep.formats.torch.load import (
    Loaded,
    input_specs,
    load_factory,
    to_inference,
    without_weights,
)
from mnnprep.formats.torch.net import TorchNet
from mnnprep.formats.torch.shapes import shapes_of
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types
from mnnprep.formats.torch.watch import UNKNOWN_PLACE, current_place
from mnnprep.model.files import FileRef, file_ref
from mnnprep.model.messages import ExportJob, Source
from mnnprep.reference.survey import base_case, outline
from mnnprep.weights.messages import ModelShapes
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

ALIGNMENT = 64
MAP_NORESERVE = 0x4000  # <asm-generic/mman-common.h>; the mmap module names it from Python 3.13 on
ADAPTER = "model."  # where the exporter's adapter keeps the model


def export_skeleton(job: ExportJob) -> Skeleton:
    """Trace the factory's model without weights.

    Raises:
        RefusedError: a net that its weights' values decide the course of.
    """
    doing("building the model without its weights")
    loaded = _built(job.source)
    module = loaded.module
    to_inference(module)
    shapes = shapes_of(module)
    parameters = sum(p.numel() for p in module.parameters())
    _refuse_unfilled(module, shapes)
    hollow(module)
    net = TorchNet(module, input_specs(loaded, job.wants.inputs), loaded.example, loaded.dims)
    doing("running the model without its weights")
    arrays = base_case(net, job.wants)
    with _no_values_out():
        signature = outline(net, job.wants)
    _refuse_decisions(net)
    subject = Exportable(loaded, net.inputs, arrays, {o.name: len(o.shape) for o in signature.outputs})
    notes: list[str] = []
    doing("exporting the graph")
    (model, file), refused = export.search_opset(
        job.opset, lambda opset: _export(subject, Path(job.directory), notes, opset)
    )
    names = {v.name: v.name.removeprefix(ADAPTER) for v in model.graph.input[len(subject.specs) :]}
    return Skeleton(
        file=file,
        opset=onnx_graph.opset_of(model),
        signature=signature,
        weights=names,
        shapes=shapes,
        parameters=parameters,
        checks=[net.inference_mode(), onnx_graph.inference_mode(model)],
        notes=[*loaded.notes, *notes],
        refused_opsets=refused,
    )


def _built(source: Source) -> Loaded:
    try:
        with without_weights():
            return load_factory(source)
    except UsageError as error:
        if error.code is Code.FACTORY_RAISED:
            raise RefusedError(
                "the factory does not build the model without its weights",
                seen=f"{error.what}: {error.seen}",
                next="raise --memory so that the weights fit, or leave out of the factory what reads them",
            ) from error
        raise


def hollow(module: nn.Module) -> None:
    """Give every tensor on the meta device storage that takes no memory until it is written to.

    Tied tensors stay one.
    """
    torch = require("torch")
    held = {
        id(t): t
        for m in module.modules()
        for t in (*m._parameters.values(), *m._buffers.values())
        if t is not None and t.is_meta
    }
    total = sum(_room(t) for t in held.values())
    if not total:
        return
    pages = mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    made = {}
    at = 0
    for key, tensor in held.items():
        flat = (
            torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel(), offset=at)
            if tensor.numel()
            else torch.empty(0, dtype=tensor.dtype)
        )
        values = flat.reshape(tensor.shape)
        made[key] = (
            torch.nn.Parameter(values, requires_grad=False)
            if isinstance(tensor, torch.nn.Parameter)
            else values
        )
        at += _room(tensor)
    for submodule in module.modules():
        for tensors in (submodule._parameters, submodule._buffers):
            for name, empty in tensors.items():
                if empty is not None and empty.is_meta:
                    tensors[name] = made[id(empty)]


def _room(tensor: torch.Tensor) -> int:
    return -(-int(tensor.numel()) * int(tensor.element_size()) // ALIGNMENT) * ALIGNMENT


def _refuse_unfilled(module: nn.Module, shapes: ModelShapes) -> None:
    """A buffer that is computed from weights, and that no checkpoint holds, can't be had without them."""
    lacking = [
        n for n, b in module.named_buffers(remove_duplicate=False) if b.is_meta and n not in shapes.shapes
    ]
    lazy = [n for n, shape in shapes.shapes.items() if shape is None]
    if lacking or lazy:
        raise RefusedError(
            "the model computes tensors from its weights when it is built, so it can't be exported without"
            " them",
            seen=", ".join((lacking or lazy)[:5]),
            next="raise --memory so that the weights fit, or compute them in forward",
        )


def _refuse_decisions(net: TorchNet) -> None:
    if net.watch.decisions:
        raise _decides("; ".join(list(net.watch.decisions)[:5]))


def _decides(places: str) -> RefusedError:
    return RefusedError(
        "the model's computation depends on values, but its weights are not loaded",
        seen=places,
        next="raise --memory so that the weights fit, or take the decision out of forward",
    )


@contextmanager
def _no_values_out() -> Iterator[None]:
    """Keep values from leaving torch, within the block, by the ways that the watch does not see.

    The watch is :class:`~mnnprep.formats.torch.watch.Watch`.
    """
    torch = require("torch")
    leaving = {torch.Tensor.numpy, torch.Tensor.__array__}

    class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(
            self, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
        ) -> object:
            if (
                function in leaving and (place := current_place()) != UNKNOWN_PLACE
            ):  # which is this package's own code
                raise _decides(f"{place} ({function.__name__.strip('_')})")
            return function(*args, **(kwargs or {}))

    with Mode():
        yield


def _export(subject: Exportable, directory: Path, notes: list[str], opset: int) -> tuple[Any, FileRef]:
    """Run the TorchScript-based exporter with the weights as graph inputs.

    Constants of the code are folded, weights never.
    """
    raw = export.empty(directory / "raw") / "model.onnx"
    with _weights_unseen() as folded:
        export.torchscript_exporter(
            adapter(subject),
            subject,
            str(raw),
            notes,
            opset,
            export_params=False,
            keep_initializers_as_inputs=True,
        )
    model = require("onnx").load(str(raw))
    shutil.rmtree(raw.parent)
    onnx_cleanup.declare_inputs(model, subject.specs)
    _keep_constants(model, folded)
    onnx_cleanup.forget(model)
    target = directory / "skeleton.onnx"
    target.write_bytes(model.SerializeToString(deterministic=True))
    return model, file_ref(target)


@contextmanager
def _weights_unseen() -> Iterator[dict[str, Any]]:
    """Have the exporter infer shapes and fold constants without the parameters' values in the block.

    Gives the constants it folded.

    Both passes would read, transpose and copy every weight.  The shapes come from the trace, as without this.
    """
    passes = require("torch")._C
    infer, fold = passes._jit_pass_onnx_graph_shape_type_inference, passes._jit_pass_onnx_constant_fold
    folded: dict[str, Any] = {}

    def infer_shapes(graph: torch.Graph, parameters: dict[str, Any], opset: int) -> None:  # noqa: ARG001
        infer(graph, {}, opset)

    def fold_code(graph: torch.Graph, parameters: dict[str, Any], opset: int) -> dict[str, Any]:
        found = fold(graph, {}, opset)
        folded.update(found)
        return {**parameters, **found}

    with passes_replaced(
        _jit_pass_onnx_graph_shape_type_inference=infer_shapes, _jit_pass_onnx_constant_fold=fold_code
    ):
        yield folded


def _keep_constants(model: ModelProto, folded: dict[str, Any]) -> None:
    """Make initializers of the graph inputs that are folded constants."""
    helper = require("onnx.numpy_helper")
    rest = []
    for value in model.graph.input:
        if value.name in folded:
            model.graph.initializer.append(
                helper.from_array(folded[value.name].detach().cpu().contiguous().numpy(), value.name)
            )
        else:
            rest.append(value)
    del model.graph.input[:]
    model.graph.input.extend(rest)
