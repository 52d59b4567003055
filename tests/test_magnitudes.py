"""The instrumented run: magnitudes, the sums behind results, and what another way of computing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnprep.formats.onnx.half import write_half
from mnnprep.formats.onnx.magnitudes import MagnitudesJob, magnitudes
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.magnitudes import Magnitude, Measured
from mnnprep.model.messages import CaseFile

RNG = np.random.default_rng(0)


def saved(path: Path, nodes: list[Any], weights: dict[str, Any], shape: list[Any], opset: int = 13) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def measured(model: Path, *inputs: Any, **options: Any) -> Measured:
    cases = []
    for index, x in enumerate(inputs):
        path = model.parent / f"{index}.npz"
        save_arrays(path, {"inputs/x": x})
        cases.append(CaseFile(index=index, origin="seed 0", dims={}, file=file_ref(path)))
    return magnitudes(MagnitudesJob(model=str(model), cases=cases, directory=str(model.parent), **options))


def chain(path: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Exp", ["b"], ["c"]),
        helper.make_node("Log", ["b"], ["y"]),
    ]
    return saved(path, nodes, {"w": np.array([[2, -3], [0, 1e-6]], "f4")}, [None, 2])


def test_over_all_cases_inputs_and_weights_included(tmp_path: Path) -> None:
    found = measured(chain(tmp_path / "m.onnx"), np.array([[1, 0]], "f4"), np.array([[-4, 2]], "f4"))
    assert found.values["x"] == Magnitude(4, 1)
    assert found.values["w"] == Magnitude(3, np.float32(1e-6))
    assert found.values["a"].largest == pytest.approx(12, abs=1e-5)
    assert found.values["a"].least == 2
    assert found.values["c"].largest == pytest.approx(np.exp(12), rel=1e-5)
    assert found.values["y"].finite is False
    assert found.values["y"].largest < 3
    assert found.values["b"].finite is True


@pytest.mark.parametrize("part", [1, 1 << 28])
def test_parts_change_nothing(tmp_path: Path, part: int) -> None:
    model, x = chain(tmp_path / "m.onnx"), RNG.standard_normal((5, 2)).astype("f4")
    assert measured(model, x, part=part) == measured(model, x)


def test_the_sums_behind_results(tmp_path: Path) -> None:
    x = RNG.standard_normal((1, 4, 8, 8)).astype("f4")
    w, k = RNG.standard_normal((3, 4, 3, 3)).astype("f4"), RNG.standard_normal((8, 5)).astype("f4")
    nodes = [
        helper.make_node("Conv", ["x", "w", "bias"], ["conv"]),
        helper.make_node("MatMul", ["x", "k"], ["matmul"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[3]),
        helper.make_node("ReduceL2", ["x"], ["l2"], axes=[3]),
        helper.make_node("LpNormalization", ["x"], ["lp"], axis=3),
        helper.make_node("GlobalAveragePool", ["x"], ["gap"]),
        helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 4]),
    ]
    weights = {"w": w, "bias": np.full(3, 1e9, "f4"), "k": k, "axes": np.array([2, 3])}
    sums = measured(saved(tmp_path / "m.onnx", nodes, weights, [1, 4, 8, 8]), x).sums
    a = np.abs(x)
    windows = np.lib.stride_tricks.sliding_window_view(a[0], (3, 3), (1, 2))
    expected = {
        "conv": (36, np.einsum("cyxij,ocij->oyx", windows, np.abs(w)).max()),
        "matmul": (8, (a @ np.abs(k)).max()),
        "sum": (64, a.sum((2, 3)).max()),
        "mean": (8, a.sum(3).max()),
        "l2": (8, np.square(x).sum(3).max()),
        "lp": (8, np.square(x).sum(3).max()),
        "gap": (64, a.sum((2, 3)).max()),
        "y": (8, np.lib.stride_tricks.sliding_window_view(a[0], (2, 4), (1, 2)).sum((-1, -2)).max()),
    }
    assert {n: s.terms for n, s in sums.items()} == {n: t for n, (t, _) in expected.items()}
    for name, (_, total) in expected.items():
        assert sums[name].magnitudes == pytest.approx(total, rel=1e-4), name


def test_what_half_precision_moves(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Mul", ["x", "tiny"], ["small"]),
        helper.make_node("Add", ["square", "small"], ["y"]),
    ]
    model = saved(tmp_path / "m.onnx", nodes, {"tiny": np.array(1e-9, "f4")}, [3])
    (tmp_path / "other").mkdir()
    other = str(write_half(model, tmp_path / "other", "float16"))
    found = measured(model, np.array([1, 300.1, 0.1], "f4"), other=other, rounding="float16").moved
    assert found["square"].infinite == 1
    assert (found["small"].vanished, found["small"].infinite) == (3, 0)
    assert found["tiny"].vanished == 1
    assert found["x"].sqnr_db is not None
    assert 60 < found["x"].sqnr_db < 90
    assert found["y"].sqnr_db == pytest.approx(0, abs=1e-3)


def test_bodies_are_left_out_and_named(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["t"])], "b", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)]
    found = measured(saved(tmp_path / "m.onnx", nodes, {"yes": np.array(True)}, [2]), np.ones(2, "f4"))
    assert found.left_out == ["If choice"]
    assert found.values["y"].largest == pytest.approx(np.e, rel=1e-5)
    assert "t" not in found.values
