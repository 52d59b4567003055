"""DynamicQuantizeLinear.

Measured with MNN 3.6.1: the quantized numbers are wrong.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("DynamicQuantizeLinear")]


RULE = Rule(
    name="dynamic-quantize", severity="wrong", operators=frozenset({"DynamicQuantizeLinear"}), find=find,
    hazard="MNN's DynamicQuantizeLinear gives other numbers",
    remedy="export in float and prepare with --weight-bits 8",
)  # fmt: skip
