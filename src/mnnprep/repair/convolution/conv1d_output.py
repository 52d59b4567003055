"""Conv and ConvTranspose over one dimension whose result is an output of the graph.

The output is the result as it is or through an activation.

Measured with MNN 3.6.1: the values are right and the output has a fourth dimension of size 1, through Relu,
Clip, LeakyRelu and a PRelu of one slope too. Further inside a net it does not show, nor behind a batch norm,
a sigmoid or a tanh.

A Reshape to the same sizes stands behind it: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("Conv", "ConvTranspose")
THROUGH = ("Relu", "Clip", "LeakyRelu", "PRelu")


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes(*OPS, *THROUGH):
        root: ir.Node | None = node
        while root is not None and root.op_type in THROUGH:
            root = producer(root.inputs[0], *OPS, *THROUGH)
        if (
            root is not None
            and node.outputs[0].is_graph_output()
            and (view.rank(root.inputs[1]) or view.rank(root.inputs[0])) == 3
        ):
            yield Match(at=node, opset=opset)


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    build.replace(build.reshape(build.op(node.op_type, *node.inputs, **attributes), 0, 0, -1))
    return True


RULE = Rule(
    name="conv1d-output",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN adds a dimension to the result of a one-dimensional Conv that is an output",
    remedy="pass it through a Reshape to its own shape",
)
