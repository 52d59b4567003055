"""Task metrics: their formulas against plain loops, their edges, functions of the user's, and what they do to
a verdict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mnnprep
from evaluation.nets.mnn_models import WEIGHT, case, floats, matmul, node, save
from mnnprep.attempt.metrics import metric_checks
from mnnprep.attempt.task_metrics import FORMULAS, MetricJob, class_axis, measure
from mnnprep.commands.verify import known_metrics
from mnnprep.comparison.outputs import compare_run
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.metrics import NAMES, Metric, make_metrics, parse_metric, recorded
from mnnprep.model.request import Limits
from mnnprep.workers.pool import Workers
from support.command import call, checks_of, prepared

Case = tuple[dict[str, Any], dict[str, Any]]
SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(6, 9)), elements=st.floats(-8, 8, width=32)
)


def value(name: str, *pairs: tuple[Any, Any]) -> float:
    """The metric of one output over cases of (reference, outputs)."""
    formula = FORMULAS[name]
    parts = [formula.part(np.asarray(r), np.asarray(a)) for r, a in pairs]
    assert None not in parts
    return formula.combine([p for p in parts if p is not None])


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "metric"),
        [
            ("top1", Metric(name="top1")),
            (" top5 = 0.9 ", Metric(name="top5", threshold=0.9)),
            ("sqnr>=40", Metric(name="sqnr", threshold=40)),
            ("mse", Metric(name="mse", at_most=True)),
            ("mse=1e-4", Metric(name="mse", threshold=1e-4, at_most=True)),
            ("mse<=1e-4", Metric(name="mse", threshold=1e-4, at_most=True)),
            ("iou@mask:0=0.5", Metric(name="iou@mask:0", threshold=0.5)),
        ],
    )
    def test_what_they_mean(self, text: str, metric: Metric) -> None:
        assert parse_metric(text) == metric
        assert not metric.own

    def test_a_function(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a=b").mkdir()
        (tmp_path / "agree.py").write_text("def f(r, a):\n    return 1\n")
        monkeypatch.chdir(tmp_path)
        metric = parse_metric("agree.py:f<=0.1")
        assert (metric.name, metric.threshold, metric.at_most, metric.own) == ("agree.py:f", 0.1, True, True)
        assert len(metric.sha256) == 64
        assert metric.function == f"{tmp_path}/agree.py:f"
        assert str(tmp_path) not in repr(recorded([metric]))

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("", "could not be read"),
            ("=3", "unknown"),
            ("accuracy", "unknown"),
            ("top1=", "not a number"),
            ("top1=high", "not a number"),
            ("top1=nan", "not finite"),
            ("sqnr=inf", "not finite"),
            ("top1<=0.5", "wrong side"),
            ("mse>=0.5", "wrong side"),
            ("iou@", "not name an output after @"),
            ("none.py:f", "no file"),
            ("none.py:f g", "unknown"),
            ("json:loads", "unknown"),
        ],
    )
    def test_texts_that_are_refused(self, text: str, what: str) -> None:
        with pytest.raises(UsageError, match=what) as caught:
            parse_metric(text)
        assert caught.value.next

    @given(st.text(max_size=20))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            metric = parse_metric(text)
        except UsageError:
            return
        assert metric.kind in NAMES

    def test_one_of_each(self) -> None:
        with pytest.raises(UsageError, match="twice for top1"):
            make_metrics(["top1", "top1=0.9"])
        with pytest.raises(UsageError, match="neither a text nor a function"):
            make_metrics([3], {})
        live: dict[str, Any] = {}
        (metric,) = make_metrics([value], live)
        assert (metric.name, live[metric.function]) == (f"{__name__}:value", value)


class TestFormulas:
    @given(SCORES, st.integers(0, 2**32 - 1))
    def test_against_plain_loops(self, ref: Any, seed: int) -> None:
        act = (ref + np.random.default_rng(seed).standard_normal(ref.shape)).astype("f4")
        firsts, fives = [], []
        for r, a in zip(ref.tolist(), act.tolist(), strict=True):
            order = sorted(range(len(a)), key=lambda i: (-a[i], i))
            firsts.append(r[order[0]] == max(r))
            fives.append(any(r[i] == max(r) for i in order[:5]))
        assert value("top1", (ref, act)) == sum(firsts) / len(firsts)
        assert value("top5", (ref, act)) == sum(fives) / len(fives)
        pairs = list(zip(ref.ravel().tolist(), act.ravel().tolist(), strict=True))
        noise, signal = math.fsum((r - a) ** 2 for r, a in pairs), math.fsum(r * r for r, _ in pairs)
        assert value("mse", (ref, act)) == pytest.approx(noise / len(pairs), rel=1e-9)
        norms = math.sqrt(signal) * math.sqrt(math.fsum(a * a for _, a in pairs))
        if signal and norms:
            assert value("sqnr", (ref, act)) == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
            assert value("cosine", (ref, act)) == pytest.approx(
                math.fsum(r * a for r, a in pairs) / norms, abs=1e-9
            )

    @given(
        hnp.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 3)),
        st.integers(0, 2**32 - 1),
    )
    def test_overlaps_against_plain_loops(self, ref: Any, seed: int) -> None:
        act = np.random.default_rng(seed).integers(0, 4, ref.shape)
        shares = []
        for label in {*ref.ravel().tolist(), *act.ravel().tolist()}:
            where = [(r == label, a == label) for r, a in zip(ref.ravel(), act.ravel(), strict=True)]
            shares.append(sum(r and a for r, a in where) / sum(r or a for r, a in where))
        assert value("iou", (ref, act)) == pytest.approx(sum(shares) / len(shares))
        assert value("iou", (act, ref)) == value("iou", (ref, act))
        mask = value("iou", (ref > 1, act > 1))
        either = int(((ref > 1) | (act > 1)).sum())
        assert mask == (int(((ref > 1) & (act > 1)).sum()) / either if either else 1)

    @given(SCORES)
    def test_the_same_is_perfect(self, ref: Any) -> None:
        assert value("top1", (ref, ref)) == value("top5", (ref, ref)) == 1
        assert value("cosine", (ref, ref)) == pytest.approx(1)
        assert (value("sqnr", (ref, ref)), value("mse", (ref, ref))) == (math.inf, 0)
        assert value("iou", (ref > 0, ref > 0)) == 1

    @given(SCORES, SCORES, st.integers(0, 2**32 - 1))
    def test_cases_count_alike_in_any_order(self, a: Any, b: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        pairs = [(r, (r + rng.standard_normal(r.shape)).astype("f4")) for r in (a, b)]
        for name in ("top1", "top5", "cosine", "sqnr", "mse"):
            assert value(name, *pairs) == value(name, *reversed(pairs))
        rows = [sum(r.shape[0] for r, _ in pairs), sum(value("top1", p) * p[0].shape[0] for p in pairs)]
        assert value("top1", *pairs) == pytest.approx(rows[1] / rows[0])
        assert value("cosine", *pairs) == min(value("cosine", p) for p in pairs)

    @given(SCORES, st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
    def test_a_common_scale_changes_only_mse(self, ref: Any, scale: float, seed: int) -> None:
        ref = ref.astype("f8")
        act = ref + np.random.default_rng(seed).standard_normal(ref.shape)
        before, after = (ref, act), (ref * scale, act * scale)
        if ref.any():
            assert value("cosine", after) == pytest.approx(value("cosine", before), abs=1e-9)
            assert value("sqnr", after) == pytest.approx(value("sqnr", before), abs=1e-4)
        assert value("mse", after) == pytest.approx(value("mse", before) * scale**2, rel=1e-4)

    @given(SCORES, st.integers(0, 2**32 - 1))
    def test_five_chances_are_no_worse_than_one(self, ref: Any, seed: int) -> None:
        act = np.random.default_rng(seed).standard_normal(ref.shape).astype("f4")
        assert value("top1", (ref, act)) <= value("top5", (ref, act))


class TestEdges:
    def test_a_constant_answer_does_not_agree_by_its_ties(self) -> None:
        ref = np.eye(8, dtype="f4")
        assert value("top1", (ref, np.zeros_like(ref))) == 1 / 8
        assert value("top5", (ref, np.zeros_like(ref))) == 5 / 8

    def test_ties_of_the_reference_may_be_broken_either_way(self) -> None:
        ref = np.array([[1, 1, 0]], "f4")
        assert [value("top1", (ref, np.array([row], "f4"))) for row in ([2, 1, 0], [1, 2, 0], [0, 0, 1])] == [
            1,
            1,
            0,
        ]

    def test_rows_with_a_nan_are_misses(self) -> None:
        ref = np.array([[1, 0], [math.nan, 0], [1, 0]], "f4")
        act = np.array([[1, 0], [math.nan, 0], [math.nan, 1]], "f4")
        assert value("top1", (ref, act)) == 1 / 3
        assert value("top1", (np.array([[math.inf, 0]]), np.array([[math.inf, 0]]))) == 1

    @pytest.mark.parametrize(
        ("shape", "axis"),
        [
            ((5,), 0),
            ((2, 5), 1),
            ((2, 3, 5), 2),
            ((1, 21, 64, 64), 1),
            ((1, 64, 64, 21), 3),
            ((1, 5, 5, 5), 1),
            ((1, 1000, 1, 1), 1),
            ((1, 1, 1, 9), 3),
        ],
    )
    def test_the_class_axis(self, shape: tuple[int, ...], axis: int) -> None:
        assert class_axis(np.zeros(shape)) == axis

    def test_zero_vectors(self) -> None:
        zero, one = np.zeros(3, "f4"), np.ones(3, "f4")
        assert (
            value("cosine", (zero, zero)),
            value("cosine", (zero, one)),
            value("cosine", (one, -one)),
        ) == (1, 0, -1)
        assert (value("sqnr", (zero, zero)), value("sqnr", (zero, one))) == (math.inf, -math.inf)

    def test_values_that_can_not_be_squared(self) -> None:
        big = np.full(3, 1e200)
        assert value("cosine", (big, big)) == pytest.approx(1)
        assert value("cosine", (big, big * 1e-300)) == pytest.approx(1)
        with pytest.raises(ValueError, match="too large"):
            value("mse", (big, -big))

    def test_infinities_at_the_same_places_are_left_out(self) -> None:
        ref = np.array([1, math.inf, math.nan, 2])
        assert value("mse", (ref, ref + 1)) == 1
        for name in ("cosine", "sqnr", "mse"):
            for other in (
                [1, 1, math.nan, 2],
                [1, -math.inf, math.nan, 2],
                [math.nan, math.inf, math.nan, 2],
                [math.inf, math.inf, math.nan, 2],
            ):
                with pytest.raises(ValueError, match="at other places"):
                    value(name, (ref, np.array(other)))

    def test_score_maps_become_labels(self) -> None:
        labels = np.random.default_rng(0).integers(0, 3, (1, 6, 7))
        scores = np.moveaxis(np.eye(3, dtype="f4")[labels], -1, 1)
        other = labels.copy()
        other[0, 0, 0] = (labels[0, 0, 0] + 1) % 3
        assert (
            value("iou", (scores, np.moveaxis(np.eye(3, dtype="f4")[other], -1, 1)))
            == value("iou", (labels, other))
            < 1
        )

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            ("top1", np.zeros((2, 1), "f4")),
            ("top1", np.zeros((2, 3), int)),
            ("top1", np.float32(1)),
            ("top5", np.zeros((2, 5), "f4")),
            ("cosine", np.zeros(3, int)),
            ("mse", np.zeros(3, bool)),
            ("iou", np.zeros((2, 3), "f4")),
            ("iou", np.zeros((1, 1, 4, 1), "f4")),
            ("iou", np.zeros(3, int)),
            ("iou", np.arange(5000).reshape(50, 100)),
        ],
    )
    def test_outputs_that_a_metric_is_not_defined_for(self, name: str, array: Any) -> None:
        assert FORMULAS[name].part(np.asarray(array), np.asarray(array)) is None


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Workers for all tests of checks, which would else start one each."""
    with Workers(Limits(timeout=20)) as workers:
        yield workers


class Made:
    """Makes cases and a run, from pairs of (reference, outputs), and has the workers that judge them."""

    def __init__(self, directory: Path, workers: Workers) -> None:
        self.directory = directory
        self.workers = workers

    def __call__(self, *pairs: Case, origin: str = "seed") -> tuple[list[CaseFile], RunResult]:
        cases, ran = [], RunResult()
        for index, (reference, outputs) in enumerate(pairs):
            cases.append(
                msgspec.structs.replace(
                    case(self.directory, index, {"x": np.zeros(1)}, reference), origin=f"{origin} {index}"
                )
            )
            path = self.directory / f"run-{index}.npz"
            save_arrays(path, {n: np.asarray(a) for n, a in outputs.items()})
            ran.outputs[str(index)] = file_ref(path)
        return cases, ran


@pytest.fixture
def made(tmp_path: Path, workers: Workers) -> Made:
    return Made(tmp_path, workers)


def checked(made: Made, text: str, *pairs: Case, **runs: RunResult | None) -> Check:
    cases, ran = made(*pairs)
    (check,) = metric_checks(made.workers, make_metrics([text]), cases, {"MNN": ran, **runs})
    return check


class TestChecks:
    def test_the_worst_output_counts(self, made: Made) -> None:
        one, two = np.eye(2, dtype="f4"), np.array([[0, 1], [0, 1]], "f4")
        check = checked(
            made,
            "top1=0.9",
            ({"a": one, "b": one, "n": np.arange(3)}, {"a": one, "b": two, "n": np.arange(3)}),
        )
        assert (check.status, check.required) == (Status.FAILED, True)
        assert check.numbers["MNN"] == check.numbers["MNN:b"] == 0.5
        assert check.numbers["MNN:a"] == 1
        assert "0.5 in MNN, where it must be at least 0.9" in check.reason
        assert (
            checked(made, "top1@a=0.9", ({"a": one, "b": one}, {"a": one, "b": two})).status is Status.PASSED
        )
        free = checked(made, "top1", ({"a": one, "b": one}, {"a": one, "b": two}))
        assert (free.status, free.required) == (Status.PASSED, False)

    def test_the_largest_mse_is_the_worst(self, made: Made) -> None:
        zero = np.zeros(4, "f4")
        check = checked(made, "mse=0.5", ({"a": zero, "b": zero}, {"a": zero + 1, "b": zero}))
        assert (check.status, check.numbers["MNN"], check.numbers["at_most"]) == (Status.FAILED, 1, 0.5)

    def test_no_error_has_an_infinite_sqnr(self, made: Made) -> None:
        check = checked(made, "sqnr=80", ({"a": np.ones(3, "f4")}, {"a": np.ones(3, "f4")}))
        assert (check.status, check.numbers["MNN"]) == (Status.PASSED, "inf")
        zero = checked(made, "sqnr=80", ({"a": np.zeros(3, "f4")}, {"a": np.ones(3, "f4")}))
        assert (zero.status, zero.numbers["MNN"]) == (Status.FAILED, "-inf")

    @pytest.mark.parametrize(
        ("outputs", "why"),
        [
            ({"a": np.zeros((1, 3), "f4")}, "is [1, 3], but the reference has [1, 2]"),
            ({"b": np.zeros((1, 2), "f4")}, "is missing"),
        ],
    )
    def test_what_can_not_be_measured_was_not_run(self, made: Made, outputs: Any, why: str) -> None:
        check = checked(made, "top1=0.5", ({"a": np.zeros((1, 2), "f4")}, outputs))
        assert (check.status, check.required) == (Status.NOT_RUN, True)
        assert why in check.reason

    def test_nothing_to_measure(self, made: Made) -> None:
        empty = {"a": np.zeros((0, 3), "f4")}
        assert "top1 is not defined for any output" in checked(made, "top1", (empty, empty)).reason
        assert "there is no output z; there are a" in checked(made, "top1@z", (empty, empty)).reason
        assert checked(made, "top1=0.5", (empty, empty), artifact=None).reason == "artifact did not run"

    def test_a_random_source_has_no_metric(self, made: Made) -> None:
        cases, ran = made(({"a": np.ones(2)}, {"a": np.ones(2)}))
        random = msgspec.structs.replace(
            catalog.DETERMINISM.passed(), status=Status.FAILED, reason="it is random"
        )
        (check,) = metric_checks(made.workers, make_metrics(["cosine=0"]), cases, {"MNN": ran}, [random])
        assert (check.status, check.required) == (Status.NOT_RUN, True)

    def test_real_samples_count_alone_where_there_are_any(self, made: Made) -> None:
        good, bad = ({"a": np.ones(2)}, {"a": np.ones(2)}), ({"a": np.ones(2)}, {"a": np.zeros(2)})
        cases, ran = made(good, bad)
        cases[0] = msgspec.structs.replace(cases[0], origin="samples a.npz")
        (check,) = metric_checks(made.workers, make_metrics(["mse=0"]), cases, {"MNN": ran})
        assert (check.status, check.numbers["cases"], check.numbers["inputs"]) == (Status.PASSED, 1, "real")
        assert (
            compare_run(catalog.MNN_COMPARE, cases, ran, Tolerance(), {}).status is Status.FAILED
        )  # the tolerance stays the judge


FUNCTIONS = """
import os
import helper

def agree(reference, outputs):
    assert set(reference) == set(outputs) == {"a"}
    return helper.gap(reference["a"], outputs["a"])

def breaks(reference, outputs):
    return reference["nothing"]

def text(reference, outputs):
    return "good"

def nan(reference, outputs):
    return float("nan")

def leaves(reference, outputs):
    raise SystemExit(0)

def crashes(reference, outputs):
    os.abort()

def sleeps(reference, outputs):
    while True:
        pass
"""


class TestFunctions:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "helper.py").write_text("def gap(a, b):\n    return abs(a - b).max()\n")
        (tmp_path / "code" / "own.py").write_text(FUNCTIONS)
        return tmp_path / "code" / "own.py"

    def test_its_value_is_the_mean_over_the_cases(self, made: Made, file: Path) -> None:
        pairs = [({"a": np.zeros(2)}, {"a": np.full(2, float(i))}) for i in (1, 2, 6)]
        check = checked(made, f"{file}:agree<=2", *pairs)
        assert (check.check, check.status) == ("metric:own.py:agree", Status.FAILED)
        assert [check.numbers[n] for n in ("MNN", "MNN:least", "MNN:most")] == [3, 1, 6]
        assert checked(made, f"{file}:agree=3", *pairs).status is Status.PASSED

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("breaks", "failed on case 0 at own.py:10: KeyError: 'nothing'"),
            ("text", "ValueError: could not convert string to float"),
            ("nan", "gave nan for case 0"),
            ("leaves", "SystemExit: 0"),
            ("crashes", "crashed with SIGABRT"),
            ("missing", "there is no callable missing"),
        ],
    )
    def test_one_that_fails_costs_its_own_check(self, made: Made, file: Path, name: str, why: str) -> None:
        check = checked(made, f"{file}:{name}=1", ({"a": np.ones(2)}, {"a": np.ones(2)}))
        assert (check.status, check.required) == (Status.NOT_RUN, True)
        assert why in check.reason

    def test_one_that_never_ends_is_ended(self, made: Made, file: Path) -> None:
        cases, ran = made(({"a": np.ones(2)}, {"a": np.ones(2)}))
        with Workers(Limits(timeout=2)) as workers:
            (check,) = metric_checks(workers, make_metrics([f"{file}:sleeps"]), cases, {"MNN": ran})
        assert "took longer than 2 s" in check.reason

    def test_a_file_that_is_no_python(self, made: Made, file: Path) -> None:
        file.write_text("def agree(:\n")
        assert "SyntaxError" in checked(made, f"{file}:agree", ({"a": np.ones(2)}, {"a": np.ones(2)})).reason

    def test_measuring_runs_where_it_is_called(self, made: Made, file: Path) -> None:
        cases, ran = made(({"a": np.zeros(2)}, {"a": np.ones(2)}))
        (metric,) = make_metrics([f"{file}:agree"])
        assert measure(MetricJob(metric=metric, cases=cases, runs={"x": ran})).values == {"x": {"": 1.0}}


def scaled(path: Path, factor: float) -> Path:
    return save(
        path,
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "batch", 4)],
        [floats("y", "batch", 3)],
        {"w": WEIGHT * np.float32(factor)},
    )


class TestVerdicts:
    """On the command line and in Python, with the bundles that come of it."""

    def test_a_value_that_is_reached_and_one_that_is_not(self, tmp_path: Path) -> None:
        model = matmul(tmp_path / "net.onnx")
        good = prepared(
            model,
            tmp_path / "good",
            "--dim",
            "batch=1:3",
            "--metric",
            "top1=1",
            "--metric",
            "cosine",
            "--metric",
            "mse=1e-6",
        )
        assert good.verdict.value == "proven"
        (top1,) = checks_of(good, "metric:top1")
        assert (top1.required, top1.numbers["artifact"], top1.numbers["MNN"]) == (True, 1, 1)
        assert not checks_of(good, "metric:cosine")[0].required
        assert good.metrics == [
            Metric(name="top1", threshold=1),
            Metric(name="cosine"),
            Metric(name="mse", threshold=1e-6, at_most=True),
        ]
        page = (tmp_path / "good" / "report.html").read_text()
        assert "Task metrics" in page
        assert "at least 1" in page
        bad = prepared(model, tmp_path / "bad", "--dim", "batch=1:3", "--metric", "sqnr=1000", "--fp16")
        assert bad.verdict.value == "differs"
        result = call("verify", tmp_path / "good", "--json")
        assert result.code == 0
        assert {"metric:top1", "metric:cosine", "metric:mse"} <= {
            c["check"] for c in result.document()["evidence"]
        }
        more = call("verify", tmp_path / "good", "--metric", "mse@y=-1")
        assert more.code == 1
        assert "task metrics" in more.out
        assert "mse@y is" in more.out

    def test_a_budget_admits_what_a_metric_still_refuses(self, tmp_path: Path) -> None:
        model = matmul(tmp_path / "net.onnx")
        options = ("--dim", "batch=1:3", "--weight-bits", "8", "--budget", "20")
        assert prepared(model, tmp_path / "a", *options, "--metric", "sqnr").verdict.value == "proven"
        assert prepared(model, tmp_path / "b", *options, "--metric", "sqnr=150").verdict.value == "differs"

    def test_it_never_waves_through_what_the_tolerance_refuses(self, tmp_path: Path) -> None:
        first, second = scaled(tmp_path / "a.onnx", 1.0), scaled(tmp_path / "b.onnx", 1.2)
        result = call("compare", first, second, "--metric", "top1=1", "--metric", "cosine=0.99", "--json")
        assert result.code == 1
        evidence = {c["check"]: c for c in result.document()["evidence"]}
        assert evidence["metric:top1"]["status"] == evidence["metric:cosine"]["status"] == "passed"
        assert result.document()["verdict"] == "differs"
        assert call("compare", first, first, "--metric", "top1=1").code == 0
        assert call("compare", first, scaled(tmp_path / "c.onnx", 1.00001), "--metric", "sqnr=200").code == 1

    def test_verify_takes_no_code_from_a_bundle(self, tmp_path: Path) -> None:
        file = tmp_path / "own.py"
        file.write_text(
            "def agree(reference, outputs):\n    return float((reference['y'].argmax(-1) =="
            " outputs['y'].argmax(-1)).mean())\n"
        )
        model, bundle = matmul(tmp_path / "net.onnx"), tmp_path / "out"
        made = prepared(model, bundle, "--dim", "batch=1:3", "--metric", f"{file}:agree=1")
        assert made.verdict.value == "proven"
        assert made.metrics[0].sha256
        assert str(tmp_path) not in (bundle / "manifest.json").read_text()
        without = call("verify", bundle, "--json")
        assert (without.code, without.document()["verdict"]) == (1, "unproven")
        assert "does not hold its code" in json.dumps(without.document())
        assert call("verify", bundle, "--metric", f"{file}:agree").code == 0
        assert call("verify", bundle, "--metric", f"{file}:agree=0.5").code == 2
        file.write_text(file.read_text() + "# changed\n")
        other = call("verify", bundle, "--metric", f"{file}:agree")
        assert (other.code, "has other code" in other.err) == (2, True)

    def test_in_python_with_functions_of_this_process(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        seen = []

        def agree(reference: dict[str, Any], outputs: dict[str, Any]) -> float:
            seen.append(sorted(outputs))
            return float(np.allclose(reference["output"], outputs["output"], atol=1e-3))

        net = torch.nn.Linear(4, 3)
        manifest = mnnprep.prepare(
            net, tmp_path / "out", inputs=["input=float32[2,4]"], metrics=[agree, "cosine=0.999"]
        )
        assert manifest is not None
        assert manifest.verdict.value == "proven"
        assert {c.check: c.status for c in manifest.evidence if c.check.startswith("metric:")} == {
            f"metric:{__name__}:agree": Status.PASSED,
            "metric:cosine": Status.PASSED,
        }
        assert seen
        assert all(names == ["output"] for names in seen)
        assert mnnprep.verify(tmp_path / "out", metrics=agree).verdict.value == "proven"
        assert (
            mnnprep.compare(
                matmul(tmp_path / "a.onnx"), tmp_path / "a.onnx", metrics=lambda r, a: 1
            ).verdict.value
            == "proven"
        )

    def test_the_same_call_gives_the_same_bytes(self, tmp_path: Path) -> None:
        model = matmul(tmp_path / "net.onnx")
        for name in ("a", "b"):
            prepared(model, tmp_path / name, "--dim", "batch=1:3", "--metric", "top1", "--metric", "sqnr=40")
        assert (tmp_path / "a" / "manifest.json").read_bytes() == (
            tmp_path / "b" / "manifest.json"
        ).read_bytes()

    def test_a_call_that_is_wrong(self, tmp_path: Path) -> None:
        result = call(
            "prepare", matmul(tmp_path / "net.onnx"), "-o", tmp_path / "out", "--metric", "accuracy"
        )
        assert (result.code, "a --metric is unknown" in result.err) == (2, True)


def test_metrics_of_a_bundle_and_those_given() -> None:
    own = Metric(name="f.py:g", threshold=1, sha256="aa")
    here = msgspec.structs.replace(own, threshold=None, function="/x/f.py:g")
    assert known_metrics([own], (here, Metric(name="top1"))) == [
        msgspec.structs.replace(own, function="/x/f.py:g"),
        Metric(name="top1"),
    ]
    assert known_metrics([own], ()) == [own]
    for wrong in (msgspec.structs.replace(here, sha256="bb"), msgspec.structs.replace(here, threshold=0.5)):
        with pytest.raises(UsageError, match="than the bundle was made with"):
            known_metrics([own], (wrong,))
    hostile = msgspec.structs.replace(own, function="/tmp/evil.py:g")
    assert known_metrics([hostile], ()) == [own]
