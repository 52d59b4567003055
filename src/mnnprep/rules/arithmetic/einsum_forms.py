"""Einsum with a repeated subscript, or with a number as the result of two operands.

Measured with MNN 3.6.1: ``ii->i`` keeps both axes; ``i,i->`` is refused. Transposes, sums and batched products are right.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("Einsum"):
        equation = node.attributes.get_string("equation", "").replace(" ", "").replace("...", "")
        left, _, right = equation.partition("->")
        terms = left.split(",")
        if "->" not in equation:
            right = "".join(sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
        if any(len(set(term)) < len(term) for term in terms):
            yield Place(node=node, detail="a repeated subscript")
        elif len(terms) > 1 and not right:
            yield Place(node=node, detail="an inner product")


RULE = Rule(
    name="einsum-forms", severity="wrong", operators=frozenset({"Einsum"}), find=find,
    hazard="MNN's Einsum does not take a diagonal, and refuses an inner product",
    remedy="write it with MatMul, Mul and ReduceSum",
)  # fmt: skip
