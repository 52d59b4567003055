"""Pooling over three dimensions with a batch of more than one.

Measured with MNN 3.6.1: the first of the batch is right, the others are not; LpPool over three dimensions is
refused.

Pooling treats every channel alone, so the batch is put among the channels: the same bits.  A global pooling
becomes a reduction, and an LpPool is
written out as strided slices: numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.building import Builder, asked, static
from mnnprep.rules.editor import Editor
from mnnprep.rules.pooling.written_out import place_of, write_out
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool")
GLOBAL = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS):
        dims = reading.dims(node.inputs[0])
        rank = (
            len(node.attributes.get_ints("kernel_shape", ())) + 2
            if "kernel_shape" in node.attributes
            else len(dims or ())
        )
        if rank == 5 and node.op_type == "LpPool":
            yield place_of(node, opset, reading)
        elif rank == 5 and (dims is None or dims[0] != 1):
            yield _place(node, opset, reading)


def _place(node: Any, opset: int, reading: Reading) -> Place:
    dims, after = reading.dims(node.inputs[0]), reading.dims(node.outputs[0])
    sizes = (static(dims[1:]), static(after[1:])) if dims is not None and after is not None else (None, None)
    able = node.op_type in GLOBAL or (None not in sizes and not asked(node, 1))
    return Place(node=node, match=(opset, *sizes), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, before, after) = place.node, place.match
    if node.op_type == "LpPool":
        return write_out(editor, place)
    build, x = Builder(editor, node, opset), node.inputs[0]
    if node.op_type in GLOBAL:
        build.replace(build.reduce(GLOBAL[node.op_type], x, (2, 3, 4), keep=True))
        return True
    inside = build.reshape(x, 1, -1, *before[1:])
    pooled = build.op(
        node.op_type, inside, **{name: attribute.value for name, attribute in node.attributes.items()}
    )
    build.replace(build.reshape(pooled, -1, *after))
    return True


RULE = Rule(
    name="pool-3d",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN pools only the first of a batch over three dimensions, and refuses LpPool there",
    remedy="give the batch one by one, or put the batch among the channels",
)
