"""The operators of a GraphDef file, read past its tensors.

Format facts: tensorflow/core/framework/graph.proto (node = 1, library = 2), node_def.proto (op = 2),
function.proto (library: function = 1; FunctionDef: node_def = 3).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import LENGTH, WireError, fields, text

NODE, LIBRARY, FUNCTION, FUNCTION_NODE, OP = 1, 2, 1, 3, 2


def operators_in(path: Path) -> dict[str, int]:
    """How often each operator stands in the graph and its functions, the most frequent first.

    Raises:
        RefusedError: the bytes are not a GraphDef.
    """
    counts: Counter[str] = Counter()
    with mapped(path) as data:
        try:
            for number, kind, first, last in fields(data, 0, len(data)):
                if (number, kind) == (NODE, LENGTH):
                    counts[_operator(data, first, last)] += 1
                elif (number, kind) == (LIBRARY, LENGTH):
                    _library(data, first, last, counts)
        except WireError as error:
            raise RefusedError(
                "the graph is truncated or malformed",
                seen=f"{path.name}, byte {error.offset}: {error.reason}",
                next="freeze or download it again",
            ) from error
    return dict(counts.most_common())


def _library(data: Buffer, start: int, end: int, counts: Counter[str]) -> None:
    for number, kind, first, last in fields(data, start, end):
        if (number, kind) == (FUNCTION, LENGTH):
            for part, part_kind, part_first, part_last in fields(data, first, last):
                if (part, part_kind) == (FUNCTION_NODE, LENGTH):
                    counts[_operator(data, part_first, part_last)] += 1


def _operator(data: Buffer, start: int, end: int) -> str:
    return next(
        (
            text(data, first, last)
            for number, kind, first, last in fields(data, start, end)
            if (number, kind) == (OP, LENGTH)
        ),
        "",
    )
