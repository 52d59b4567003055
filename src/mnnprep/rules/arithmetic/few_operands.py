"""Max, Min, Sum and Mean of a single operand, Mean of two.

Measured with MNN 3.6.1: one operand is a SIGSEGV of the converter; a Mean of two gives no output.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("Max", "Min", "Sum", "Mean")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if len(node.inputs) < (3 if node.op_type == "Mean" else 2)]


RULE = Rule(
    name="few-operands", severity="crash", operators=frozenset(OPS), find=find,
    hazard="MNN's converter crashes on Max, Min, Sum and Mean of one operand, and a Mean of two gives nothing",
    remedy="leave out what has one operand; write the Mean of two as (a + b) * 0.5",
)  # fmt: skip
