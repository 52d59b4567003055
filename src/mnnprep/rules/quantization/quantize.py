"""QuantizeLinear.

Measured with MNN 3.6.1: with a computed scale, or an output that is not int8 or uint8, a SIGSEGV; with constants other
numbers come out where its result is read.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("QuantizeLinear")]


RULE = Rule(
    name="quantize-linear", severity="crash", operators=frozenset({"QuantizeLinear"}), find=find,
    hazard="MNN crashes on a QuantizeLinear with a computed scale, and gives other numbers with a constant one",
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)  # fmt: skip
