"""Conv over three dimensions with dilations, and ConvTranspose over three.

Measured with MNN 3.6.1: the dilations are not read; ConvTranspose gives a size of 0.

A dilated kernel is written out with the zeros between its weights.  A ConvTranspose becomes a Conv of its
turned weights over the input with the zeros of its strides.  Numerically equal: zeros are added, in another
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, given, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, stored

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("Conv", "ConvTranspose")
MOST = 1 << 24  # weights of the kernel that is written out


@dataclass(frozen=True)
class Sizes:
    """The sizes of the input and of the result of a ConvTranspose, but for batch and channels."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _find(view: ModelView) -> Iterator[Match[Sizes]]:
    for node, opset in view.nodes(*OPS):
        if (view.rank(node.inputs[1]) or view.rank(node.inputs[0])) != 5:
            continue
        if node.op_type == "ConvTranspose" or any(d != 1 for d in node.attributes.get_ints("dilations", ())):
            before = static((view.dims(node.inputs[0]) or ())[2:])
            after = static((view.dims(node.outputs[0]) or ())[2:])
            sizes = Sizes(before, after) if before and after else None
            yield Match(at=node, opset=opset, found=sizes, repairable=_able(node, sizes))


def _able(node: ir.Node, sizes: Sizes | None) -> bool:
    weight = stored(node.inputs[1])
    if weight is None or weight.dtype.name != "FLOAT":
        return False
    if weight.size * int(np.prod(node.attributes.get_ints("dilations", (1,)))) > MOST:
        return False
    if node.op_type == "Conv":
        return True
    if sizes is None:
        return False
    spread = [
        (k - 1) * d + 1 for k, d in zip(weight.shape.numpy()[2:], _three(node, "dilations"), strict=True)
    ]
    before, behind = _pads(node, sizes, spread, _three(node, "strides"))
    return min(*before, *behind) >= 0


def _three(node: ir.Node, name: str) -> list[int]:
    """An attribute of one number an axis, 1 where it is left out."""
    return list(node.attributes.get_ints(name, (1, 1, 1)))


def _apply(editor: Editor, match: Match[Sizes]) -> bool:
    node = match.node
    build, weight = Builder(editor, node, match.opset), stored(node.inputs[1])
    assert weight is not None  # else the match is not repairable
    kernel = _spread(weight.numpy(), _three(node, "dilations"))
    bias = [given(node, 2)] if given(node, 2) is not None else []
    if node.op_type == "ConvTranspose":
        _transposed(build, kernel, bias, match.plan)
        return True
    kept = {n: a for n, a in attributes_of(node).items() if n not in ("dilations", "kernel_shape")}
    sizes = list(kernel.shape[2:])
    build.replace(build.op("Conv", node.inputs[0], build.constant(kernel), *bias, kernel_shape=sizes, **kept))
    return True


def _transposed(build: Builder, kernel: Array, bias: Sequence[Operand], sizes: Sizes) -> None:
    """Let a Conv of the turned weights take the place of the ConvTranspose."""
    node, x = build.node, build.node.inputs[0]
    group, strides = node.attributes.get_int("group", 1), _three(node, "strides")
    for axis, (size, stride) in enumerate(zip(sizes.before, strides, strict=True), 2):
        x = _with_zeros(build, x, axis, size, stride) if stride > 1 else x
    before, behind = _pads(node, sizes, kernel.shape[2:], strides)
    if any(before) or any(behind):
        x = build.pad(x, [0, 0, *before], [0, 0, *behind], 0.0)
    build.replace(
        build.op(
            "Conv",
            x,
            build.constant(_turned(kernel, group)),
            *bias,
            group=group,
            kernel_shape=list(kernel.shape[2:]),
            strides=[1, 1, 1],
            pads=[0] * 6,
            dilations=[1, 1, 1],
        )
    )


def _spread(weight: Array, dilations: list[int]) -> Array:
    """The kernel with its zeros between the weights."""
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    spread = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return spread


def _turned(weight: Array, group: int) -> Array:
    """Turn (C, M/group, ...) of a ConvTranspose into (M, C/group, ...) of the Conv.

    Every axis of the kernel is reversed.
    """
    channels, each, *kernel = weight.shape
    turned = (
        weight.reshape(group, channels // group, each, *kernel)
        .swapaxes(1, 2)
        .reshape(group * each, channels // group, *kernel)
    )
    return np.ascontiguousarray(turned[:, :, ::-1, ::-1, ::-1])


def _with_zeros(build: Builder, x: Operand, axis: int, size: int, stride: int) -> ir.Value:
    """*x* with ``stride - 1`` zeros between each two of *axis*, whose *size* is known."""
    places = np.full((size - 1) * stride + 1, size)
    places[::stride] = np.arange(size)
    extra = [1 if number == axis else 0 for number in range(5)]
    return build.op("Gather", build.pad(x, [0] * 5, extra, 0.0), build.constant(places), axis=axis)


def _pads(
    node: ir.Node, sizes: Sizes, kernel: Sequence[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    """The padding before and behind the spread input with which a Conv gives the sizes afterwards."""
    pads = list(node.attributes.get_ints("pads", [0] * 6))
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    outside = list(node.attributes.get_ints("output_padding", [0] * 3))
    before = []
    for axis, (size, stride, k) in enumerate(zip(sizes.before, strides, kernel, strict=True)):
        cut = (size - 1) * stride + outside[axis] + k - sizes.after[axis]
        shaped = "output_shape" in node.attributes or auto.startswith("SAME")
        low = (cut // 2 if auto == "SAME_UPPER" else cut - cut // 2) if shaped else pads[axis]
        before.append(k - 1 - low)
    full = [(size - 1) * stride + 1 for size, stride in zip(sizes.before, strides, strict=True)]
    ends = zip(sizes.after, kernel, full, before, strict=True)
    return before, [after + k - 1 - size - low for after, k, size, low in ends]


RULE = Rule(
    name="conv3d-forms",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN ignores the dilations of a three-dimensional Conv, and does not compute a"
    " three-dimensional ConvTranspose",
    remedy="avoid dilations there, or split the depth into slices",
)
