"""Pooling over three dimensions with a batch of more than one.

Measured with MNN 3.6.1: the first of the batch is right, the others are not; LpPool over three dimensions is
refused.

Pooling treats every channel alone, so the batch is put among the channels: the same bits.  A global pooling
becomes a reduction, and an LpPool is
written out as strided slices: numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, asked, attributes_of, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.pool_written_out import Windows, match_of, write_out
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool")
GLOBAL = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}


class Sizes(NamedTuple):
    """The sizes of the input and of the result, but for the batch."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _find(view: ModelView) -> Iterator[Match[Sizes | Windows]]:
    for node, opset in view.nodes(*OPS):
        dims = view.dims(node.inputs[0])
        rank = (
            len(node.attributes.get_ints("kernel_shape", ())) + 2
            if "kernel_shape" in node.attributes
            else len(dims or ())
        )
        if rank == 5 and node.op_type == "LpPool":
            yield match_of(node, opset, view)
        elif rank == 5 and (dims is None or dims[0] != 1):
            yield _match_of(node, opset, view)


def _match_of(node: ir.Node, opset: int, view: ModelView) -> Match[Sizes | Windows]:
    dims, after = view.dims(node.inputs[0]), view.dims(node.outputs[0])
    inside, pooled = static((dims or ())[1:]), static((after or ())[1:])
    found = Sizes(inside, pooled) if dims is not None and after is not None and inside and pooled else None
    able = node.op_type in GLOBAL or (found is not None and not asked(node, 1))
    return Match(at=node, opset=opset, found=found, repairable=able)


def _apply(editor: Editor, match: Match[Sizes | Windows]) -> bool:
    node = match.node
    if isinstance(match.found, Windows):
        return write_out(editor, Match(at=node, opset=match.opset, found=match.found))
    build, x = Builder(editor, node, match.opset), node.inputs[0]
    if node.op_type in GLOBAL:
        build.replace(build.reduce(GLOBAL[node.op_type], x, (2, 3, 4), keep=True))
        return True
    assert match.found is not None  # else the match is not repairable
    before, after = match.found
    inside = build.reshape(x, 1, -1, *before[1:])
    pooled = build.op(node.op_type, inside, **attributes_of(node))
    build.replace(build.reshape(pooled, -1, *after))
    return True


RULE = Rule(
    name="pool-3d",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN pools only the first batch element over three dimensions, and refuses LpPool there",
    remedy="give the batch one by one, or put the batch among the channels",
)
