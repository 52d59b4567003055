"""Pooling with dilations.

Measured with MNN 3.6.1: they are not read: another shape, and other windows.

The windows are written out as strided slices, combined axis by axis by Max or Add.  A maximum has the same
bits; an average or a norm
is numerically equal: its sum is taken in another order.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.pool_written_out import Windows, match_of, write_out
from mnnprep.repair.support.reading import ModelView

OPS = ("MaxPool", "AveragePool", "LpPool")


def _find(view: ModelView) -> Iterator[Match[Windows]]:
    for node, opset in view.nodes(*OPS):
        if any(d != 1 for d in node.attributes.get_ints("dilations", ())):
            yield match_of(node, opset, view)


RULE = Rule(
    name="pool-dilations",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=write_out, exact=False),
    hazard="MNN does not read the dilations of pooling",
    remedy="gather the windows by strided slices, or pool without dilations",
)
