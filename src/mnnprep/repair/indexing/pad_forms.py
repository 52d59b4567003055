"""Pad with axes, in mode wrap, or with its value as an attribute (before opset 11).

Measured with MNN 3.6.1: axes give a SIGABRT or no output; wrap is refused; the value of an older Pad is not
read.

All axes are padded, wrap is a Gather of the fixed sizes, and an older Pad pads with zeros, to which its value
is added.  The same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, given, numbers, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir


class Padding(NamedTuple):
    """The sizes of the input, what is padded before and after each of the axes, and these (None: all).

    ``valued``: the value to pad with is an attribute.
    """

    dims: tuple[int, ...]
    pads: list[int]
    axes: list[int] | None
    valued: bool


def _find(view: ModelView) -> Iterator[Match[Padding]]:
    for node, opset in view.nodes("Pad"):
        axes = given(node, 3) is not None
        if axes or node.attributes.get_string("mode", "constant") == "wrap":
            found, detail = _inputs(node, view), "axes" if axes else "wrap"
        elif opset < INPUTS_SINCE["Pad"] and _value(node):
            found, detail = _attributes(node, view), "a value as an attribute"
        else:
            continue
        yield Match(at=node, opset=opset, found=found, detail=detail, repairable=found is not None)


def _value(node: ir.Node) -> float:
    """The value to pad with, if it is an attribute."""
    return float(node.attributes.get_float("value", 0.0))


def _inputs(node: ir.Node, view: ModelView) -> Padding | None:
    dims, pads = static(view.dims(node.inputs[0])), tensor(given(node, 1))
    axes = given(node, 3)
    known = tensor(axes)
    if dims is None or pads is None or (axes is not None and known is None):
        return None
    return Padding(dims, numbers(pads.numpy()), None if known is None else numbers(known.numpy()), False)


def _attributes(node: ir.Node, view: ModelView) -> Padding | None:
    dims, pads = static(view.dims(node.inputs[0])), list(node.attributes.get_ints("pads", ()))
    if dims is None or len(pads) != 2 * len(dims) or min(pads) < 0 or view.dtype(node.inputs[0]) != "FLOAT":
        return None
    return Padding(dims, pads, None, True)


def _apply(editor: Editor, match: Match[Padding]) -> bool:
    node, (dims, amounts, known, valued) = match.node, match.plan
    build, x, rank = Builder(editor, node, match.opset), node.inputs[0], len(dims)
    if valued:
        return _filled(build, dims, amounts)
    axes = [axis % rank for axis in (range(rank) if known is None else known)]
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(axes):
        before[axis], after[axis] = amounts[number], amounts[number + len(axes)]
    mode = node.attributes.get_string("mode", "constant")
    if mode != "wrap":
        value = [given(node, 2)] if given(node, 2) is not None else []
        build.replace(build.op("Pad", x, build.ints(*before, *after), *value, mode=mode))
        return True
    x = build.op("Identity", x)
    for axis, size in enumerate(dims):
        if before[axis] or after[axis]:
            places = np.arange(-before[axis], size + after[axis]) % size
            x = build.op("Gather", x, build.constant(places), axis=axis)
    build.replace(x)
    return True


def _filled(build: Builder, dims: tuple[int, ...], pads: list[int]) -> bool:
    """The padding of zeros, and a constant that is the value there and 0 inside."""
    rank, value = len(dims), _value(build.node)
    around = list(zip(pads[:rank], pads[rank:], strict=True))
    outside = np.pad(np.zeros(dims, np.float32), around, constant_values=value)
    zeros = build.op("Pad", build.node.inputs[0], mode="constant", pads=pads, value=0.0)
    build.replace(build.op("Add", zeros, build.constant(outside)))
    return True


RULE = Rule(
    name="pad-forms",
    severity="crash",
    operators=frozenset({"Pad"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN crashes on a Pad with axes, refuses wrap, and takes 0 for the value of a Pad before opset 11",
    remedy="pad all axes, and give the value as an input (opset 11)",
)
