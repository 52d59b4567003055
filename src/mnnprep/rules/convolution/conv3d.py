"""Conv over three dimensions with dilations, and ConvTranspose over three.

Measured with MNN 3.6.1: the dilations are not read; ConvTranspose gives a size of 0.

A dilated kernel is written out with the zeros between its weights.  A ConvTranspose becomes a Conv of its
turned weights over the input with the zeros of its strides.  Numerically equal: zeros are added, in another
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.building import Builder, given, static
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Array, Reading, stored
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("Conv", "ConvTranspose")
MOST = 1 << 24  # weights of the kernel that is written out


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS):
        if (reading.rank(node.inputs[1]) or reading.rank(node.inputs[0])) != 5:
            continue
        if node.op_type == "ConvTranspose" or any(d != 1 for d in node.attributes.get_ints("dilations", ())):
            dims, after = (
                static((reading.dims(node.inputs[0]) or ())[2:]),
                static((reading.dims(node.outputs[0]) or ())[2:]),
            )
            yield Place(node=node, match=(opset, dims, after), repairable=_able(node, dims, after))


def _able(node: Any, dims: Any, after: Any) -> bool:
    weight = stored(node.inputs[1])
    if weight is None or weight.dtype.name != "FLOAT":
        return False
    grown = weight.size * int(np.prod(node.attributes.get_ints("dilations", (1,))))
    if grown > MOST or node.op_type == "Conv" or not (dims and after):
        return bool(grown <= MOST) and node.op_type == "Conv"
    spread = [
        (k - 1) * d + 1
        for k, d in zip(
            weight.shape.numpy()[2:], node.attributes.get_ints("dilations", (1, 1, 1)), strict=True
        )
    ]
    before, behind = _pads(node, dims, after, spread, list(node.attributes.get_ints("strides", (1, 1, 1))))
    return min(*before, *behind) >= 0


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dims, after) = place.node, place.match
    build, x = Builder(editor, node, opset), node.inputs[0]
    weight = _spread(stored(node.inputs[1]).numpy(), list(node.attributes.get_ints("dilations", (1, 1, 1))))
    group, bias = node.attributes.get_int("group", 1), [given(node, 2)] if given(node, 2) is not None else []
    if node.op_type == "Conv":
        kept = {n: a.value for n, a in node.attributes.items() if n not in ("dilations", "kernel_shape")}
        build.replace(
            build.op("Conv", x, build.constant(weight), *bias, kernel_shape=list(weight.shape[2:]), **kept)
        )
        return True
    strides = list(node.attributes.get_ints("strides", (1, 1, 1)))
    for axis, (size, stride) in enumerate(zip(dims, strides, strict=True), 2):
        x = _with_zeros(build, x, axis, size, stride) if stride > 1 else x
    before, behind = _pads(node, dims, after, weight.shape[2:], strides)
    if any(before) or any(behind):
        x = build.pad(x, [0, 0, *before], [0, 0, *behind], 0.0)
    build.replace(
        build.op(
            "Conv",
            x,
            build.constant(_turned(weight, group)),
            *bias,
            group=group,
            kernel_shape=list(weight.shape[2:]),
            strides=[1, 1, 1],
            pads=[0] * 6,
            dilations=[1, 1, 1],
        )
    )
    return True


def _spread(weight: Array, dilations: list[int]) -> Array:
    """The kernel with its zeros between the weights."""
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    spread = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return spread


def _turned(weight: Array, group: int) -> Array:
    """(C, M/group, ...) of a ConvTranspose as (M, C/group, ...) of the Conv, every axis of the kernel
    reversed.
    """
    channels, each, *kernel = weight.shape
    turned = (
        weight.reshape(group, channels // group, each, *kernel)
        .swapaxes(1, 2)
        .reshape(group * each, channels // group, *kernel)
    )
    return np.ascontiguousarray(turned[:, :, ::-1, ::-1, ::-1])


def _with_zeros(build: Builder, x: Any, axis: int, size: int, stride: int) -> Any:
    """*x* with ``stride - 1`` zeros between each two of *axis*, whose *size* is known."""
    places = np.full((size - 1) * stride + 1, size)
    places[::stride] = np.arange(size)
    extra = [1 if number == axis else 0 for number in range(5)]
    return build.op("Gather", build.pad(x, [0] * 5, extra, 0.0), build.constant(places), axis=axis)


def _pads(node: Any, dims: Any, after: Any, kernel: Any, strides: list[int]) -> tuple[list[int], list[int]]:
    """The padding before and behind the spread input with which a Conv gives the sizes *after*."""
    pads, auto = (
        list(node.attributes.get_ints("pads", [0] * 6)),
        node.attributes.get_string("auto_pad", "NOTSET"),
    )
    outside = list(node.attributes.get_ints("output_padding", [0] * 3))
    before = []
    for axis, (size, stride, k) in enumerate(zip(dims, strides, kernel, strict=True)):
        cut = (size - 1) * stride + outside[axis] + k - after[axis]
        shaped = "output_shape" in node.attributes or auto.startswith("SAME")
        low = (cut // 2 if auto == "SAME_UPPER" else cut - cut // 2) if shaped else pads[axis]
        before.append(k - 1 - low)
    full = [(size - 1) * stride + 1 for size, stride in zip(dims, strides, strict=True)]
    return before, [a + k - 1 - size - b for a, k, size, b in zip(after, kernel, full, before, strict=True)]


RULE = Rule(
    name="conv3d-forms",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN computes a Conv over three dimensions without its dilations, and no ConvTranspose over three",
    remedy="avoid dilations there, or split the depth into slices",
)
