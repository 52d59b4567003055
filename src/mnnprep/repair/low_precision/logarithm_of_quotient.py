"""The logarithm of a quotient of numbers that are not negative, as in a logit.

The quotient of two numbers that half precision holds, at precision ``low`` on ARM64 CPUs that have it, may be
beyond 65,504 or below 6e-8, and in one tensor both, so that no factor helps.  The difference of their
logarithms is ordinary, and is the same where one of them is 0; the last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

LARGEST, LEAST = 2.0**15, 2.0**-14  # where half precision holds all of a number's bits
TO_ONE = ("Sigmoid", "Softmax", "HardSigmoid")  # from 0 to 1
POSITIVE = (*TO_ONE, "Exp", "Abs", "Relu", "Softplus")


def _find(view: ModelView) -> Iterator[Match[ir.Node]]:
    for node, opset in view.nodes("Log"):
        quotient = producer(node.inputs[0], "Div")
        if quotient is None or not all(_not_negative(value) for value in quotient.inputs):
            continue
        found = view.magnitude(quotient.outputs[0])
        if found is not None and (found.largest > LARGEST or 0 < found.least < LEAST):
            yield Match(at=node, opset=opset, found=quotient)


def _not_negative(value: Operand) -> bool:
    if (number := scalar(value)) is not None:
        return number > 0
    if producer(value, *POSITIVE) is not None:
        return True
    if (clip := producer(value, "Clip")) is not None:
        return (scalar(given(clip, 1)) or -1.0) > 0
    rest = producer(value, "Sub")
    return rest is not None and scalar(rest.inputs[0]) == 1 and _at_most_one(rest.inputs[1])


def _at_most_one(value: Operand) -> bool:
    clip = producer(value, "Clip")
    most = scalar(given(clip, 2)) if clip is not None else None
    return producer(value, *TO_ONE) is not None or (most is not None and most <= 1)


def _apply(editor: Editor, match: Match[ir.Node]) -> bool:
    build = Builder(editor, match.node, match.opset)
    above, below = (build.op("Log", value) for value in match.plan.inputs)
    build.replace_only(build.op("Sub", above, below))
    return True


RULE = Rule(
    name="logarithm-of-quotient",
    severity="narrowed",
    target="low",
    operators=frozenset({"Log"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="half precision does not hold the quotient that a logarithm is taken of",
    remedy="subtract the logarithms",
)
