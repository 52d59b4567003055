"""LogSoftmax without ``axis``.

Measured with MNN 3.6.1: the default is not applied; the converter reads a garbage axis, or is a SIGSEGV.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node, match=opset) for node, opset in reading.nodes("LogSoftmax") if "axis" not in node.attributes]


RULE = Rule(
    name="logsoftmax-axis", severity="crash", operators=frozenset({"LogSoftmax"}), find=find,
    hazard="MNN does not apply the default axis of LogSoftmax: another axis, or a crash of the converter",
    remedy="write the axis out",
)  # fmt: skip
