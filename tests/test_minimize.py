"""What MNN's converter does not take is named, also where it crashes without a word."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnn_models import floats, node, save
from mnnprep.commands.prepare import prepare
from mnnprep.diagnose import minimize
from mnnprep.errors import RefusedError
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.onnx.cut import cut
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.model.messages import Cut, CutJob
from mnnprep.model.request import Limits, Request
from mnnprep.workers.pool import Workers
from real_models import fetch
from tf_models import built, needs_tensorflow


def chain(path: Path, operators: Sequence[str]) -> Path:
    """A chain of operators named n0, n1, ... beside a branch that is added at the end."""
    nodes = [node("Neg", ["x"], ["side"], name="side")]
    nodes += [
        node(o, ["x" if i == 0 else f"t{i - 1}"], [f"t{i}"], name=f"n{i}") for i, o in enumerate(operators)
    ]
    nodes.append(node("Add", [f"t{len(operators) - 1}", "side"], ["y"], name="end"))
    return save(path, nodes, [floats("x", "n", 4)], [floats("y", "n", 4)])


class TestTheSearch:
    """With a converter that fails on a known pattern; each part is a model that runs."""

    @pytest.fixture
    def search(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Path, Callable[[list[str]], bool]], list[str]]:
        numbers = itertools.count()

        def run(_workers: Any, _step: Any, job: CutJob) -> Cut:
            return cut(job)

        def directory(_workers: Any, name: str) -> Path:
            made = tmp_path / f"{name}-{next(numbers)}"
            made.mkdir()
            return made

        monkeypatch.setattr(Workers, "run", run)
        monkeypatch.setattr(Workers, "directory", directory)

        def search(model: Path, bad: Callable[[list[str]], bool]) -> list[str]:
            def fails(path: str) -> bool:
                onnxruntime.InferenceSession(path)
                return bad([n.op_type for n in onnx.load(path).graph.node])

            return minimize.smallest_part(Workers(Limits()), ARTIFACTS["onnx"], str(model), fails)

        return search

    def test_one_node(self, tmp_path: Path, search: Any) -> None:
        model = chain(tmp_path / "m.onnx", ["Abs"] * 9 + ["Exp"] + ["Abs"] * 9)
        assert search(model, lambda found: "Exp" in found) == ["Exp n9"]

    def test_two_nodes_that_fail_together(self, tmp_path: Path, search: Any) -> None:
        model = chain(tmp_path / "m.onnx", ["Abs", "Exp", "Abs", "Tanh", "Abs"])
        assert search(model, lambda found: {"Exp", "Tanh"} <= set(found)) == ["Exp n1", "Tanh n3"]

    def test_the_first_and_the_last(self, tmp_path: Path, search: Any) -> None:
        assert search(chain(tmp_path / "m.onnx", ["Exp", "Abs"]), lambda found: "Exp" in found) == ["Exp n0"]
        assert search(chain(tmp_path / "n.onnx", ["Abs", "Abs"]), lambda found: "Add" in found) == ["Add end"]

    def test_what_no_part_does_is_not_blamed(self, tmp_path: Path, search: Any) -> None:
        assert search(chain(tmp_path / "m.onnx", ["Abs", "Exp"]), lambda found: False) == []

    def test_it_ends(self, tmp_path: Path, search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(minimize, "LIMIT", 4)
        tried: list[int] = []
        search(chain(tmp_path / "m.onnx", ["Abs"] * 40), lambda found: tried.append(len(found)) or True)
        assert len(tried) == 4


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    """What each node of a graph needs, of those before it."""
    count = draw(st.integers(1, 12))
    return [
        draw(st.lists(st.integers(0, node - 1), max_size=3, unique=True)) if node else []
        for node in range(count)
    ]


class TestMinimize:
    @given(st.data(), graphs())
    def test_nodes_that_fail_together_are_found(self, data: st.DataObject, needs: list[list[int]]) -> None:
        numbers = st.integers(0, len(needs) - 1)
        culprits = data.draw(st.sets(numbers, min_size=1))
        found = minimize.minimize(len(needs), lambda part: culprits <= set(part), needs, 100)
        assert found == sorted(culprits)

    @given(graphs(), st.randoms(use_true_random=False), st.integers(0, 30))
    def test_what_is_found_fails_whatever_the_pattern(
        self, needs: list[list[int]], random: Random, limit: int
    ) -> None:
        tried: dict[tuple[int, ...], bool] = {}

        def fails(part: list[int]) -> bool:
            assert part == sorted(set(part))
            assert tuple(part) not in tried
            return tried.setdefault(tuple(part), random.random() < 0.5)

        found = minimize.minimize(len(needs), fails, needs, limit)
        assert len(tried) <= limit
        whole = tuple(range(len(needs)))
        assert tried[tuple(found)] if found else not tried.get(whole)

    def test_a_large_graph_takes_few_tries(self) -> None:
        tried: list[int] = []

        def fails(part: list[int]) -> bool:
            tried.append(len(part))
            return {70000, 70002} <= set(part)

        needs = [[node - 1] if node else [] for node in range(100000)]
        assert minimize.minimize(100000, fails, needs, minimize.LIMIT) == [70000, 70002]
        assert len(tried) < 40


def test_a_part_keeps_its_constants_and_types(tmp_path: Path) -> None:
    nodes = [
        node("Abs", ["x"], ["a"], name="first"),
        node("Shape", ["a"], ["s"], name="shape"),
        node("Cast", ["k"], ["c"], to=7, name="constant"),
        node("Gather", ["s", "c"], ["d"], name="size"),
        node("Reshape", ["a", "d"], ["y"], name="last"),
    ]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        [floats("x", "n", 4)],
        [floats("y", None, None)],
        {"k": np.array([1, 0], np.float32)},
    )
    listed = cut(CutJob(model=str(model), directory=str(tmp_path)))
    assert listed.labels == ["Abs first", "Shape shape", "Gather size", "Reshape last"]
    assert listed.needs == [[], [0], [1], [0, 2]]
    made = cut(CutJob(model=str(model), directory=str(tmp_path), nodes=[2, 3]))
    assert made.file is not None
    session = onnxruntime.InferenceSession(made.file.path)
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("a", "tensor(float)"),
        ("s", "tensor(int64)"),
    ]
    assert session.run(None, {"a": np.ones((2, 4), np.float32), "s": np.array([2, 4])})[0].shape == (4, 2)


def test_a_node_that_crashes_the_converter_is_named(tmp_path: Path) -> None:
    """Max of one input is a SIGSEGV of MNN's converter; the twin without it is proven."""
    manifest = prepare(
        Request(source=str(chain(tmp_path / "bad.onnx", ["Abs", "Tanh", "Max", "Abs"])), repairs=()),
        tmp_path / "out",
    )
    assert manifest.verdict is Verdict.REFUSED
    check = next(c for c in manifest.evidence if c.check == "mnn_convert")
    assert "SIGSEGV" in check.reason
    assert check.subject == "Max n2"
    assert "Max n2" in manifest.artifact.attempts[0].reason
    assert (
        prepare(
            Request(source=str(chain(tmp_path / "good.onnx", ["Abs", "Tanh", "Abs"]))), tmp_path / "fine"
        ).verdict
        is Verdict.PROVEN
    )


@needs_tensorflow
def test_a_node_of_a_frozen_graph_that_crashes_the_converter_is_named(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    source = built(tmp_path_factory.getbasetemp().parent) / "volume.pb"
    manifest = prepare(Request(source=str(source), to="tf"), tmp_path / "out")
    assert manifest.verdict is Verdict.REFUSED
    check = next(c for c in manifest.evidence if c.check == "mnn_convert")
    assert "crashed" in check.reason
    assert check.subject == "Conv3D volume"


@pytest.mark.real
def test_an_operator_that_is_refused_without_a_word_is_named(tmp_path: Path) -> None:
    """MNN says only that the file can't be converted; its list of operators lacks SELECT_V2."""
    manifest = prepare(Request(source=str(fetch("basic-pitch.tflite")), to="tflite"), tmp_path / "out")
    check = next(c for c in manifest.evidence if c.check == "mnn_convert")
    assert check.subject.startswith("SELECT_V2 model_1/")
    with pytest.raises(RefusedError):
        prepare(Request(source=str(fetch("wakeword-alexa.tflite"))), tmp_path / "other")
