"""Random numbers in the graph.

They are other ones at each run, in any runtime, so nothing can be proven of what they reach.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView

OPS = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def _find(view: ModelView) -> list[Match[None]]:
    return [Match(at=node) for node, _ in view.nodes(*OPS)]


RULE = Rule(
    name="random-values",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    hazard="a random operator gives different numbers in each run, in MNN and elsewhere",
    remedy="make the noise an input of the model",
)
