"""Pad with axes, in mode wrap, or with its value as an attribute (before opset 11).

Measured with MNN 3.6.1: axes give a SIGABRT or no output; wrap is refused; the value of an older Pad is not
read.

All axes are padded, wrap is a Gather of the fixed sizes, and an older Pad pads with zeros, to which its value
is added.  The same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.building import Builder, given, numbers, static
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Pad"):
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            yield _place(node, opset, "axes", reading)
        elif node.attributes.get_string("mode", "constant") == "wrap":
            yield _place(node, opset, "wrap", reading)
        elif opset < 11 and node.attributes.get_float("value", 0.0):
            yield _place(node, opset, "a value as an attribute", reading, valued=True)


def _place(node: Any, opset: int, detail: str, reading: Reading, *, valued: bool = False) -> Place:
    dims, pads = (
        static(reading.dims(node.inputs[0])),
        tensor(given(node, 1)) if given(node, 1) is not None else None,
    )
    axes = given(node, 3)
    known = tensor(axes) if axes is not None else None
    able = dims is not None and pads is not None and (axes is None or known is not None)
    if valued:
        pads = list(node.attributes.get_ints("pads", ()))
        able = (
            dims is not None
            and len(pads) == 2 * len(dims)
            and min(pads) >= 0
            and reading.dtype(node.inputs[0]) == "FLOAT"
        )
    return Place(node=node, detail=detail, match=(opset, dims, pads, known, valued), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dims, pads, known, valued) = place.node, place.match
    if valued:
        return _filled(Builder(editor, node, opset), dims, pads)
    build, x, rank = Builder(editor, node, opset), node.inputs[0], len(dims)
    axes = [axis % rank for axis in (numbers(known.numpy()) if known is not None else range(rank))]
    amounts = numbers(pads.numpy())
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(axes):
        before[axis], after[axis] = amounts[number], amounts[number + len(axes)]
    if node.attributes.get_string("mode", "constant") != "wrap":
        value = [given(node, 2)] if given(node, 2) is not None else []
        build.replace(
            build.op(
                "Pad",
                x,
                build.ints(*before, *after),
                *value,
                mode=node.attributes.get_string("mode", "constant"),
            )
        )
        return True
    x = build.op("Identity", x)
    for axis, size in enumerate(dims):
        if before[axis] or after[axis]:
            x = build.op(
                "Gather", x, build.constant(np.arange(-before[axis], size + after[axis]) % size), axis=axis
            )
    build.replace(x)
    return True


def _filled(build: Builder, dims: tuple[int, ...], pads: list[int]) -> bool:
    """The padding of zeros, and a constant that is the value there and 0 inside."""
    rank, value = len(dims), build.node.attributes.get_float("value", 0.0)
    around = list(zip(pads[:rank], pads[rank:], strict=True))
    outside = np.pad(np.zeros(dims, np.float32), around, constant_values=value)
    build.replace(
        build.op(
            "Add",
            build.op("Pad", build.node.inputs[0], mode="constant", pads=pads, value=0.0),
            build.constant(outside),
        )
    )
    return True


RULE = Rule(
    name="pad-forms",
    severity="crash",
    operators=frozenset({"Pad"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN crashes on a Pad with axes, refuses wrap, and takes 0 for the value of a Pad before opset 11",
    remedy="pad all axes, and give the value as an input (opset 11)",
)
