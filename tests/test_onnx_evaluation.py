"""Nothing that is computed of an ONNX model beforehand is larger than was allowed before it was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from mnnprep.errors import RefusedError
from mnnprep.formats.onnx import outline
from mnnprep.formats.onnx.propagation import stays_small
from mnnprep.repair.constants import constant_folding
from mnnprep.repair.steps import CheckJob, check
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.result_size import result_elements

HUGE = 1 << 40


class _Evaluated(BaseException):
    """Something was computed that must not be."""


@pytest.fixture
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the evaluator take nothing that comes out large."""
    evaluate = constant_folding._evaluate

    def watched(node: Any, opset: int, inputs: list[Any]) -> list[Any]:
        bound = result_elements(node, inputs)
        if bound is None or bound > constant_folding.LARGEST:
            raise _Evaluated(node.op_type)
        return evaluate(node, opset, inputs)

    monkeypatch.setattr(constant_folding, "_evaluate", watched)


def _constant(name: str, values: Any, dtype: int = TensorProto.INT64) -> onnx.NodeProto:
    array = np.asarray(values)
    return helper.make_node(
        "Constant", [], [name], value=helper.make_tensor(name, dtype, array.shape, array.reshape(-1).tolist())
    )


def _model(nodes: list[onnx.NodeProto], output: str = "y") -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 4])
    y = helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )


def _bomb(operator: str) -> list[onnx.NodeProto]:
    """Nodes of a few bytes whose last one, *operator*, gives some 2**40 elements."""
    match operator:
        case "Range":
            return [
                _constant("a", 0),
                _constant("b", HUGE),
                _constant("c", 1),
                helper.make_node("Range", ["a", "b", "c"], ["y"]),
            ]
        case "ConstantOfShape":
            return [_constant("a", [1 << 20, 1 << 20]), helper.make_node("ConstantOfShape", ["a"], ["y"])]
        case "Expand":
            return [
                _constant("a", [1]),
                _constant("b", [HUGE]),
                helper.make_node("Expand", ["a", "b"], ["y"]),
            ]
        case "Tile":
            return [_constant("a", [1]), _constant("b", [HUGE]), helper.make_node("Tile", ["a", "b"], ["y"])]
        case "Pad":
            return [
                _constant("a", [1]),
                _constant("b", [0, HUGE]),
                helper.make_node("Pad", ["a", "b"], ["y"]),
            ]
        case "OneHot":
            return [
                _constant("a", [1]),
                _constant("b", HUGE),
                _constant("c", [0, 1]),
                helper.make_node("OneHot", ["a", "b", "c"], ["y"]),
            ]
        case "Resize":
            sizes = helper.make_node("Resize", ["a", "", "", "b"], ["y"])
            return [_constant("a", [[[1.0]]], TensorProto.FLOAT), _constant("b", [1, 1, HUGE]), sizes]
        case "Einsum":
            ones = [_constant(name, np.ones(1 << 10)) for name in "abcd"]
            return [*ones, helper.make_node("Einsum", list("abcd"), ["y"], equation="i,j,k,l->ijkl")]
        case "Add":
            rows = [
                _constant("a", np.ones((1 << 12, 1), np.int64)),
                _constant("b", np.ones((1, 1 << 12), np.int64)),
            ]
            return [*rows, helper.make_node("Add", ["a", "b"], ["y"])]
        case "Gather":
            return [
                _constant("a", np.ones((2, 1 << 12), np.int64)),
                _constant("b", np.zeros(1 << 12, np.int64)),
                helper.make_node("Gather", ["a", "b"], ["y"]),
            ]
        case "EyeLike":
            return [
                _constant("a", [1 << 20, 1 << 20]),
                helper.make_node("ConstantOfShape", ["a"], ["z"]),
                helper.make_node("EyeLike", ["z"], ["y"]),
            ]
    raise AssertionError(operator)


BOMBS = (
    "Range",
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Pad",
    "OneHot",
    "Resize",
    "Einsum",
    "Add",
    "Gather",
    "EyeLike",
)


@pytest.mark.parametrize("operator", BOMBS)
def test_a_constant_node_that_gives_far_too_much_is_not_computed(no_evaluation: None, operator: str) -> None:
    reading = ModelView(ir.from_proto(_model(_bomb(operator))))
    assert [
        match.node.op_type
        for match in constant_folding.RULE.find(reading)
        if any(v.name == "y" for v in match.plan)
    ] == []


@pytest.mark.parametrize("operator", ["Range", "ConstantOfShape"])
def test_a_body_is_held_to_the_same(no_evaluation: None, operator: str) -> None:
    branch = helper.make_graph(
        _bomb(operator), "b", [], [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)]
    )
    nodes = [
        _constant("c", True, TensorProto.BOOL),
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
    ]
    assert not list(constant_folding.RULE.find(ModelView(ir.from_proto(_model(nodes, "z")))))


def test_a_chain_that_doubles_ends_at_the_limit(no_evaluation: None) -> None:
    nodes = [_constant("s0", [1, 2])] + [
        helper.make_node("Concat", [f"s{i}"] * 2, [f"s{i + 1}"], axis=0) for i in range(40)
    ]
    nodes.append(helper.make_node("Identity", ["s40"], ["y"]))
    folded = [
        array.size
        for match in constant_folding.RULE.find(ModelView(ir.from_proto(_model(nodes))))
        for array in match.plan.values()
    ]
    assert max(folded) == constant_folding.LARGEST


def test_many_large_results_end_at_the_limit_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant_folding, "MOST", 1000)
    nodes = [_constant("n", [300])]
    nodes += [helper.make_node("ConstantOfShape", ["n"], [f"c{i}"]) for i in range(10)]
    nodes.append(helper.make_node("Concat", ["x0", *(f"c{i}" for i in range(10))], ["y"], axis=0))
    nodes.insert(0, helper.make_node("Flatten", ["x"], ["x0"]))
    assert len(list(constant_folding.RULE.find(ModelView(ir.from_proto(_model(nodes)))))) == 3


def test_what_is_small_is_still_computed() -> None:
    nodes = [
        _constant("a", 0),
        _constant("b", 5),
        _constant("c", 2),
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
    ]
    nodes += [
        _constant("p", [1, 1]),
        helper.make_node("Pad", ["r", "p"], ["q"]),
        _constant("t", [2]),
        helper.make_node("Tile", ["q", "t"], ["y"]),
    ]
    (match,) = constant_folding.RULE.find(ModelView(ir.from_proto(_model(nodes))))
    assert [a.tolist() for a in match.plan.values()] == [[0, 0, 2, 4, 0] * 2]


def test_the_bound_is_no_smaller_than_what_comes_out() -> None:
    cases: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "Range": ([0, 10, 3], {}),
        "Expand": ([np.ones((3, 1), np.int64), [2, 3, 4]], {}),
        "Tile": ([np.ones((2, 3), np.int64), [2, 2]], {}),
        "Pad": ([np.ones((2, 3), np.int64), [1, 0, 0, 2]], {}),
        "OneHot": ([[1, 2], 5, [0, 1]], {}),
        "ConstantOfShape": ([[2, 3]], {}),
        "Gather": ([np.ones((2, 3), np.int64), [[0, 1], [1, 0]]], {"axis": 1}),
        "GatherND": ([np.ones((2, 3), np.int64), [[0], [1]]], {}),
        "NonZero": ([np.ones((2, 3), np.int64)], {}),
        "TopK": ([np.ones((2, 3)), [2]], {}),
        "Concat": ([[1], [2, 3]], {"axis": 0}),
        "Where": ([[True], [[1], [2]], [3, 4, 5]], {}),
        "ReduceSum": ([np.ones((2, 3), np.int64)], {}),
        "Split": ([np.ones(4)], {}),
    }
    for operator, (given, attributes) in cases.items():
        inputs = [np.asarray(value) for value in given]
        outputs = ["y", "z"] if operator in ("TopK", "Split") else ["y"]
        node = ir.from_proto(
            _model([helper.make_node(operator, [f"i{i}" for i in range(len(inputs))], outputs, **attributes)])
        ).graph.node(0)
        made = sum(np.asarray(array).size for array in constant_folding._evaluate(node, 13, inputs))
        bound = result_elements(node, inputs)
        assert made <= (bound or 0), operator


def test_lists_of_sizes_that_double_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s0"])]
    nodes += [helper.make_node("Concat", [f"s{i}"] * 2, [f"s{i + 1}"], axis=0) for i in range(40)]
    nodes.append(helper.make_node("Identity", ["s40"], ["y"]))
    asked: list[bool] = []
    monkeypatch.setattr(
        onnx.shape_inference,
        "infer_shapes",
        lambda model, *a, data_prop=False, **k: (asked.append(data_prop), model)[1],
    )
    assert ModelView(ir.from_proto(_model(nodes))).shapes
    outline.inferred(_model(nodes))
    outline.inferred(_model([*nodes[:5], helper.make_node("Identity", ["s4"], ["y"])]))
    assert asked == [False, False, True]


def test_functions_that_join_lists_count_for_what_they_join() -> None:
    calls = [("Shape", ["x"], ["s0"]), *(("f", [f"s{i}"], [f"s{i + 1}"]) for i in range(40))]
    assert not stays_small(calls, {}, {"f": 1})
    assert stays_small(calls, {}, {"f": 0})
    assert stays_small(
        [("Relu", ["x"], ["a"]), *(("Concat", ["a", "a"], ["a"]) for _ in range(60))], {}, {}
    )  # no lists of sizes


def test_check_refuses_a_file_of_bombs_before_anything_unfolds(tmp_path: Path) -> None:
    nodes = []
    for number, operator in enumerate(BOMBS):
        for node in _bomb(operator):
            named = onnx.NodeProto()
            named.CopyFrom(node)
            named.input[:] = [f"{n}{number}" if n else "" for n in node.input]
            named.output[:] = [f"{n}{number}" for n in node.output]
            nodes.append(named)
    model = _model(nodes, f"y{len(BOMBS) - 1}")
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(RefusedError, match="computes a constant"):
        check(CheckJob(model=str(tmp_path / "m.onnx")))
