"""Operators that the installed converter does not list for ONNX.

Measured with MNN 3.6.1: every operator that it refused as unsupported is absent from the list it prints (``-f ONNX --OP``).
A listed one may still be refused in some form: those have rules of their own.
Nodes of a domain that is not ONNX's are looked up by their type alone, and so is a model's own function.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    if reading.supported is None:
        return []
    return [Place(node=node, detail=node.domain) for node, _ in reading.everything if node.op_type not in reading.supported]


RULE = Rule(
    name="unsupported-operator", severity="refused", operators=frozenset(), find=find,
    hazard="MNN's converter does not read this operator",
    remedy="express it by other operators, or export at another opset; prepare repairs some",
)  # fmt: skip
