"""The search for inputs on which an attempt that passed is wrong: what it tries, and what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from evaluation.faults.one_attempt import Bench, by_search, failed
from evaluation.nets.mnn_models import floats, node, save
from mnnprep.attempt.part_runs import isolated, joined, only
from mnnprep.attempt.search import Side, may_tie, suspected, usual_peaks, with_case
from mnnprep.attempt.steadiness import Steadiness, Steady, far, moved
from mnnprep.bundle import manifest_view
from mnnprep.bundle.manifest import read_manifest
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import OutputError
from mnnprep.formats.onnx.decisions import decisions
from mnnprep.formats.onnx.widening import widen
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, InputSpecs, RunResult, Survey
from mnnprep.model.request import Request
from mnnprep.model.running import case_inputs
from mnnprep.model.searching import ORIGIN_SEARCHED, DecisionsJob, SearchJob
from mnnprep.model.signature import Signature, TensorSpec
from mnnprep.reference.evolution import Evolution
from mnnprep.reference.proposals import Field, proposals
from mnnprep.reference.widening import LEAST_CASES, MOST_CASES, MOST_RUNS, budget
from mnnprep.workers.failure import StepFailed
from support.command import call

X = TensorSpec("x", "float32", (2, 6), (-3.0, 5.0))
IDS = TensorSpec("ids", "int64", (2, 4), (0.0, 39.0))
MASK = TensorSpec("mask", "int64", (2, 4))
WEIGHT = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


# --- proposals


@pytest.mark.parametrize(
    "specs", [(X,), (IDS, MASK), (TensorSpec("x", "float32", ()),), (TensorSpec("b", "bool", (3,)),)]
)
def test_proposals_stay_in_range_and_are_the_same_each_time(specs: tuple[TensorSpec, ...]) -> None:
    found = list(proposals(specs, {}, 0, (0.25,)))
    again = list(proposals(specs, {}, 0, (0.25,)))
    assert len(found) > 10
    for (name, arrays), (_, other) in zip(found, again, strict=True):
        for spec in specs:
            array = arrays[spec.name]
            assert (array.shape, array.dtype) == (spec.shape, np.dtype(spec.dtype)), name
            assert np.array_equal(array, other[spec.name])
            low, high = spec.range or ((-16, 16) if spec.dtype == "float32" else (0, 1))
            assert array.min() >= low, name
            assert array.max() <= high, name


def test_every_id_of_a_table_is_proposed_beside_a_mask_that_hides_nothing() -> None:
    seen = set[int]()
    for name, arrays in proposals((IDS, MASK), {}, 0, ()):
        if name.startswith("ids in turn"):
            assert arrays["mask"].all()
            seen |= set(arrays["ids"].reshape(-1).tolist())
    assert seen == set(range(40))


def test_constants_of_the_model_are_proposed_exactly_and_with_their_neighbours() -> None:
    value = np.float32(0.7)
    arrays = dict(proposals((TensorSpec("x", "float32", (4000,), (0.0, 1.0)),), {}, 0, (0.7,)))
    held = set(arrays["constants of the model"]["x"].tolist())
    assert {float(value), float(np.nextafter(value, np.float32(1))), float(np.nextafter(value, 0))} <= held


# --- evolution


def evolved(steps: int) -> Evolution:
    field = Field(X, (2, 6), -3.0, 5.0, ())
    search = Evolution(lambda a: {"h": a["x"] @ WEIGHT}, [field], np.random.Generator(np.random.PCG64(0)))
    search.start([{"x": np.zeros((2, 6), np.float32)}])
    search.add("ones", {"x": np.ones((2, 6), np.float32)})
    for _ in range(steps):
        search.climb()
    return search


def test_evolution_takes_a_value_further_the_same_way_each_time() -> None:
    first, again = evolved(200), evolved(200)
    (name, best), *_ = first.best(1, [])
    assert name.startswith("evolved towards")
    assert (
        np.abs(best["x"] @ WEIGHT).max() > 0.7 * np.abs(np.where(WEIGHT > 0, 5.0, -3.0) * WEIGHT).sum(0).max()
    )
    assert best["x"].tobytes() == again.best(1, [])[0][1]["x"].tobytes()
    assert first.tried == 202
    assert (first.values, first.widened) == (1, 1)


def test_evolution_gives_inputs_that_lie_between_the_extremes() -> None:
    search = evolved(200)
    best = search.best(2, [])
    between = search.between(6, [arrays for _, arrays in best])
    reached = np.sort([float((arrays["x"] @ WEIGHT).max()) for _, arrays in [*best, *between]])
    assert len(between) > 0
    assert len(np.unique(np.round(reached, 3))) > 2


def test_an_input_without_finite_numbers_is_no_candidate() -> None:
    field = Field(X, (2, 6), -3.0, 5.0, ())
    search = Evolution(lambda a: {"h": np.log(a["x"])}, [field], np.random.Generator(np.random.PCG64(0)))
    with np.errstate(invalid="ignore"):
        assert not search.add("negative", {"x": np.full((2, 6), -1, np.float32)})
    assert search.add("positive", {"x": np.ones((2, 6), np.float32)})


def test_the_work_of_a_run_decides_how_many_there_are() -> None:
    assert budget(1) == (MOST_RUNS, MOST_CASES)
    assert budget(1 << 40) == (0, LEAST_CASES)


# --- the step on ONNX graphs


def thresholded(path: Path) -> Path:
    """One output decides on the input as it is, the other on what is computed from it."""
    nodes = [
        node("GreaterOrEqual", ["x", "bound"], ["own"]),
        node("Cast", ["own"], ["y"], to=1),
        node("MatMul", ["x", "w"], ["h"]),
        node("GreaterOrEqual", ["h", "bound"], ["made"]),
        node("Cast", ["made"], ["z"], to=1),
    ]
    weights = {"w": WEIGHT, "bound": np.float32(0.75)}
    return save(path, nodes, [floats("x", 2, 6)], [floats("y", 2, 6), floats("z", 2, 4)], weights)


def a_case(directory: Path, inputs: Arrays, outputs: Arrays | None = None, index: int = 0) -> CaseFile:
    path = directory / f"case{index}.npz"
    arrays = {f"inputs/{n}": a for n, a in inputs.items()} | {
        f"outputs/{n}": a for n, a in (outputs or {}).items()
    }
    save_arrays(path, arrays)
    return CaseFile(index=index, origin="seed 0", dims={}, file=file_ref(path))


def test_the_step_widens_the_values_of_a_graph_within_the_range(tmp_path: Path) -> None:
    model = thresholded(tmp_path / "m.onnx")
    case = a_case(tmp_path, {"x": np.zeros((2, 6), np.float32)})
    (tmp_path / "out").mkdir()
    job = SearchJob(
        model=str(model), cases=[case], signature=Signature((X,)), seed=0, directory=str(tmp_path / "out")
    )
    found = widen(job)
    assert 0 < len(found.cases) <= MOST_CASES
    assert found.widened == found.values > 2
    assert found.tried == MOST_RUNS
    assert all(c.origin.startswith(ORIGIN_SEARCHED) for c in found.cases)
    values = [case_inputs(c.file.path)["x"] for c in found.cases]
    assert min(v.min() for v in values) == -3.0
    assert max(v.max() for v in values) == 5.0
    again = widen(job)
    assert [c.file.sha256 for c in again.cases] == [c.file.sha256 for c in found.cases]


@pytest.mark.parametrize(("at", "exact", "rounded"), [("own", True, False), ("made", False, True)])
def test_a_decision_on_inputs_is_told_from_one_on_sums(
    tmp_path: Path, at: str, exact: bool, rounded: bool
) -> None:
    model = thresholded(tmp_path / "m.onnx")
    x = np.full((2, 6), 0.75 if at == "own" else 0.5, np.float32)
    h = x @ WEIGHT
    if at == "made":
        x *= 0.75 / h[0, h[0].argmax()]
    (tmp_path / "moved").mkdir()
    nudges = (1e-6, -1e-6, 1e-5, -1e-5)
    steps = [
        a_case(tmp_path / "moved", {"x": x * np.float32(1 + by)}, index=n) for n, by in enumerate(nudges)
    ]
    found = decisions(
        DecisionsJob(model=str(model), case=a_case(tmp_path, {"x": x}), moved=steps, directory=str(tmp_path))
    )
    assert (bool(found.exact), bool(found.rounded)) == (exact, rounded)


# --- what counts


def test_a_source_that_moves_as_much_as_the_error_is_not_steady(tmp_path: Path) -> None:
    case = a_case(tmp_path, {}, {"y": np.ones(3, np.float32), "n": np.arange(3)})
    error = OutputError("y", 0, max_abs=0.5, problem="differs")
    assert not far(error, case, {"y": np.ones(3, np.float32) + 0.1})
    assert far(error, case, {"y": np.ones(3, np.float32) + 0.3})
    assert far(error, case, {"y": np.array([1, np.nan, 1], np.float32)})
    choice = OutputError("n", 0, max_abs=1.0, problem="1 of 3 elements differ")
    assert far(choice, case, {"n": np.array([0, 2, 1])})
    assert not far(choice, case, {"n": np.arange(3)})


def test_inputs_move_in_their_digits_alone_and_within_their_range() -> None:
    random = np.random.default_rng(0)
    array = np.array([0.0, 5.0, -3.0, 1.0], np.float32)
    found = moved(TensorSpec("x", "float32", (4,), (-3.0, 5.0)), array, 1e-5, random)
    assert np.abs(found - array).max() < 1e-4
    assert found[0] != 0
    assert found.min() >= -3.0
    assert found.max() <= 5.0


@pytest.mark.parametrize(
    ("off", "usual", "suspect"),
    [(0.0, 1.0, False), (2e-3, 1.0, False), (1e-1, 1.0, True), (1e-1, 1e3, False)],
)
def test_numbers_are_suspect_from_three_tolerances_on(
    tmp_path: Path, off: float, usual: float, suspect: bool
) -> None:
    """Of an output as large as it usually is: one that is nearly zero for once has no such digits."""
    case = a_case(tmp_path, {}, {"y": np.ones(4, np.float32)})
    given = tmp_path / "given.npz"
    save_arrays(given, {"y": np.ones(4, np.float32) + np.float32(off)})
    run = RunResult(outputs={"0": file_ref(given)})
    side = Side(catalog.MNN_COMPARE, Tolerance(), RunResult(), run, {"y": usual})
    assert bool(suspected(side, [case])) is suspect


def test_a_case_that_did_not_run_is_suspect(tmp_path: Path) -> None:
    case = a_case(tmp_path, {}, {"y": np.ones(4, np.float32)})
    side = Side(catalog.MNN_COMPARE, Tolerance(), RunResult(), RunResult(errors={"0": "no kernel"}), {})
    assert [s.excess for s in suspected(side, [case])] == [float("inf")]


def test_the_one_input_that_a_process_dies_of_is_an_error(tmp_path: Path) -> None:
    cases = [a_case(tmp_path, {}, index=n) for n in range(5)]

    def run(some: list[CaseFile]) -> RunResult:
        if any(c.index == 3 for c in some):
            raise StepFailed("crash", "died", signal=11)
        return RunResult(outputs={str(c.index): c.file for c in some})

    found = isolated(run, cases, "MNN's runtime")
    assert set(found.errors) == {"3"}
    assert set(found.outputs) == {"0", "1", "2", "4"}
    with pytest.raises(StepFailed):
        isolated(lambda _: (_ for _ in ()).throw(StepFailed("time", "too long")), cases, "MNN's runtime")


def test_a_case_that_is_found_is_the_last_of_the_survey(tmp_path: Path) -> None:
    cases = [a_case(tmp_path, {}, index=n) for n in range(2)]
    checks = [catalog.REFERENCE.passed(numbers={"cases": 2})]
    survey = Survey(signature=Signature(()), cases=cases, checks=checks, noise={"y": [1.0, None]})
    extended, case = with_case(survey, msgspec.structs.replace(cases[0], index=40), {"y": 2.0, "z": 3.0})
    assert case.index == 2
    assert extended.cases[-1] == case
    assert extended.noise == {"y": [1.0, None, 2.0], "z": [None, None, 3.0]}
    assert extended.checks[0].numbers["cases"] == 3
    assert survey.noise == {"y": [1.0, None]}
    ran = RunResult(outputs={"40": cases[0].file}, errors={"41": "no"})
    assert joined(RunResult(), only(ran, 40, 2)).outputs == {"2": cases[0].file}


# --- whole attempts


def classifier(path: Path) -> Path:
    """Two layers with a ReLU6 that ordinary inputs of 0 to 1 do not saturate."""
    weights = {
        "w": WEIGHT * 1.5,
        "v": WEIGHT[:4, :3],
        "low": np.float32(0),
        "high": np.float32(6),
        "half": np.float32(0.5),
    }
    nodes = [
        node("Sub", ["x", "half"], ["c"]),
        node("MatMul", ["c", "w"], ["h"]),
        node("Clip", ["h", "low", "high"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    return save(path, nodes, [floats("x", 4, 6)], [floats("y", 4, 3)], weights)


def with_bound(path: Path, bound: float) -> Path:
    """:func:`classifier` with another upper bound."""
    model = onnx.load(classifier(path))
    tensor = next(t for t in model.graph.initializer if t.name == "high")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(bound), "high"))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


def test_a_bound_that_no_random_input_reaches_is_found_and_becomes_a_case(
    bench: Bench, tmp_path: Path
) -> None:
    source = classifier(tmp_path / "m.onnx")
    wants = InputSpecs(ranges={"x": (0.0, 1.0)})
    net = bench.prepared(Request(source=str(source), wants=wants))
    right = bench.attempt(net)
    assert failed(right) == []
    assert right.check(catalog.MNN_COMPARE).numbers["searched"] > 20  # type: ignore[union-attr]

    wrong = bench.attempt(net, converted=with_bound(tmp_path / "wrong.onnx", 2.2))
    assert failed(wrong) == ["mnn_compare"]
    assert by_search(wrong)
    check, survey = wrong.check(catalog.MNN_COMPARE), wrong.survey
    assert check is not None
    assert survey is not None
    assert len(survey.cases) == len(net.survey.cases) + 1
    assert survey.cases[-1].origin in check.reason
    assert wrong.runs.mnn is not None
    assert set(wrong.runs.mnn.outputs) == {str(c.index) for c in survey.cases}
    reference = catalog.REFERENCE.name
    assert next(c for c in wrong.checks if c.check == reference).numbers["cases"] == len(survey.cases)
    assert load_arrays(survey.cases[-1].file.path).keys() == {"inputs/x", "outputs/y"}


def test_a_tie_of_sums_that_falls_otherwise_is_no_difference(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sums of the same terms in another order, for one number alone: each kernel rounds otherwise."""
    weight = np.random.default_rng(1).standard_normal((64, 100)).astype(np.float32)
    nodes = [
        node("Mul", ["x", "w"], ["terms"]),
        node("Mul", ["x", "reversed"], ["same"]),
        node("ReduceSum", ["terms", "axes"], ["one"], keepdims=0),
        node("ReduceSum", ["same", "axes"], ["other"], keepdims=0),
        node("Greater", ["one", "other"], ["b"]),
        node("Cast", ["b"], ["y"], to=1),
    ]
    weights = {"w": weight, "reversed": weight[:, ::-1].copy(), "axes": np.array([2])}
    source = save(tmp_path / "tie.onnx", nodes, [floats("x", 3, 1, 100)], [floats("y", 3, 64)], weights)
    net = bench.prepared(Request(source=str(source)))  # it is proven

    monkeypatch.setattr(Steadiness, "of", lambda *_: Steady.DECIDED)  # as if no rounding came to the decision
    assert failed(bench.attempt(net)) == ["mnn_compare"]


def test_a_bundle_says_what_the_search_compared(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx")
    assert call("prepare", model, "--range", "x=0:1", "-o", tmp_path / "out").code == 0
    manifest = read_manifest(tmp_path / "out")
    told = manifest_view.searched(manifest)
    assert "further inputs" in told
    assert "no output differed" in told
    assert told in (tmp_path / "out" / "report.html").read_text()
    assert call("verify", tmp_path / "out").code == 0


def test_an_output_is_usually_as_large_as_in_the_case_where_it_is_least(tmp_path: Path) -> None:
    sizes = (3.0, 0.5, 8.0)
    cases = [a_case(tmp_path, {}, {"y": np.full(2, n, np.float32)}, index=i) for i, n in enumerate(sizes)]
    assert usual_peaks(cases) == {"y": 0.5}


@pytest.mark.parametrize(
    ("values", "ties"), [([1.0, -2.0, 0.5], False), ([4.0, 4.0, 4.0], True), ([1.0, -2.0, 9.0], True)]
)
def test_scores_may_tie_for_repeated_or_larger_numbers(
    tmp_path: Path, values: list[float], ties: bool
) -> None:
    before = a_case(tmp_path, {"x": np.array([3.0, -4.0, 0.1], np.float32)})
    case = a_case(tmp_path, {"x": np.array(values, np.float32)}, index=1)
    assert may_tie(case, [before]) is ties
