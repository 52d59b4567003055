"""Operators that the installed converter does not list for ONNX.

Measured with MNN 3.6.1: every operator that it refused as unsupported is absent from the list it prints (``-f
ONNX --OP``).
A listed one may still be refused in some form: those have rules of their own.
Nodes of a domain that is not ONNX's are looked up by their type alone, and so is a model's own function.
Those that a rule writes out are that rule's.
"""

from __future__ import annotations

from mnnprep.repair.operators import function_bodies, microsoft_operators
from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    if view.supported is None:
        return []
    told = {
        match.at
        for matches in (microsoft_operators.RULE.find(view), function_bodies.RULE.find(view))
        for match in matches
    }
    return [
        Match(at=node, detail=node.domain)
        for node, _ in view.everything
        if node.op_type not in view.supported and node not in told
    ]


RULE = Rule(
    name="unsupported-operator",
    severity="refused",
    operators=frozenset(),
    find=_find,
    hazard="MNN's converter does not read this operator",
    remedy="express it with other operators, or export at another opset; prepare repairs some",
)
