"""Average pooling over a whole map that is large.

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: a
GlobalAveragePool, or an AveragePool whose window is the map, adds up in half precision: 50 dB over 32 by
32, 29 over 56 by 56, 15 over 80 by 80, 3 over 128 by 128, whatever the values; ReduceMean is right (73 dB).
onnxruntime's last bits differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

LARGE = 2000  # pixels
WRONG = 3000  # from here on it has less than 30 dB; below, it is repaired where a target asks for it


def _find(view: ModelView) -> Iterator[Match[tuple[int, ...]]]:
    for node, opset in view.nodes("GlobalAveragePool", "AveragePool"):
        dims = view.dims(node.inputs[0])
        if dims is None or len(dims) < 3:
            continue
        sizes = static(dims[2:])
        whole = node.op_type == "GlobalAveragePool" or (
            sizes is not None
            and tuple(node.attributes.get_ints("kernel_shape", ())) == sizes
            and not any(node.attributes.get_ints("pads", ()))
        )
        # A target asked for it where values were measured: there an open size may be a large one.
        least = LARGE if view.magnitudes else WRONG
        if whole and (math.prod(sizes) >= least if sizes is not None else view.magnitudes):
            yield Match(at=node, opset=opset, found=tuple(range(2, len(dims))))


def _apply(editor: Editor, match: Match[tuple[int, ...]]) -> bool:
    build = Builder(editor, match.node, match.opset)
    build.replace(build.reduce("ReduceMean", match.node.inputs[0], match.plan, keep=True))
    return True


RULE = Rule(
    name="large-pooling",
    severity="low",
    target="low",
    operators=frozenset({"GlobalAveragePool", "AveragePool"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN adds up a global average in half precision, which stops growing on a large map",
    remedy="use ReduceMean over the map, or pool in two steps",
)
