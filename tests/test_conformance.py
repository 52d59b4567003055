"""The oracle says wrong where something is wrong, the runner says how each case ended, and the table is what
was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import node
from mnnprep import __version__
from mnnprep.cli.main import cli
from mnnprep.commands.ops import oracle
from mnnprep.commands.ops.proving import Prover
from mnnprep.commands.ops.runner import Runner, resumed
from mnnprep.conformance.messages import ConformanceCase, Outcome
from mnnprep.conformance.page import page, scores
from mnnprep.conformance.table import (
    SHIPPED,
    OperatorTable,
    Row,
    cache_directory,
    load_table,
    rows_of,
    save_table,
)
from mnnprep.errors import UsageError
from mnnprep.model.files import save_arrays
from mnnprep.repair.table import all_rules

DOCS = Path(__file__).resolve().parent.parent / "docs"
VALUES = np.array([[-2.0, -1.0, 3.0], [-0.5, 2.0, -4.0]], np.float32)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.getbasetemp()) as runner:
        yield runner


def make(
    path: Path,
    nodes: list[Any],
    outputs: dict[str, Any],
    tensors: dict[str, Any] | None = None,
    opset: int = 13,
) -> ConformanceCase:
    """A case of these nodes on ``x``, with the outputs that it is said to give."""
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), np.asarray(a).shape
        )
        for name, a in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, VALUES.shape)],
        values,
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (tensors or {}).items()],
    )
    model, data = path / "case.onnx", path / "case.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), model)
    save_arrays(
        data, {"inputs/x": VALUES} | {f"outputs/{name}": np.asarray(a) for name, a in outputs.items()}
    )
    return ConformanceCase(
        name="case",
        variant="fed",
        operator=nodes[0].op_type,
        expanded=False,
        opset=opset,
        dtype="float32",
        model=str(model),
        data=str(data),
        inputs={"x": "float32"},
        outputs={name: str(np.asarray(a).dtype) for name, a in outputs.items()},
    )


RELU = [node("Relu", ["x"], ["y"])]
LESS = [node("Less", ["x", "k"], ["y"])]
MINUS = {"k": np.float32(-1.5)}
UNSET = [node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])]

ENDINGS: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any], str, str]] = {
    "right": (RELU, {"y": np.maximum(VALUES, 0)}, {}, "right", ""),
    "another number": (RELU, {"y": np.maximum(VALUES, 0) + np.float32(0.01)}, {}, "wrong", "run"),
    "another shape": (RELU, {"y": np.maximum(VALUES, 0).reshape(3, 2)}, {}, "shape", "run"),
    "another kind of dtype": (RELU, {"y": np.maximum(VALUES, 0).astype(np.int32)}, {}, "wrong", "run"),
    "a NaN that is not there": (RELU, {"y": np.full(VALUES.shape, np.nan, np.float32)}, {}, "wrong", "run"),
    "MNN's own mistake": (LESS, {"y": VALUES < -1.5}, MINUS, "wrong", "run"),
    "refused": ([node("Hardmax", ["x"], ["y"])], {"y": VALUES}, {}, "refused", "convert"),
    "crash": ([node("Max", ["x"], ["y"])], {"y": VALUES}, {}, "crash", "convert"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_oracle_says_how_a_case_ends(runner: Runner, tmp_path: Path, name: str) -> None:
    nodes, outputs, tensors, status, stage = ENDINGS[name]
    found = runner.convert(make(tmp_path, nodes, outputs, tensors), [])
    assert (found.status, found.stage) == (status, stage), found.detail


def test_memory_that_nobody_set_is_found_out_and_repaired(runner: Runner, tmp_path: Path) -> None:
    case = make(tmp_path, UNSET, {"y": VALUES})
    raw = runner.convert(case, [])
    assert raw.status == "wrong"  # in the first run, or in the one in dirty memory
    fixed = runner.repaired(case, ["constant-of-shape"], raw)
    assert (fixed.status, fixed.route, fixed.rules) == ("right", "repaired", ["constant-of-shape"])


def test_where_nothing_is_repaired_the_raw_outcome_stands(runner: Runner, tmp_path: Path) -> None:
    case = make(tmp_path, RELU, {"y": np.maximum(VALUES, 0)})
    raw = runner.convert(case, [])
    assert runner.repaired(case, all_rules(), raw) == msgspec.structs.replace(raw, route="repaired")


def test_the_oracle_judges_a_proof_and_not_the_other_way_round(runner: Runner, tmp_path: Path) -> None:
    """`prepare` proves the file against its own reference; the oracle holds it against the case's outputs,
    and may differ.
    """
    for offset, status in ((0.0, "right"), (0.5, "wrong")):
        directory = tmp_path / str(offset)
        directory.mkdir()
        case = make(directory, RELU, {"y": np.maximum(VALUES, 0) + np.float32(offset)})
        with Prover(runner) as prover:
            found = prover.prepare(case)
        assert (found.verdict, found.status) == ("proven", status), found.detail


def test_what_is_almost_right_is_wrong() -> None:
    right = np.array([1.0, -2.0, 1000.0], np.float32)
    assert oracle._compare(right, right, None) == ("", "")
    assert oracle._compare(right, right * np.float32(1.0005), None) == ("", "")
    assert oracle._compare(right, right * np.float32(1.002), None)[0] == "wrong"
    assert oracle._compare(np.array([1, 2]), np.array([1, 3]), None)[0] == "wrong"
    assert oracle._compare(np.array([True, False]), np.array([1, 0], np.int32), None) == ("", "")
    assert oracle._compare(np.array([np.inf]), np.array([-np.inf]), None)[0] == "wrong"
    assert oracle._compare(np.array([1.0]), np.array([np.nan]), None)[0] == "wrong"
    cancelled = np.array([1e-6, 1.0], np.float32)
    noise = np.array([1e-3, 0.0])
    assert oracle._compare(cancelled, cancelled + np.float32(5e-3), None)[0] == "wrong"
    assert oracle._compare(cancelled, cancelled + np.float32([5e-3, 0]), noise) == ("", "")
    assert oracle._compare(cancelled, cancelled + np.float32([2e-2, 0]), noise)[0] == "wrong"


# -- the table -------------------------------------------------------------------------------------


def an_outcome(case: str, route: str, status: str, operator: str = "Less") -> Outcome:
    return Outcome(
        case=case,
        variant="fed",
        route=route,
        operator=operator,
        expanded=False,
        opset=13,
        dtype="float32",
        status=status,
    )  # type: ignore[arg-type]


def test_outcomes_are_taken_up_again_but_for_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    assert resumed(path) == {}
    lines = [msgspec.json.encode(an_outcome(name, "raw", "right")) for name in ("a", "b")]
    path.write_bytes(lines[0] + b"\n" + lines[1][:40])
    assert set(resumed(path)) == {("fed", "raw", "a")}


def test_rows_count_outcomes_before_and_after() -> None:
    outcomes = [
        an_outcome("a", "raw", "wrong"),
        an_outcome("a", "repaired", "right"),
        an_outcome("b", "raw", "right"),
        an_outcome("a", "prepare", "x"),
    ]
    (row,) = rows_of(outcomes)
    assert row == Row(
        variant="fed",
        operator="Less",
        expanded=False,
        opset=13,
        dtype="float32",
        raw={"right": 1, "wrong": 1},
        repaired={"right": 1},
    )


def a_table(**changes: Any) -> OperatorTable:
    rows = rows_of([an_outcome("a", "raw", "wrong"), an_outcome("a", "repaired", "right")])
    table = OperatorTable(
        mnn="3.6.1", mnnprep=__version__, machine="x86_64", onnx="1", frontends={"ONNX": ["Less"]}, rows=rows
    )
    return msgspec.structs.replace(table, **changes)


def test_a_table_measured_here_goes_before_the_one_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shipped = load_table()
    assert shipped is not None
    mine = a_table(mnn=shipped.mnn, machine=shipped.machine)
    path = save_table(mine, cache_directory())
    assert load_table() == mine
    path.write_text("{}")
    assert load_table() == shipped
    save_table(msgspec.structs.replace(mine, mnnprep="0.0.0"), cache_directory())
    assert load_table() == shipped


def test_the_command_shows_an_operator_and_tells_an_unknown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(cli, ["ops", "Less"], standalone_mode=False, catch_exceptions=False)
    assert "ONNX" in done.output
    with pytest.raises(UsageError, match="no frontend"):
        CliRunner().invoke(cli, ["ops", "Lesss"], standalone_mode=False, catch_exceptions=False)


def test_the_page_is_the_table_that_ships() -> None:
    table = msgspec.json.decode((SHIPPED / "mnn-3.6.1-x86_64.json").read_bytes(), type=OperatorTable)
    assert (DOCS / "operators.md").read_text() == page(table), (
        "run: python -m evaluation.operator_table --page-only"
    )
    assert sum(s.cases for s in scores(table)) > 2000
