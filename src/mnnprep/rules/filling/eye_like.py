"""EyeLike with a dtype of its own.

Measured with MNN 3.6.1: the dtype of the input is given.

The result is cast: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, known
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("EyeLike"):
        if "dtype" in node.attributes and known(node.attributes.get_int("dtype", 1)) != reading.dtype(
            node.inputs[0]
        ):
            target = known(node.attributes.get_int("dtype", 1))
            yield Place(node=node, match=opset, repairable=target not in ("", "UINT8"))


def apply(editor: Editor, place: Place) -> bool:
    node, opset = place.node, place.match
    build = Builder(editor, node, opset)
    eye = build.op("EyeLike", node.inputs[0], k=node.attributes.get_int("k", 0))
    build.replace(build.cast(eye, known(node.attributes.get_int("dtype", 1))))
    return True


RULE = Rule(
    name="eye-like-dtype",
    severity="wrong",
    operators=frozenset({"EyeLike"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN gives the dtype of the input for an EyeLike that asks for another",
    remedy="cast its result",
)
