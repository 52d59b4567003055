"""MatMul of integers, and Einsum of them.

Measured with MNN 3.6.1: it multiplies the integers' bits as if they were float32's, and says nothing.

A MatMul is written out as products and their sum. MNN multiplies integers in float32 and adds them as they
are: exact as long as each product stays below 2^24 and the sums below 2^31. Where that would make a tensor of
more than :data:`LARGEST` numbers, or a size is open, and for an Einsum, all of it is in float32, which is
exact below 2^24.
"""

from __future__ import annotations

import math

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, fed, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

INTEGERS = ("INT32", "INT64", "UINT32", "UINT64")
LARGEST = 1 << 20

Ranks = tuple[int, int]


def _find(view: ModelView) -> list[Match[Ranks]]:
    found = []
    for node, opset in view.nodes("MatMul"):
        if view.dtype(node.inputs[0]) in INTEGERS:
            ranks = view.rank(node.inputs[0]), view.rank(node.inputs[1])
            plan = (ranks[0] or 0, ranks[1] or 0)
            found.append(Match(at=node, opset=opset, found=plan, repairable=all(plan)))
    for node, opset in view.nodes("Einsum"):
        if len(node.inputs) > 1 and view.dtype(node.inputs[0]) in INTEGERS:
            found.append(Match(at=node, opset=opset, found=(0, 0)))
    return found


def _apply(editor: Editor, match: Match[Ranks]) -> bool:
    node, (left, right) = match.node, match.plan
    build, view = Builder(editor, node, match.opset), editor.view
    if node.op_type == "Einsum":
        operands = [build.cast(value, "FLOAT") for value in node.inputs]
        product = build.op("Einsum", *operands, **attributes_of(node))
        build.replace_only(build.cast(product, view.dtype(node.inputs[0])))
        return True
    a, b = fed(node, 0), fed(node, 1)
    sizes = static(view.dims(a)), static(view.dims(b))
    if None in sizes or _terms(*sizes) > LARGEST:  # type: ignore[arg-type]
        product = build.op("MatMul", build.cast(a, "FLOAT"), build.cast(b, "FLOAT"))
        build.replace_only(build.cast(product, view.dtype(a)))
        return True
    if right > 1:  # [..., m, k, 1] times [..., 1, k, n]; a vector has k alone
        a = build.unsqueeze(a, left)
    if left > 1 and right > 1:
        b = build.unsqueeze(b, right - 2)
    summed = max(left, right) - 1 if (left > 1) == (right > 1) or left > 1 else right - 2
    build.replace(build.reduce("ReduceSum", build.op("Mul", a, b), [summed], keep=False))
    return True


def _terms(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many products of two numbers there are."""
    batch = max(math.prod(a[:-2]), math.prod(b[:-2]))
    return batch * math.prod(a[-2:]) * (b[-1] if len(b) > 1 else 1)


RULE = Rule(
    name="integer-matmul",
    severity="wrong",
    operators=frozenset({"MatMul", "Einsum"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN multiplies matrices of integers as if their bits were float32's",
    remedy="cast to float32 before the product, and back after",
)
