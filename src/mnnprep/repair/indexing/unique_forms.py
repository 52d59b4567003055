"""Unique over an axis, or unsorted.

Measured with MNN 3.6.1: neither attribute is read: the sorted values of the whole tensor come out.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    found = view.nodes("Unique")
    return [
        Match(at=node)
        for node, _ in found
        if not node.attributes.get_int("sorted", 1) or ("axis" in node.attributes)
    ]


RULE = Rule(
    name="unique-forms",
    severity="wrong",
    operators=frozenset({"Unique"}),
    find=_find,
    hazard="MNN's Unique gives the sorted values of the whole tensor, whatever axis and sorted say",
    remedy="leave it to the app",
)
