"""EyeLike with a dtype of its own.

Measured with MNN 3.6.1: the dtype of the input is given.

The result is cast: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, known


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("EyeLike"):
        if "dtype" in node.attributes and known(node.attributes.get_int("dtype", 1)) != view.dtype(
            node.inputs[0]
        ):
            target = known(node.attributes.get_int("dtype", 1))
            yield Match(at=node, opset=opset, repairable=target not in ("", "UINT8"))


def _apply(editor: Editor, match: Match[None]) -> bool:
    node, opset = match.node, match.opset
    build = Builder(editor, node, opset)
    eye = build.op("EyeLike", node.inputs[0], k=node.attributes.get_int("k", 0))
    build.replace(build.cast(eye, known(node.attributes.get_int("dtype", 1))))
    return True


RULE = Rule(
    name="eye-like-dtype",
    severity="wrong",
    operators=frozenset({"EyeLike"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN gives the dtype of the input for an EyeLike that asks for another",
    remedy="cast its result",
)
