"""Operators that the installed converter does not list for ONNX.

Measured with MNN 3.6.1: every operator that it refused as unsupported is absent from the list it prints (``-f
ONNX --OP``).
A listed one may still be refused in some form: those have rules of their own.
Nodes of a domain that is not ONNX's are looked up by their type alone, and so is a model's own function.
Those that a rule writes out are that rule's.
"""

from __future__ import annotations

from mnnprep.rules.functions import function_bodies
from mnnprep.rules.fused import microsoft
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    if reading.supported is None:
        return []
    told = {
        place.node for find_others in (microsoft.find, function_bodies.find) for place in find_others(reading)
    }
    return [
        Place(node=node, detail=node.domain)
        for node, _ in reading.everything
        if node.op_type not in reading.supported and node not in told
    ]


RULE = Rule(
    name="unsupported-operator",
    severity="refused",
    operators=frozenset(),
    find=find,
    hazard="MNN's converter does not read this operator",
    remedy="express it by other operators, or export at another opset; prepare repairs some",
)
