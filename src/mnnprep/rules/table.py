"""The rules, in the order in which they are applied.

Nothing heavy is imported: onnx-ir is, by the functions that find and rewrite, when they are called.
"""

from __future__ import annotations

from mnnprep.rules.arithmetic import broadcast_matmul, gelu_erf
from mnnprep.rules.attention import softmax_isnan_guard
from mnnprep.rules.filling import constant_of_shape
from mnnprep.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    constant_of_shape.RULE,
    gelu_erf.RULE,
    softmax_isnan_guard.RULE,
    broadcast_matmul.RULE,
)


def all_rules() -> list[str]:
    """The names of all rules that rewrite, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None]


def always_rules() -> list[str]:
    """The names of the rules that rewrite wherever their pattern is, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None and rule.rewrite.always]


def applicable(names: list[str], operators: frozenset[str]) -> list[str]:
    """Those of the rules *names* whose pattern can be in a graph of the types *operators*."""
    return [rule.name for rule in RULES if rule.name in names and (not rule.operators or rule.operators & operators)]
