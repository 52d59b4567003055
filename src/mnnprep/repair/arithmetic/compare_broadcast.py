"""Greater, GreaterOrEqual and LessOrEqual on floats that expand each other, as a column and a row do.

Measured with MNN 3.6.1: the answer is wrong where both numbers are negative. If one operand alone is expanded
it is right, and so are integers.

One operand is expanded to the common shape before: the same answers.
"""

from __future__ import annotations

from mnnprep.repair.arithmetic.less_negative import FLOATS, never_negative
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import Dims, ModelView

OPS = ("Greater", "GreaterOrEqual", "LessOrEqual")


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, opset=opset, repairable=opset >= SINCE["Expand"])
        for node, opset in view.nodes(*OPS)
        if view.dtype(node.inputs[0]) in FLOATS
        and _expand_each_other(view.dims(node.inputs[0]), view.dims(node.inputs[1]))
        and not any(never_negative(value) for value in node.inputs)
    ]


def _expand_each_other(a: Dims | None, b: Dims | None) -> bool:
    if a is None or b is None:
        return False
    rank = max(len(a), len(b))
    one, other = ((1,) * (rank - len(sizes)) + tuple(sizes) for sizes in (a, b))
    return _expands(one, other) and _expands(other, one)


def _expands(a: Dims, b: Dims) -> bool:
    """Whether *a* is expanded to meet *b* along some axis."""
    return any(m == 1 and n != 1 for m, n in zip(a, b, strict=True))


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    left = build.op("Expand", fed(node, 0), build.op("Shape", fed(node, 1)))
    build.replace_only(build.op(node.op_type, left, fed(node, 1)))
    return True


RULE = Rule(
    name="compare-broadcast",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True, always=True),
    hazard="MNN compares negative floats wrongly if each operand is expanded to meet the other",
    remedy="expand one operand to the common shape before",
)
