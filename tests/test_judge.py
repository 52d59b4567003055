"""From runs to checks: hand-made runs that are right, and each way in which one can be wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mnnprep.comparison.dimensions import dimension_checks
from mnnprep.comparison.outputs import compare_run, confirmed, repeated
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.constraints import Constraint
from mnnprep.model.files import canonical_json, file_ref, save_arrays
from mnnprep.model.messages import CaseFile, RefusedPair, RunResult, Survey, Sweep
from mnnprep.model.signature import Dim, Signature, TensorSpec

Arrays = dict[str, Any]
NARROWING = {"int64": "int32", "float64": "float32"}
SIZES = ({"batch": 2, "length": 8}, {"batch": 1, "length": 8}, {"batch": 2, "length": 5})


def reference(batch: int, length: int) -> Arrays:
    rng = np.random.default_rng([batch, length])
    return {"y": rng.standard_normal((batch, length)).astype("f4"), "ids": rng.integers(0, 9, batch)}


@pytest.fixture
def cases(tmp_path: Path) -> list[CaseFile]:
    found = []
    for index, dims in enumerate(SIZES):
        path = tmp_path / f"case-{index}.npz"
        arrays = {"inputs/x": np.zeros(dims["batch"], "f4")} | {
            f"outputs/{n}": a for n, a in reference(**dims).items()
        }
        save_arrays(path, arrays)
        found.append(CaseFile(index=index, origin=f"seed {index}", dims=dims, file=file_ref(path)))
    return found


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunResult]:
    """A run that gives the references, but for what *change* makes of them; None is a case with neither
    outputs nor error.
    """
    count = iter(range(100))

    def make(
        change: Callable[[int, Arrays], Arrays | str | None] = lambda _, a: a, **fields: Any
    ) -> RunResult:
        directory = tmp_path / f"run-{next(count)}"
        directory.mkdir()
        ran = RunResult(**fields)
        for index, dims in enumerate(SIZES):
            made = change(index, reference(**dims))
            if isinstance(made, str):
                ran.errors[str(index)] = made
            elif made is not None:
                path = directory / f"{index}.npz"
                save_arrays(path, made)
                ran.outputs[str(index)] = file_ref(path)
        return ran

    return make


def judged(cases: list[CaseFile], ran: RunResult, tolerance: Tolerance | None = None) -> Check:
    check = compare_run(catalog.MNN_COMPARE, cases, ran, tolerance or Tolerance(), NARROWING)
    assert check.check == "mnn_compare"
    assert check.required
    canonical_json(check)  # it can stand in a manifest
    assert bool(check.reason) == (check.status is not Status.PASSED)
    return check


def off(array: Any, by: float = 0.5) -> Any:
    changed = array.copy()
    changed.flat[-1] += by
    return changed


def test_a_run_that_is_right(cases: list[CaseFile], run: Callable[..., RunResult]) -> None:
    check = judged(cases, run())
    assert check.status is Status.PASSED
    assert [(e.case, e.output) for e in check.outputs] == [(i, n) for i in range(3) for n in ("y", "ids")]
    assert check.numbers["cases"] == 3
    assert check.numbers["outputs"] == 2
    assert check.numbers["excess"] == 0


def test_the_worst_figures_are_shown(cases: list[CaseFile], run: Callable[..., RunResult]) -> None:
    check = judged(cases, run(lambda i, a: a | {"y": a["y"] + np.float32(i * 1e-5)}))
    assert check.status is Status.PASSED
    for name, pick in (
        ("max_abs", max),
        ("max_rel", max),
        ("excess", max),
        ("cosine", min),
        ("sqnr_db", min),
    ):
        assert check.numbers[name] == pick(v for e in check.outputs if (v := getattr(e, name)) is not None)
    assert check.numbers["max_abs"] == pytest.approx(2e-5, rel=0.1)


WRONG: dict[str, tuple[Callable[[int, Arrays], Arrays | str | None], str]] = {
    "a number": (
        lambda i, a: a | {"y": off(a["y"])} if i == 1 else a,
        r"y in case 1 \(batch=1, length=8\): differs beyond the tolerance",
    ),
    "an integer": (
        lambda i, a: a | {"ids": off(a["ids"], 1)} if i == 2 else a,
        r"ids in case 2 .*1 of 2 elements differ",
    ),
    "a NaN": (
        lambda i, a: a | {"y": off(a["y"], np.nan)} if i == 0 else a,
        r"y in case 0 .*NaN at other places",
    ),
    "a shape": (
        lambda i, a: a | {"y": a["y"][:1]} if i == 0 else a,
        r"y in case 0 .*shape \[1, 8\], but the reference has \[2, 8\]",
    ),
    "a dtype": (lambda i, a: a | {"y": a["y"].astype("f8")}, r"y in case 0 .*dtype float64, but"),
    "a missing output": (
        lambda i, a: {"y": a["y"]} if i == 1 else a,
        r"ids in case 1 .*: the output is missing",
    ),
    "a surplus output": (
        lambda i, a: a | {"z": a["y"]} if i == 1 else a,
        r"z in case 1 .*: an output the reference does not have",
    ),
    "a case that did not run": (
        lambda i, a: "bad resize\nlog" if i == 2 else a,
        r"case 2 \(batch=2, length=5\) did not run: bad resize$",
    ),
    "a case that failed silently": (
        lambda i, a: "" if i == 2 else a,
        r"case 2 .* did not run: no reason was given",
    ),
    "a case that failed with an empty line": (
        lambda i, a: "\n \nreally" if i == 2 else a,
        r"did not run: really",
    ),
    "a case without outputs": (
        lambda i, a: None if i == 0 else a,
        r"case 0 \(batch=2, length=8\) has no outputs",
    ),
    "the outputs of another case": (
        lambda i, a: reference(**SIZES[0]) if i == 2 else a,
        r"y in case 2 .*shape",
    ),
    "no outputs at all": (lambda i, a: {}, "the output is missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_way_of_being_wrong_fails(
    cases: list[CaseFile], run: Callable[..., RunResult], name: str
) -> None:
    change, reason = WRONG[name]
    check = judged(cases, run(change))
    assert check.status is Status.FAILED
    assert re.search(reason, check.reason), check.reason
    assert any(e.problem for e in check.outputs)


def test_the_reason_is_short_and_counts_the_rest(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    check = judged(cases, run(lambda i, a: a | {"y": off(a["y"]), "ids": off(a["ids"], 1)}))
    assert check.reason.endswith("; and 4 more")
    assert sum(bool(e.problem) for e in check.outputs) == 6


def test_the_worst_output_of_a_case_is_named_first(
    cases: list[CaseFile], run: Callable[..., RunResult], tmp_path: Path
) -> None:
    save_arrays(tmp_path / "one.npz", {f"outputs/{n}": np.ones(2, "f4") for n in "abc"})
    save_arrays(
        tmp_path / "got.npz",
        {"a": np.full(2, 1.1, "f4"), "b": np.full(2, 9, "f4"), "c": np.full(2, 1.2, "f4")},
    )
    case = CaseFile(index=0, origin="samples real.npz", dims={}, file=file_ref(tmp_path / "one.npz"))
    check = judged([case], RunResult(outputs={"0": file_ref(tmp_path / "got.npz")}))
    assert check.reason.startswith("b in case 0 (samples real.npz): ")


def test_the_tolerance_given_is_the_one_used(cases: list[CaseFile], run: Callable[..., RunResult]) -> None:
    ran = run(lambda _, a: a | {"y": a["y"] + np.float32(2e-3)})
    assert judged(cases, ran).status is Status.FAILED
    assert judged(cases, ran, Tolerance(noise={"y": 1e-3})).status is Status.PASSED
    assert judged(cases, ran, Tolerance(noise={"ids": 1e-3})).status is Status.FAILED


@pytest.mark.parametrize(
    ("decibels", "right"),
    [((29.0, 29.0, 40.0), True), ((29.0, 29.0, 30.0), False), ((23.0, 60.0, 60.0), False)],
)
def test_the_signal_to_noise_ratio_is_that_over_all_cases(
    cases: list[CaseFile], run: Callable[..., RunResult], decibels: tuple[float, ...], right: bool
) -> None:
    """A case may be a little below what is asked for, not all of them, and none far below."""

    def noisy(index: int, arrays: Arrays) -> Arrays:
        y = arrays["y"].astype("f8")
        noise = np.random.default_rng(index).standard_normal(y.shape)
        scale = np.sqrt(np.square(y).sum() / np.square(noise).sum() / 10 ** (decibels[index] / 10))
        return arrays | {"y": (y + noise * scale).astype("f4")}

    found = judged(cases, run(noisy), Tolerance(sqnr_db=30.0))
    assert (found.status is Status.PASSED) is right, found.reason
    powers = [float(np.square(reference(**dims)["y"].astype("f8")).sum()) for dims in SIZES]
    noise = sum(p / 10 ** (d / 10) for p, d in zip(powers, decibels, strict=True))
    assert found.numbers["sqnr_db:y"] == pytest.approx(10 * np.log10(sum(powers) / noise), abs=0.01)


def test_nothing_compared_is_not_run(
    cases: list[CaseFile], run: Callable[..., RunResult], tmp_path: Path
) -> None:
    assert judged([], run()).status is Status.NOT_RUN
    save_arrays(tmp_path / "bare.npz", {"inputs/x": np.zeros(1)})
    save_arrays(tmp_path / "none.npz", {})
    bare = CaseFile(index=0, origin="seed 0", dims={}, file=file_ref(tmp_path / "bare.npz"))
    assert judged([bare], RunResult(outputs={"0": file_ref(tmp_path / "none.npz")})).status is Status.NOT_RUN


def narrow(_: int, arrays: Arrays) -> Arrays:
    return arrays | {"ids": arrays["ids"].astype("i4")}


def test_only_a_narrowing_that_is_both_stated_and_known_counts(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    check = judged(cases, run(narrow, narrowed={"ids": "int32"}))
    assert check.status is Status.PASSED
    assert check.numbers["narrowed"] == ["ids: int32"]
    assert judged(cases, run(narrow)).status is Status.FAILED  # not stated
    half = run(lambda _, a: a | {"y": a["y"].astype("f2")}, narrowed={"y": "float16"})
    assert judged(cases, half).status is Status.FAILED  # stated, but not one that is known
    assert judged(cases, run(narrowed={"ids": "int32"})).status is Status.FAILED  # stated, but not so


def test_a_second_run_that_agrees_changes_nothing(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    first, second = run(), run(lambda _, a: a | {"y": a["y"] + np.float32(1e-6)})
    check = judged(cases, first)
    assert repeated(check, first, second, Tolerance()) is check
    assert confirmed(check, first, second, cases, Tolerance(), {}) is check


def test_two_runs_may_round_differently_when_both_are_right(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    step = Tolerance().absolute * 0.9
    first, second = (
        run(lambda _, a, s=sign: a | {"y": (a["y"] + s * step * np.abs(a["y"]).max()).astype("f4")})
        for sign in (1, -1)
    )
    check = judged(cases, first)
    assert check.status is Status.PASSED
    assert repeated(check, first, second, Tolerance()).status is Status.FAILED
    assert confirmed(check, first, second, cases, Tolerance(), {}) is check


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda i, a: a | {"y": off(a["y"])} if i == 1 else a,
            "two runs of case 1 gave different numbers, so one of them is wrong: y differs",
        ),
        (
            lambda i, a: a | {"ids": off(a["ids"], 1)} if i == 1 else a,
            "two runs of case 1 gave different numbers",
        ),
        (
            lambda i, a: a | {"y": a["y"][:1]} if i == 2 else a,
            "two runs of case 2 gave different numbers, so one of them is wrong: y shape",
        ),
        (lambda i, a: {"y": a["y"]} if i == 2 else a, "ids the output is missing"),
        (
            lambda i, a: "out of memory\n..." if i == 2 else a,
            "the second run of case 2 failed, but the first did not: out of memory",
        ),
        (
            lambda i, a: "" if i == 2 else a,
            "the second run of case 2 failed, but the first did not: no reason was given",
        ),
        (
            lambda i, a: None if i == 2 else a,
            "the second run of case 2 failed, but the first did not: no outputs",
        ),
    ],
)
def test_a_second_run_that_is_another_fails(
    cases: list[CaseFile], run: Callable[..., RunResult], change: Any, reason: str
) -> None:
    first = run()
    check = judged(cases, first)
    again = repeated(check, first, run(change), Tolerance())
    assert again.status is Status.FAILED
    assert reason in again.reason
    assert again.numbers == check.numbers
    twice = confirmed(check, first, run(change), cases, Tolerance(), {"int64": "int32"})
    assert twice.status is Status.FAILED
    assert "a second run, in another process, is wrong, but the first was right" in twice.reason
    _, proven = dimension_checks(surveyed(cases), {"MNN": twice})
    assert len(proven["batch"]) + len(proven["length"]) < 4
    _, proven = dimension_checks(surveyed(cases), {"MNN": again})
    assert (
        len(proven["batch"]) + len(proven["length"]) < 4
    )  # and the sizes of that case are not called proven


def test_what_failed_already_stays_as_it_was(run: Callable[..., RunResult]) -> None:
    for check in (catalog.MNN_COMPARE.failed("so"), catalog.MNN_COMPARE.not_run("so")):
        assert repeated(check, run(), run(lambda _, a: a | {"y": off(a["y"])}), Tolerance()) is check
        assert confirmed(check, run(), run(lambda _, a: a | {"y": off(a["y"])}), [], Tolerance(), {}) is check


def surveyed(cases: list[CaseFile], **fields: Any) -> Survey:
    specs = (TensorSpec("x", "float32", ("batch", "length")),)
    dims = fields.pop("dims", (Dim("batch", 1, 2), Dim("length")))
    sweep = Sweep(**{"sizes": {"batch": [1, 2], "length": [5, 8]}, **fields})
    return Survey(signature=Signature(specs, (), dims), cases=cases, checks=[], noise={}, sweep=sweep)


def dimension(name: str, survey: Survey, **runs: Check | None) -> tuple[Check, list[int]]:
    checks, proven = dimension_checks(survey, runs)
    assert [c.check for c in checks] == [f"dimension:{d.name}" for d in survey.signature.dims]
    check = next(c for c in checks if c.subject == name)
    assert check.required
    assert check.numbers["proven"] == proven[name]
    canonical_json(check)
    return check, proven[name]


def test_dimensions_list_what_was_swept_and_proven(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    good = judged(cases, run())
    check, proven = dimension("length", surveyed(cases), artifact=good, MNN=good)
    assert check.status is Status.PASSED
    assert check.numbers == {"swept": [5, 8], "proven": [5, 8]}
    assert proven == [5, 8]
    assert dimension_checks(surveyed(cases, dims=()), {"MNN": good}) == ([], {})


@pytest.mark.parametrize("where", ["artifact", "MNN"])
@pytest.mark.parametrize(
    "change", [lambda i, a: a | {"y": off(a["y"])} if i == 2 else a, lambda i, a: "" if i == 2 else a]
)
def test_a_size_that_is_wrong_anywhere_fails(
    cases: list[CaseFile], run: Callable[..., RunResult], where: str, change: Any
) -> None:
    good, bad = judged(cases, run()), judged(cases, run(change))
    runs: dict[str, Check | None] = {"artifact": good, "MNN": good} | {where: bad}
    check, proven = dimension("length", surveyed(cases), **runs)
    assert check.status is Status.FAILED
    assert check.reason == f"right at 8, in {where} wrong at 5"
    assert proven == [8]
    everywhere = judged(cases, run(lambda _, a: a | {"y": off(a["y"])}))
    check, proven = dimension("batch", surveyed(cases), artifact=everywhere, MNN=everywhere)
    assert check.reason == "in artifact wrong at 1, 2; in MNN wrong at 1, 2"
    assert proven == []


@pytest.mark.parametrize(
    "idle", [None, catalog.MNN_COMPARE.not_run("no converter"), catalog.MNN_COMPARE.failed("crashed")]
)
def test_what_did_not_run_proves_no_size(
    cases: list[CaseFile], run: Callable[..., RunResult], idle: Check | None
) -> None:
    check, proven = dimension("batch", surveyed(cases), artifact=judged(cases, run()), MNN=idle)
    assert (check.status, check.reason, proven) == (Status.NOT_RUN, "not run in MNN", [])
    check, _ = dimension("batch", surveyed(cases), artifact=idle, MNN=idle)
    assert check.reason == "not run in artifact and MNN"


def test_a_declared_range_is_a_promise_that_the_source_may_not_keep(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    good = judged(cases, run())
    survey = surveyed(
        cases,
        refused={"batch": {8: "too many"}, "length": {9: "too long"}},
        dims=(Dim("batch", 1, 8), Dim("length")),
    )
    check, _ = dimension("batch", survey, artifact=good, MNN=good)
    assert check.status is Status.NOT_RUN  # the artifact is as good as the source
    assert check.reason == "declared 1:8, but the source itself refuses 8 (8: too many)"
    check, proven = dimension(
        "length", survey, artifact=good, MNN=good
    )  # nobody declared it: its limits are the source's
    assert (check.status, proven) == (Status.PASSED, [5, 8])
    assert check.numbers["refused_by_source"] == ["9: too long"]
    survey.sweep.constraints["batch"] = Constraint(most=7)
    check, proven = dimension(
        "batch", survey, artifact=good, MNN=good
    )  # what explains the refusal is stated, not a failure
    assert (check.status, proven, check.numbers["constraint"]) == (Status.PASSED, [1, 2], "batch <= 7")
    assert check.numbers["refused_by_source"] == ["8: too many"]
    survey.sweep.fits["batch"] = (1, 7)
    check, proven = dimension(
        "batch", survey, artifact=good, MNN=good
    )  # but that part of the range is not there is a broken promise
    assert (check.status, proven) == (Status.NOT_RUN, [1, 2])
    assert (
        check.reason
        == "declared 1:8, but the source itself refuses 8 (8: too many); declare the range that it takes:"
        " --dim"
        " batch=1:7"
    )


def test_declared_sizes_that_the_source_refuses_together_break_the_promise(
    cases: list[CaseFile], run: Callable[..., RunResult]
) -> None:
    good = judged(cases, run())
    for declared, status in ((True, Status.NOT_RUN), (False, Status.PASSED)):
        dims = (Dim("batch", 1, 2), Dim("length", 5, 8) if declared else Dim("length"))
        survey = surveyed(
            cases, refused_pairs=[RefusedPair({"batch": 2, "length": 8}, "too large")], dims=dims
        )
        for name in ("batch", "length"):
            check, _ = dimension(name, survey, artifact=good, MNN=good)
            assert check.status is status
            assert ("batch=2, length=8: too large" in check.reason) is declared


@pytest.mark.parametrize(
    ("dim", "sizes", "status"),
    [
        (Dim("batch"), [2], Status.NOT_RUN),
        (Dim("batch"), [], Status.NOT_RUN),
        (Dim("batch", 1, 2), [2], Status.NOT_RUN),
        (Dim("batch", 2, 2), [2], Status.PASSED),
        (Dim("batch", 2, 2), [], Status.NOT_RUN),
        (Dim("batch", 1, 2), [1, 2], Status.PASSED),
    ],
)
def test_one_size_proves_no_dimension(
    cases: list[CaseFile], run: Callable[..., RunResult], dim: Dim, sizes: list[int], status: Status
) -> None:
    good = judged(cases, run())
    check, _ = dimension(
        "batch", surveyed(cases, dims=(dim,), sizes={"batch": sizes}), artifact=good, MNN=good
    )
    assert check.status is status


def test_checks_cross_as_json(cases: list[CaseFile], run: Callable[..., RunResult]) -> None:
    for check in (
        judged(cases, run()),
        judged(cases, run(WRONG["a number"][0])),
        catalog.WEIGHTS.passed(),
        catalog.NOISE.not_run("z"),
    ):
        assert msgspec.json.decode(msgspec.json.encode(check), type=Check) == check
