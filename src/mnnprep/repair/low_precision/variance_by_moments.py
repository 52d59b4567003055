"""Variance as the mean of the squares less the square of the mean.

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: where the mean is
large beside the deviation, nothing is left of the difference (-41 to 15 dB). Written as the mean of the
squared distances from the mean, which float32 computes closer too; the last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer, scalar
from mnnprep.repair.support.reductions import Reduction, reduction

if TYPE_CHECKING:
    import onnx_ir as ir


def _find(view: ModelView) -> Iterator[Match[Reduction]]:
    for node, opset in view.nodes("Sub"):
        of_squares, squared = _mean(node.inputs[0]), _squared(node.inputs[1])
        of_values = _mean(squared) if squared is not None else None
        if of_squares is None or of_values is None:
            continue
        if _squared(of_squares.value) is of_values.value and of_squares[1:] == of_values[1:]:
            yield Match(at=node, opset=opset, found=of_values)


def _mean(value: ir.Value | None) -> Reduction | None:
    """What *value* is the mean of."""
    return reduction(producer(value, "ReduceMean"))


def _squared(value: ir.Value | None) -> ir.Value | None:
    """What *value* is the square of."""
    node = producer(value, "Mul", "Pow")
    if node is None:
        return None
    square = node.inputs[0] is node.inputs[1] if node.op_type == "Mul" else scalar(node.inputs[1]) == 2
    return node.inputs[0] if square else None


def _apply(editor: Editor, match: Match[Reduction]) -> bool:
    build, (value, axes, keep) = Builder(editor, match.node, match.opset), match.plan
    distance = build.op("Sub", value, build.reduce("ReduceMean", value, axes, keep=True))
    build.replace_only(build.reduce("ReduceMean", build.op("Mul", distance, distance), axes, keep=keep))
    return True


RULE = Rule(
    name="variance-by-moments",
    severity="narrowed",
    target="low",
    operators=frozenset({"Sub"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="half precision leaves nothing of the difference between the mean square and the squared mean",
    remedy="compute the variance as the mean of the squared distances from the mean",
)
