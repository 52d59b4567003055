"""Conv over three dimensions with dilations, and ConvTranspose over three.

Measured with MNN 3.6.1: the dilations are not read; ConvTranspose gives a size of 0.

A dilated kernel is written out with the zeros between its weights.  A ConvTranspose becomes a Conv of its
turned weights over the input with the zeros of its strides.  Numerically equal: zeros are added, in another
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import TOO_FAR, Builder, attributes_of, given, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, stored

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("Conv", "ConvTranspose")
MOST = 1 << 24  # weights of the kernel that is written out


class Padding(NamedTuple):
    """What a Conv needs before and behind the spread input to give the result of a ConvTranspose."""

    before: list[int]
    behind: list[int]


def _find(view: ModelView) -> Iterator[Match[Padding]]:
    for node, opset in view.nodes(*OPS):
        if (view.rank(node.inputs[1]) or view.rank(node.inputs[0])) != 5:
            continue
        if node.op_type == "ConvTranspose" or any(d != 1 for d in node.attributes.get_ints("dilations", ())):
            padding = _padding(node, view) if node.op_type == "ConvTranspose" else Padding([], [])
            yield Match(at=node, opset=opset, found=padding, repairable=_able(node, padding))


def _able(node: ir.Node, padding: Padding | None) -> bool:
    weight = stored(node.inputs[1])
    if weight is None or weight.dtype.name != "FLOAT" or padding is None:
        return False
    return weight.size * int(np.prod(node.attributes.get_ints("dilations", (1,)))) <= MOST


def _three(node: ir.Node, name: str) -> list[int]:
    """An attribute of one number an axis, 1 where it is left out."""
    return list(node.attributes.get_ints(name, (1, 1, 1)))


def _apply(editor: Editor, match: Match[Padding]) -> bool:
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


def _transposed(build: Builder, kernel: Array, bias: Sequence[Operand], padding: Padding) -> None:
    """Let a Conv of the turned weights take the place of the ConvTranspose."""
    node, group = build.node, build.node.attributes.get_int("group", 1)
    x = _spread_input(build, node.inputs[0], _three(node, "strides"))
    pads = [[max(size, 0) for size in sizes] for sizes in padding]
    if any(map(any, pads)):
        x = build.pad(x, [0, 0, *pads[0]], [0, 0, *pads[1]], 0.0)
    for axis, (low, high) in enumerate(zip(*padding, strict=True), 2):
        if low < 0 or high < 0:
            x = build.slice(x, axis, max(-low, 0), min(high, 0) or TOO_FAR)
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


def _spread_input(build: Builder, x: Operand, strides: list[int]) -> Operand:
    """*x* with ``stride - 1`` zeros behind every place of each axis, the last one too.

    Axis by axis, each as the last one, so that no size need be known.
    """
    if max(strides) == 1:
        return x
    for stride in strides:
        x = build.op("Transpose", x, perm=[0, 1, 3, 4, 2])
        if stride > 1:
            wide = build.pad(build.unsqueeze(x, 5), [0] * 6, [0] * 5 + [stride - 1], 0.0)
            x = build.reshape(wide, 0, 0, 0, 0, -1)
    return x


class _Axis(NamedTuple):
    """One axis: ``size`` is the input's if it is known, ``wanted`` the result's if it is given."""

    size: int | None
    kernel: int
    dilation: int
    stride: int
    low: int
    high: int
    added: int
    wanted: int | None


def _padding(node: ir.Node, view: ModelView) -> Padding | None:
    """The padding of the spread input; None if it depends on a size that is open."""
    dims, weight = view.dims(node.inputs[0]), view.dims(node.inputs[1])
    kernel = list(node.attributes.get_ints("kernel_shape", ())) or list(static((weight or ())[2:]) or ())
    sizes = list(dims[2:]) if dims is not None and len(dims) == 5 else [None] * 3
    wanted: list[int | None] = [*node.attributes.get_ints("output_shape", ())[-3:]] or [None] * 3
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    pads = list(node.attributes.get_ints("pads", [0] * 6)) if auto == "NOTSET" else [0] * 6
    added = list(node.attributes.get_ints("output_padding", [0] * 3))
    if len(kernel) != 3:
        return None
    dilations, strides = _three(node, "dilations"), _three(node, "strides")
    columns = (sizes, kernel, dilations, strides, pads[:3], pads[3:], added, wanted)
    axes = [_Axis(s if isinstance(s, int) else None, *rest) for s, *rest in zip(*columns, strict=True)]
    found = [_around(axis, auto) for axis in axes]
    known = [pair for pair in found if pair is not None]
    return Padding([low for low, _ in known], [high for _, high in known]) if len(known) == 3 else None


def _around(axis: _Axis, auto: str) -> tuple[int, int] | None:
    """The padding of one axis.

    The spread axis has size times stride places, of which the last ``stride - 1`` are too many.
    """
    reach, low, high = (axis.kernel - 1) * axis.dilation + 1, axis.low, axis.high
    if axis.wanted is not None or auto.startswith("SAME"):
        cut = reach + axis.added - axis.stride
        if axis.wanted is not None:
            if axis.size is None:
                return None
            cut += axis.size * axis.stride - axis.wanted
        elif cut < 0:  # onnxruntime adds nothing behind the last window
            cut = 0
        low = max(cut // 2 if auto == "SAME_UPPER" else cut - cut // 2, 0)
        high = cut - low
    return reach - 1 - low, reach + axis.added - high - axis.stride


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
