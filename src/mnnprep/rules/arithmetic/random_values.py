"""Random numbers in the graph.

They are other ones at each run, in any runtime, so nothing can be proven of what they reach.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS)]


RULE = Rule(
    name="random-values",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    hazard="a random operator gives other numbers at each run, in MNN and elsewhere",
    remedy="make the noise an input of the model",
)
