"""Conv and ConvTranspose over one dimension whose result is an output of the graph, as it is or through an
activation.

Measured with MNN 3.6.1: the values are right and the output has a fourth dimension of size 1, through Relu,
Clip, LeakyRelu and a PRelu of one slope too. Further inside a net it does not show, nor behind a batch norm,
a sigmoid or a tanh.

A Reshape to the same sizes stands behind it: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, producer
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("Conv", "ConvTranspose")
THROUGH = ("Relu", "Clip", "LeakyRelu", "PRelu")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS, *THROUGH):
        root = node
        while root is not None and root.op_type in THROUGH:
            root = producer(root.inputs[0], *OPS, *THROUGH)
        if (
            root is not None
            and node.outputs[0].is_graph_output()
            and (reading.rank(root.inputs[1]) or reading.rank(root.inputs[0])) == 3
        ):
            yield Place(node=node, match=opset)


def apply(editor: Editor, place: Place) -> bool:
    node: Any = place.node
    build = Builder(editor, node, place.match)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    build.replace(build.reshape(build.op(node.op_type, *node.inputs, **attributes), 0, 0, -1))
    return True


RULE = Rule(
    name="conv1d-output",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN gives the result of a Conv over one dimension a dimension too many where it is an output",
    remedy="put it through a Reshape to its own shape",
)
