"""int64 constants beyond 2^30, and beyond 2^31.

Measured with MNN 3.6.1: int64 initializers are clamped to +-2^30, and int64 is computed in 32 bits. As the bounds of a Slice, where such
numbers stand for the end, it makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

LIMIT = 1 << 30
BOUNDS = ("Slice",)  # where a large number stands for the end


def find(reading: Reading) -> Iterator[Place]:
    for graph in reading.model.graphs():
        for value in graph.initializers.values():
            held = value.const_value
            if held is not None and held.dtype.name in ("INT64", "UINT64", "UINT32") and held.size and _matters(value):
                array = held.numpy()
                if array.max() > LIMIT or array.min() < -LIMIT:
                    yield Place(name=str(value.name))


def _matters(value: Any) -> bool:
    return value.is_graph_output() or any(use.node.op_type not in BOUNDS for use in value.uses())


RULE = Rule(
    name="large-integers", severity="wrong", operators=frozenset(), find=find,
    hazard="MNN clamps int64 constants to +-2^30 and computes int64 in 32 bits",
    remedy="keep integers below 2^30, or split them in two",
)  # fmt: skip
