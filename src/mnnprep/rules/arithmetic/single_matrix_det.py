"""Det of a single matrix.

Measured with MNN 3.6.1: wrong for two dimensions, right for a batch of matrices.

A batch of one is made of it: the same bits.
"""

from __future__ import annotations

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node, match=opset) for node, opset in reading.nodes("Det") if reading.rank(node.inputs[0]) == 2]


def apply(editor: Editor, place: Place) -> bool:
    build = Builder(editor, place.node, place.match)
    build.replace(build.squeeze(build.op("Det", build.unsqueeze(place.node.inputs[0], 0)), 0))
    return True


RULE = Rule(
    name="det-of-a-matrix", severity="wrong", operators=frozenset({"Det"}), find=find, rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN computes the determinant of a single matrix wrongly",
    remedy="add a batch dimension before, and take it away after",
)  # fmt: skip
