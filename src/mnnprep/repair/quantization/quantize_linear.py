"""QuantizeLinear.

Measured with MNN 3.6.1: with a computed scale, or an output that is not int8 or uint8, a SIGSEGV; with
constants other numbers come out where its result is read.  Written out, the numbers are the same: the
rounding stays, only the operator goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView, known
from mnnprep.repair.support.scales import RANGES, Blocks, quantized, real, spread, spreadable, zero_point

if TYPE_CHECKING:
    import onnx_ir as ir


def _find(view: ModelView) -> Iterator[Match[tuple[str, Blocks]]]:
    for node, opset in view.nodes("QuantizeLinear"):
        dtype = _dtype(node, view)
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        able = (
            dtype in RANGES
            and opset >= SINCE["Round"]
            and spreadable(view, node.inputs[0], node.inputs[1], axis, block)
        )
        yield Match(
            at=node,
            detail=f"to {dtype.lower()}",
            opset=opset,
            found=(dtype, Blocks(axis, block)),
            repairable=able,
        )


def _apply(editor: Editor, match: Match[tuple[str, Blocks]]) -> bool:
    node = match.node
    dtype, (axis, block) = match.plan
    build = Builder(editor, node, match.opset)
    dims = editor.view.dims(node.inputs[0]) or ()
    zero = zero_point(build, axis, block, dims)
    scale = spread(build, real(build, fed(node, 1)), axis, block, dims)
    build.replace_only(quantized(build, build.op("Div", real(build, fed(node, 0)), scale), zero, dtype))
    return True


def _dtype(node: ir.Node, view: ModelView) -> str:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return view.dtype(node.inputs[2])
    given = node.attributes.get_int("output_dtype", 0)
    return known(given) if given else "UINT8"


RULE = Rule(
    name="quantize-linear",
    severity="crash",
    operators=frozenset({"QuantizeLinear"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN crashes on a QuantizeLinear with a computed scale, and gives other numbers with a constant one"
    ),
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)
