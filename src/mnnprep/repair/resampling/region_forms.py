"""RoiAlign with mode=max, SpaceToDepth with mode=CRD.

Measured with MNN 3.6.1: the average is given in place of the maximum, and the order of SpaceToDepth is always
DCR.

SpaceToDepth is written as Reshape and Transpose: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

OPS = ("RoiAlign", "SpaceToDepth")


def _find(view: ModelView) -> Iterator[Match[tuple[int, ...]]]:
    for node, opset in view.nodes(*OPS):
        if node.attributes.get_string("mode", "") in ("max", "CRD"):
            dims = static(view.dims(node.inputs[0]))
            able = node.op_type == "SpaceToDepth" and dims is not None
            yield Match(
                at=node,
                detail=node.attributes.get_string("mode", ""),
                opset=opset,
                found=dims,
                repairable=able,
            )


def _apply(editor: Editor, match: Match[tuple[int, ...]]) -> bool:
    node, opset, dims = match.node, match.opset, match.plan
    build, size = Builder(editor, node, opset), node.attributes.get_int("blocksize", 1)
    batch, channels, height, width = dims
    cut = build.reshape(node.inputs[0], batch, channels, height // size, size, width // size, size)
    build.replace(
        build.reshape(
            build.transpose(cut, 0, 1, 3, 5, 2, 4),
            batch,
            channels * size * size,
            height // size,
            width // size,
        )
    )
    return True


RULE = Rule(
    name="region-forms",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN reads neither mode=max of RoiAlign nor mode=CRD of SpaceToDepth",
    remedy="use the average; write SpaceToDepth as Reshape and Transpose",
)
