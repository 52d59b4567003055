"""Pooling without ``strides``, or over three dimensions without ``pads``.

Measured with MNN 3.6.1: the default of 1 is not applied: SIGFPE in one and two dimensions, SIGSEGV in three,
no output with auto_pad. Without pads, three dimensions are a SIGSEGV too.  They are written out: the same
bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("MaxPool", "AveragePool", "LpPool")


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, repairable="kernel_shape" in node.attributes)
        for node, _ in view.nodes(*OPS)
        if _missing(node)
    ]


def _missing(node: ir.Node) -> list[str]:
    attributes = node.attributes
    missing = [] if "strides" in attributes else ["strides"]
    unpadded = "pads" not in attributes and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "")
    return [*missing, "pads"] if unpadded and len(attributes.get_ints("kernel_shape", ())) == 3 else missing


def _apply(editor: Editor, match: Match[None]) -> bool:
    attributes = match.node.attributes
    rank = len(attributes.get_ints("kernel_shape", ()))
    for name in _missing(match.node):
        attributes.add(
            require("onnx_ir").AttrInt64s(name, [1] * rank if name == "strides" else [0] * 2 * rank)
        )
    return True


RULE = Rule(
    name="pool-strides",
    severity="crash",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not apply the default strides (in three dimensions, pads) of pooling, and crashes",
    remedy="write the strides and pads out",
)
