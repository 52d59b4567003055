"""Rules for integers, vectors and comparisons: MNN is wrong without them, right with them, and they stay away
from what MNN gets right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from evaluation.nets.mnn_models import floats, node
from mnnprep.repair.table import all_rules
from mnnprep.workers.host import Host
from support.rewriting import build, close, reference, repaired, through_mnn

RANDOM = np.random.default_rng(0)
INT, LONG, BOOL = TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
SHAPES = (
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((4, 5), (5,)),
    ((5,), (2, 5, 3)),
    ((2, 4, 5), (5,)),
    ((4, 5), (5, 3)),
    ((2, 4, 5), (2, 5, 3)),
    ((1, 2, 4, 5), (3, 1, 5, 6)),
)


def integers(*shape: int, dtype: Any = np.int64) -> Any:
    return RANDOM.integers(-4000, 4000, shape).astype(dtype)


def numbers(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def fired(done: Any) -> list[str]:
    return [f.rule for f in done.fired]


def test_a_product_of_integers_is_exact(host: Host, tmp_path: Path) -> None:
    """Below 2^24: one model of a product of every pair of shapes, in both dtypes."""
    nodes, inputs, outputs, feeds = [], [], [], {}
    for number, (left, right) in enumerate(SHAPES):
        kind, dtype = (INT, np.int32) if number % 2 else (LONG, np.int64)
        nodes.append(node("MatMul", [f"a{number}", f"b{number}"], [f"y{number}"]))
        inputs += [(f"a{number}", kind, left), (f"b{number}", kind, right)]
        outputs.append((f"y{number}", kind, None))
        feeds |= {f"a{number}": integers(*left, dtype=dtype), f"b{number}": integers(*right, dtype=dtype)}
    model = build(nodes, inputs, outputs)
    fixed, done = repaired(model, tmp_path / "r", "integer-matmul")
    assert fired(done) == ["integer-matmul"]
    found = through_mnn(host, fixed, [feeds], tmp_path / "m")
    assert close(found, reference(model, [feeds]), 0)


def test_a_product_of_integers_of_open_sizes_is_taken_in_float32(host: Host, tmp_path: Path) -> None:
    model = build(
        [node("MatMul", ["a", "b"], ["y"])],
        [("a", LONG, ("m", "k")), ("b", LONG, ("k", "n"))],
        [("y", LONG, None)],
    )
    feeds = [{"a": integers(m, 5) // 100, "b": integers(5, n) // 100} for m, n in ((4, 3), (2, 7))]
    fixed, done = repaired(model, tmp_path / "r", "integer-matmul")
    assert fired(done) == ["integer-matmul"]
    assert close(through_mnn(host, fixed, feeds, tmp_path / "m"), reference(model, feeds), 0)


def test_a_product_of_two_vectors_is_right_in_every_run(host: Host, tmp_path: Path) -> None:
    model = build(
        [node("MatMul", ["a", "b"], ["y"])],
        [floats("a", 5), floats("b", 5)],
        [("y", TensorProto.FLOAT, None)],
    )
    fixed, done = repaired(model, tmp_path / "r", "matmul-vector")
    assert fired(done) == ["matmul-vector"]
    feeds = [{"a": numbers(5), "b": numbers(5)}]
    for run in range(3):
        assert close(through_mnn(host, fixed, feeds, tmp_path / f"{run}"), reference(model, feeds), 1e-5)


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8, np.uint8])
def test_the_place_of_an_integer(host: Host, tmp_path: Path, op_type: str, dtype: Any) -> None:
    last = int(op_type == "ArgMin")
    kind = {np.int32: INT, np.int64: LONG, np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8}[dtype]
    rows = np.array([[3, -7, 3, -7], [-2, -9, -2, -9], [4, 8, 8, 4]])
    feeds = [{"x": np.abs(rows).astype(dtype) if dtype is np.uint8 else rows.astype(dtype)}]
    place = node(op_type, ["x"], ["y"], axis=-1, keepdims=last, select_last_index=last)
    model = build([place], [("x", kind, (3, 4))], [("y", LONG, None)])
    fixed, done = repaired(model, tmp_path / "r", "argmax-integers", "select-last-index")
    assert fired(done)[0] == "argmax-integers"
    assert close(through_mnn(host, fixed, feeds, tmp_path / "m"), reference(model, feeds), 0)


@pytest.mark.parametrize("op_type", ["Greater", "GreaterOrEqual", "LessOrEqual", "Less"])
def test_a_column_compared_with_a_row(host: Host, tmp_path: Path, op_type: str) -> None:
    model = build(
        [node(op_type, ["a", "b"], ["y"])], [floats("a", "n", 1), floats("b", "m")], [("y", BOOL, None)]
    )
    feeds = [{"a": numbers(n, 1), "b": numbers(m)} for n, m in ((7, 14), (3, 5))]
    expected = reference(model, feeds)
    assert not close(through_mnn(host, model, feeds, tmp_path / "before"), expected, 0)
    fixed, done = repaired(model, tmp_path / "r", *all_rules())
    assert "compare-broadcast" in fired(done)
    assert close(through_mnn(host, fixed, feeds, tmp_path / "after"), expected, 0)
    assert "compare-broadcast" not in fired(repaired(fixed, tmp_path / "again", *all_rules())[1])


@pytest.mark.parametrize(
    ("op_type", "left", "right", "constant"),
    [
        ("Greater", (7, 1), (7, 14), None),
        ("Greater", (14,), (7, 14), None),
        ("Greater", (7, 1), (14,), np.arange(14, dtype=np.float32)),
        ("Add", (7, 1), (14,), None),
    ],
)
def test_other_comparisons_are_left_alone(
    tmp_path: Path, op_type: str, left: Any, right: Any, constant: Any
) -> None:
    inputs = [floats("a", *left), *([] if constant is not None else [floats("b", *right)])]
    kind = TensorProto.FLOAT if op_type == "Add" else BOOL
    weights = {} if constant is None else {"b": constant}
    model = build([node(op_type, ["a", "b"], ["y"])], inputs, [("y", kind, None)], weights)
    assert not fired(repaired(model, tmp_path, "compare-broadcast")[1])


@pytest.mark.parametrize("then", ["", "Not", "Where"])
def test_the_truth_of_an_integer(host: Host, tmp_path: Path, then: str) -> None:
    cast = node("Cast", ["x"], ["c" if then else "y"], to=BOOL)
    more = {"Not": [node("Not", ["c"], ["y"])], "Where": [node("Where", ["c", "x", "z"], ["y"])]}.get(
        then, []
    )
    model = build(
        [cast, *more],
        [("x", LONG, (5,))],
        [("y", LONG if then == "Where" else BOOL, None)],
        {"z": np.arange(5)},
    )
    feeds = [{"x": np.int64([3, 0, -2, 1, 0])}]
    fixed, done = repaired(model, tmp_path / "r", "cast-forms")
    assert fired(done) == ([] if then == "Where" else ["cast-forms"])
    assert close(through_mnn(host, fixed, feeds, tmp_path / "m"), reference(model, feeds), 0)


def test_outputs_before_opset_14_say_that_a_batch_norm_is_training(host: Host, tmp_path: Path) -> None:
    outputs = ["y", "m", "v", "sm", "sv"]
    weights = {"s": numbers(2), "b": numbers(2), "mean": numbers(2), "var": np.float32([1, 2])}
    model = build(
        [node("BatchNormalization", ["x", *weights], outputs)],
        [floats("x", 3, 2, 4)],
        [("y", TensorProto.FLOAT, None)],
        weights,
    )
    feeds = [{"x": 5 + 3 * numbers(3, 2, 4)}]
    fixed, done = repaired(model, tmp_path / "r", "training-mode")
    assert fired(done) == ["training-mode"]
    assert close(reference(fixed, feeds), reference(model, feeds), 1e-4)
    assert close(through_mnn(host, fixed, feeds, tmp_path / "m"), reference(model, feeds), 1e-4)
