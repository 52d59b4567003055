"""Division of floats by a number that is computed from sizes alone.

Measured with MNN 3.6.1: the converter turns the division into a product with the reciprocal of the divisor as
it stands at conversion, where every open size is 1.  Written as that product itself, which MNN computes with
the sizes of the run; last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, bodies, tensor

if TYPE_CHECKING:
    from mnnprep.repair.support.reading import Operand

SIZES = ("Shape", "Size")
MOST = 64  # nodes between the sizes and the divisor


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("Div"):
        if view.dtype(node.inputs[1]) == "FLOAT" and _of_open_sizes(node.inputs[1], view):
            yield Match(at=node, opset=opset)


def _of_open_sizes(value: Operand, view: ModelView) -> bool:
    """Whether *value* is computed from sizes and constants alone, an open size among them."""
    waiting, seen, opened = [value], set(), False
    while waiting:
        last = waiting.pop()
        if last is None or last in seen or tensor(last) is not None:
            continue
        seen.add(last)
        node = last.producer()
        if node is None or node.domain not in STANDARD_DOMAINS or len(seen) > MOST:
            return False
        if node.op_type in SIZES:
            opened = opened or static(view.dims(node.inputs[0])) is None
        elif any(bodies(attribute) for attribute in node.attributes.values()):
            return False
        else:
            waiting.extend(node.inputs)
    return opened


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    build.replace_only(build.op("Mul", node.inputs[0], build.op("Reciprocal", node.inputs[1])))
    return True


RULE = Rule(
    name="div-by-size",
    severity="wrong",
    operators=frozenset({"Div"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN divides by a number made of open sizes as if each were 1",
    remedy="multiply by the reciprocal of the number",
)
