"""What no case runs is no part of a proof: branches and loops of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from evaluation.nets.mnn_models import case
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.onnx.coverage import coverage, decisive_values
from mnnprep.model.messages import CoverageJob
from support.command import checks_of, prepared


def value(name: str, dtype: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def branching(path: Path, *, on: str = "mode", threshold: int = 3) -> Path:
    """y = relu(x) where ``mode`` equals *threshold* (on="mode"), or where x has more than 4 rows (on="rows");
    else -x.
    """
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"], "keep")], "then", [], [value("t", TensorProto.FLOAT, "n", 3)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"], "turn")], "else", [], [value("e", TensorProto.FLOAT, "n", 3)]
    )
    nodes = {
        "mode": [helper.make_node("Equal", ["mode", "k"], ["c"])],
        "rows": [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["r"]),
            helper.make_node("Greater", ["r", "k"], ["c"]),
        ],
    }[on]
    nodes.append(helper.make_node("If", ["c"], ["y"], "choice", then_branch=then, else_branch=other))
    inputs = [
        value("x", TensorProto.FLOAT, "n", 3),
        *([value("mode", TensorProto.INT64)] if on == "mode" else []),
    ]
    constants = [
        helper.make_tensor("k", TensorProto.INT64, [], [threshold]),
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, "n", 3)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def looping(path: Path) -> Path:
    """y = 2^count x, by a Loop."""
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "v"], ["w"], "double"), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64), value("go", TensorProto.BOOL), value("v", TensorProto.FLOAT, 3)],
        [value("on", TensorProto.BOOL), value("w", TensorProto.FLOAT, 3)],
    )
    nodes = [helper.make_node("Loop", ["count", "", "x"], ["y"], "repeat", body=body)]
    inputs = [value("x", TensorProto.FLOAT, 3), value("count", TensorProto.INT64)]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, 3)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def covered(tmp_path: Path, model: Path, *inputs: dict[str, Any], fixed: list[str] | None = None) -> Any:
    cases = [case(tmp_path, i, arrays) for i, arrays in enumerate(inputs)]
    return coverage(CoverageJob(model=str(model), cases=cases, directory=str(tmp_path), fixed=fixed or []))


def test_a_branch_that_no_case_takes_is_named_with_what_decides_it(tmp_path: Path) -> None:
    model = branching(tmp_path / "m.onnx")
    x = np.ones((2, 3), np.float32)
    check = covered(tmp_path, model, {"x": x, "mode": np.int64(1)})
    assert check.status is Status.FAILED
    assert check.reason.startswith("no case runs the then_branch of If choice, which mode decides")
    assert (
        covered(tmp_path, model, {"x": x, "mode": np.int64(1)}, {"x": x, "mode": np.int64(3)}).status
        is Status.PASSED
    )
    assert covered(tmp_path, model, {"x": x, "mode": np.int64(1)}, fixed=["mode"]).status is Status.PASSED


def test_what_shapes_decide_is_no_obstacle(tmp_path: Path) -> None:
    check = covered(tmp_path, branching(tmp_path / "m.onnx", on="rows"), {"x": np.ones((2, 3), np.float32)})
    assert check.status is Status.PASSED
    assert check.numbers["idle"] == ["the then_branch of If choice"]
    assert (check.numbers["ran"], check.numbers["bodies"]) == (check.numbers["nodes"] - 1, 2)


def test_a_loop_that_never_ran(tmp_path: Path) -> None:
    model, x = looping(tmp_path / "m.onnx"), np.ones(3, np.float32)
    check = covered(tmp_path, model, {"x": x, "count": np.int64(0)})
    assert check.reason.startswith("no case runs the body of Loop repeat, which count decides")
    assert covered(tmp_path, model, {"x": x, "count": np.int64(2)}).status is Status.PASSED


def test_values_that_may_decide_are_the_constants_compared_with(tmp_path: Path) -> None:
    assert decisive_values(onnx.load(branching(tmp_path / "m.onnx"))) == [
        ("mode", 3.0),
        ("mode", 2.0),
        ("mode", 4.0),
    ]
    assert decisive_values(onnx.load(branching(tmp_path / "m.onnx", on="rows"))) == []


@pytest.mark.parametrize(
    ("ranges", "verdict"),
    [((), Verdict.PROVEN), (("mode=0:2",), Verdict.UNPROVEN), (("mode=3:3",), Verdict.PROVEN)],
)
def test_prepare_looks_for_values_that_take_every_branch(
    tmp_path: Path, ranges: tuple[str, ...], verdict: Verdict
) -> None:
    options = [o for r in ranges for o in ("--range", r)]
    manifest = (
        prepared(branching(tmp_path / "m.onnx", threshold=12345), tmp_path / "out", *options)
        if not ranges
        else prepared(branching(tmp_path / "m.onnx"), tmp_path / "out", *options)
    )
    (check,) = checks_of(manifest, "coverage")
    assert manifest.verdict is verdict, (check, manifest.evidence)
