"""1 less a probability that is clipped just below 1, as in a logit or a cross entropy.

Half precision, at precision ``low`` on ARM64 CPUs that have it, rounds a bound such as 1 - 1e-6 to 1, so that
nothing is left of the complement, and its logarithm is infinite.  The complement is clipped instead, at the
complements of the bounds, which it holds.  Rounding is monotone, so that float32 gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

SINCE_OPERANDS = 11  # Clip's bounds are operands from this opset on
NEAR = 2.0**-9  # of 1: nearer bounds lose more than two bits of their complement


class Clipped(NamedTuple):
    """What is clipped, and its bounds."""

    value: ir.Value
    low: float
    high: float


def _find(view: ModelView) -> Iterator[Match[Clipped]]:
    for node, opset in view.nodes("Sub"):
        clip = producer(node.inputs[1], "Clip")
        if scalar(node.inputs[0]) != 1 or clip is None or opset < SINCE_OPERANDS:
            continue
        value, low, high = clip.inputs[0], scalar(given(clip, 1)), scalar(given(clip, 2))
        if value is None or low is None or high is None or view.dtype(value) not in ("FLOAT", ""):
            continue
        same = view.dims(node.outputs[0]) == view.dims(value)
        if same and 1 - NEAR < high < 1 and 0 <= low < high and view.magnitudes:
            yield Match(at=node, opset=opset, found=Clipped(value, low, high))


def _apply(editor: Editor, match: Match[Clipped]) -> bool:
    build, (value, low, high) = Builder(editor, match.node, match.opset), match.plan
    one = np.float32(1)
    bounds = [build.constant(np.array(one - np.float32(end), np.float32)) for end in (high, low)]
    build.replace_only(build.op("Clip", build.op("Sub", build.constant(np.array(one)), value), *bounds))
    return True


RULE = Rule(
    name="complement-of-clip",
    severity="narrowed",
    target="low",
    operators=frozenset({"Clip"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="half precision rounds a bound just below 1 to 1, and leaves nothing of its complement",
    remedy="subtract from 1 first, and clip the difference",
)
