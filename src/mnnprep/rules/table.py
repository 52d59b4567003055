"""The rules, in the order in which they are applied.

Nothing heavy is imported: onnx-ir is, by the functions that rewrite, when they are called.
"""

from __future__ import annotations

from mnnprep.rules import broadcast_matmul, constant_of_shape, gelu_erf, max_pool_3d, softmax_isnan_guard
from mnnprep.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    constant_of_shape.RULE,
    gelu_erf.RULE,
    softmax_isnan_guard.RULE,
    broadcast_matmul.RULE,
    max_pool_3d.RULE,
)


def all_rules() -> list[str]:
    """The names of all rules, in table order."""
    return [rule.name for rule in RULES]


def always_rules() -> list[str]:
    """The names of the rules that fire wherever their pattern is, in table order."""
    return [rule.name for rule in RULES if rule.always]


def applicable(names: list[str], operators: frozenset[str]) -> list[str]:
    """Those of the rules *names* whose pattern can be in a graph of the types *operators*."""
    return [rule.name for rule in RULES if rule.name in names and rule.operators & operators]
