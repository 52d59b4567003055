"""int64 constants beyond 2^30, and beyond 2^31.

Measured with MNN 3.6.1: int64 constants are clamped to +-2^30, and int64 is computed in 32 bits; an int32
constant that is cast to int64 keeps all its bits. As the bounds of a Slice, if such numbers stand for the
end, it makes no difference.

So constants of 32 bits are written in int32 and cast.  One that is larger has an answer in two places: where
the smaller or larger of it and another is taken (Min, Max, Clip), the end of int32 says the same; and what is
added before a Mod by a constant may be reduced by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Stored

LIMIT = 1 << 30
SUMS = 8  # between a constant and the Mod
ENDS = np.iinfo(np.int32)
WIDE = ("INT64", "UINT64", "UINT32")
BOUNDS = ("Slice",)  # where a large number stands for the end
CHOOSING = ("Min", "Max", "Clip")  # which compute the same with the end of int32, of numbers of 32 bits


def _find(view: ModelView) -> Iterator[Match[tuple[ir.Value, Array]]]:
    for graph in view.model.graphs():
        for value in graph.initializers.values():
            held = value.const_value
            if held is not None and not value.is_graph_input() and _large(value, held):
                yield _match_of(value, held)
    for node, _ in view.nodes("Constant"):
        kept = node.attributes.get_tensor("value", None)
        if kept is not None and _large(node.outputs[0], kept):
            yield _match_of(node.outputs[0], kept)


def _apply(editor: Editor, match: Match[tuple[ir.Value, Array]]) -> bool:
    value, array = match.plan
    for use in list(value.uses()):
        if use.node.op_type not in BOUNDS:
            narrow = _answer(use.node, array)
            assert narrow is not None  # else the match is not repairable
            constant = editor.constant(use.node, narrow)
            use.node.replace_input_with(
                use.idx, editor.add(use.node, "Cast", constant, to=int(require("onnx_ir").DataType.INT64))
            )
    return True


def _large(value: ir.Value, held: Stored) -> bool:
    if held.dtype.name not in WIDE or not held.size or not _matters(value):
        return False
    array = held.numpy()
    return bool(array.max() > LIMIT or array.min() < -LIMIT)


def _match_of(value: ir.Value, held: Stored) -> Match[tuple[ir.Value, Array]]:
    array = held.numpy()
    uses = [use for use in value.uses() if use.node.op_type not in BOUNDS]
    able = (
        held.dtype.name == "INT64"
        and not value.is_graph_output()
        and all(_answer(use.node, array) is not None for use in uses)
    )
    return Match(at=str(value.name), found=(value, array), repairable=able)


def _answer(user: ir.Node, array: Array) -> Array | None:
    """The int32 numbers that serve as well in this node; None if none do."""
    if array.max() <= ENDS.max and array.min() >= ENDS.min:
        return array.astype(np.int32)
    if user.op_type in CHOOSING:
        return np.clip(array, ENDS.min, ENDS.max).astype(np.int32)
    divisor = _later_divisor(user) if user.op_type == "Add" else None
    return np.asarray(np.mod(array, divisor)).astype(np.int32) if divisor else None


def _later_divisor(node: ir.Node) -> int | None:
    """Return the constant by which alone the sum *node* is reduced, sums after it included.

    It is ONNX's Mod, whose result has the sign of the divisor.
    """
    for _ in range(SUMS):
        uses = list(node.outputs[0].uses())
        if len(uses) != 1 or node.outputs[0].is_graph_output():
            return None
        node = uses[0].node
        if node.op_type == "Mod":
            divisor = (
                scalar(node.inputs[1])
                if uses[0].idx == 0 and not node.attributes.get_int("fmod", 0)
                else None
            )
            return int(divisor) if divisor and 0 < abs(divisor) <= LIMIT else None
        if node.op_type != "Add":
            return None
    return None


def _matters(value: ir.Value) -> bool:
    return value.is_graph_output() or any(use.node.op_type not in BOUNDS for use in value.uses())


RULE = Rule(
    name="large-integers",
    severity="wrong",
    operators=frozenset(),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN clamps int64 constants to +-2^30 and computes int64 in 32 bits",
    remedy="keep integers below 2^30, or split them in two",
)
