"""Pow of a float to an integer, or the other way round.

Measured with MNN 3.6.1: the net gives no output. Two floats or two integers are right.

The exponent is cast to the dtype of the base; an integer base is cast to float32, and the power back:
numerically equal below 2^24.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    found = view.nodes("Pow")
    return [
        Match(at=node, opset=opset)
        for node, opset in found
        if len({_kind(view.dtype(value)) for value in node.inputs} - {""}) > 1
    ]


def _kind(dtype: str) -> str:
    return (
        "float"
        if dtype in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
        else "integer"
        if "INT" in dtype
        else ""
    )


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, (base, exponent) = Builder(editor, node, match.opset), node.inputs
    dtype = editor.view.dtype(base)
    if _kind(dtype) == "float":
        build.replace(build.op("Pow", base, build.cast(exponent, dtype)))
    else:
        build.replace(
            build.cast(build.op("Pow", build.cast(base, "FLOAT"), build.cast(exponent, "FLOAT")), dtype)
        )
    return True


RULE = Rule(
    name="pow-types",
    severity="wrong",
    operators=frozenset({"Pow"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN gives nothing for a Pow whose operands are a float and an integer",
    remedy="cast the exponent to the base's dtype",
)
