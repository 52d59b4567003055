"""Less on floats, of which both may be negative.

Measured with MNN 3.6.1: on x86 the answer is wrong where both operands are negative. Against a constant that
is nowhere negative it is right, and so is Greater.

``a < b`` is written as ``b > a``: the same answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer, tensor

if TYPE_CHECKING:
    from mnnprep.repair.support.reading import Operand

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16", "")


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node)
        for node, _ in view.nodes("Less")
        if view.dtype(node.inputs[0]) in FLOATS and not any(never_negative(value) for value in node.inputs)
    ]


def never_negative(value: Operand) -> bool:
    """Whether *value* is a constant that is nowhere negative."""
    cast = producer(value, "Cast", "CastLike")
    found = tensor(cast.inputs[0] if cast is not None else value)
    return found is not None and found.numpy().dtype.kind in "fiub" and bool((found.numpy() >= 0).all())


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    left, right = node.inputs
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    editor.replace(node, editor.add(node, "Greater", right, left, **attributes))
    return True


RULE = Rule(
    name="less-negative",
    severity="wrong",
    operators=frozenset({"Less"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN computes Less wrongly if both operands are negative",
    remedy="write a < b as b > a",
)
