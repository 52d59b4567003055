"""Operators that the converter does not read, and that ONNX itself defines by others.

ONNX gives about eighty of its operators a body of simpler ones (Attention, RMSNormalization, RotaryEmbedding,
GroupNormalization, Mish, Swish, AffineGrid, CenterCropPad ...).  The body of the model's own opset takes the
operator's place, and so do the bodies of what is in it, as far as the converter at hand does not read that
either.

onnxruntime may compute the operator itself by another order of the same sums, so that last bits differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.splicing import schema_body, splice

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "function-bodies"
PREVIEWS = ("ai.onnx.preview", "ai.onnx.preview.training")  # domains of ONNX's own


def _find(view: ModelView) -> list[Match[int]]:
    if view.supported is None:
        return []
    return [
        Match(at=node, found=version)
        for node, opset in view.everything
        if node.op_type not in view.supported
        and (version := _version(node, opset, view))
        and _has_body(node, version)
    ]


def _apply(editor: Editor, match: Match[int]) -> bool:
    return write_body(editor, match.node, match.plan)


def write_body(editor: Editor, node: ir.Node, opset: int) -> bool:
    """Put ONNX's body of *node* in its place.

    Returns False, and changes nothing, if there is none for the opset and what is known of the inputs.
    """
    body = schema_body(node, opset, editor.view, (editor.view.supported or frozenset()) - {node.op_type})
    if body is None:
        return False
    splice(editor, node, body, [value for value in node.inputs if value is not None])
    return True


def _version(node: ir.Node, opset: int, view: ModelView) -> int:
    """The version of the node's own domain, if ONNX defines it; else 0."""
    if node.domain in STANDARD_DOMAINS:
        return opset
    return int(view.model.opset_imports.get(node.domain, 0)) if node.domain in PREVIEWS else 0


def _has_body(node: ir.Node, version: int) -> bool:
    onnx = require("onnx")
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


RULE = Rule(
    name=NAME,
    severity="refused",
    operators=frozenset(),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's converter does not read this operator, which ONNX defines by operators that it does read",
    remedy="write the operator out by its ONNX definition",
)
