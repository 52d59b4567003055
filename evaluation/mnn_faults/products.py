"""Products of matrices that MNN gets wrong."""

from __future__ import annotations

from evaluation.mnn_faults.fault import LONG, Fault, floats, ints, one

PRODUCTS = (
    Fault(
        "two matrices of int32 or int64",
        "multiplies the bits as if they were float32",
        "the product of the integers",
        "integer-matmul",
        *one("MatMul", {"a": ints(4, 5), "b": ints(5, 3)}, gives={"y": LONG}),
    ),
    Fault(
        "two vectors",
        "writes beyond its memory: some runs crash",
        "their inner product",
        "matmul-vector",
        *one("MatMul", {"a": floats(5), "b": floats(5, seed=1)}),
        runs=40,
    ),
    Fault(
        "a tensor of three dimensions with a constant vector",
        "gives no output",
        "the product",
        "matmul-vector",
        *one("MatMul", {"x": floats(2, 4, 5)}, weights={"w": floats(5)}),
    ),
    Fault(
        "transA=1 with a constant B",
        "does not transpose A",
        "A transposed",
        "gemm-trans-a",
        *one("Gemm", {"x": floats(4, 4)}, weights={"w": floats(4, 3)}, transA=1),
    ),
    Fault(
        "a repeated subscript, ii->i",
        "keeps both axes",
        "the diagonal",
        "einsum-forms",
        *one("Einsum", {"x": floats(4, 4)}, equation="ii->i"),
    ),
    Fault(
        "two operands of int32 or int64",
        "multiplies the bits as if they were float32",
        "the product of the integers",
        "integer-matmul",
        *one("Einsum", {"a": ints(4, 5), "b": ints(5, 3)}, equation="ij,jk->ik", gives={"y": LONG}),
    ),
)
