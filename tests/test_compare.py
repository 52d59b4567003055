"""Comparing outputs: an oracle written the long way, and every way of being wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnnprep.comparison.tolerance import (
    ABSOLUTE,
    CASE_SLACK_DB,
    CEILING,
    RELATIVE,
    WIDENING,
    Tolerance,
    compare_output,
    compare_outputs,
)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
FLOATS = st.floats(width=32, allow_subnormal=False)
FINITE = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
NOISE = st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 1.0])


def floats(values: st.SearchStrategy[float] = FLOATS) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float32, SHAPES, elements=values)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """A reference and something near it: a few elements moved by about the tolerance, or made non-finite."""
    reference = draw(floats())
    actual = reference.copy()
    peak = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
    for _ in range(draw(st.integers(0, 3)) if reference.size else 0):
        place = draw(st.integers(0, reference.size - 1))
        step = draw(st.sampled_from([1e-7, 5e-5, 1e-4, 1.1e-3, 0.01, 2.0])) * draw(st.sampled_from([-1, 1]))
        with np.errstate(over="ignore"):
            moved = np.float32(
                float(actual.flat[place])
                + step * draw(st.sampled_from([peak, abs(float(actual.flat[place]))]))
            )
        actual.flat[place] = draw(
            st.sampled_from([moved, moved, moved, np.float32("nan"), np.float32("inf")])
        )
    return reference, actual


def oracle(reference: Any, actual: Any, noise: float) -> bool:
    """Whether the two agree, element by element, in plain Python floats."""
    finite = [abs(float(r)) for r in reference.flat if math.isfinite(r)]
    peak = max(finite, default=0.0)
    floor = min(max(ABSOLUTE * peak, WIDENING * noise), CEILING * peak)
    for r, a in zip(map(float, reference.flat), map(float, actual.flat), strict=True):
        if math.isnan(r) or math.isnan(a):
            if not (math.isnan(r) and math.isnan(a)):
                return False
        elif math.isinf(r) or math.isinf(a):
            if r != a:
                return False
        elif abs(r - a) > floor + RELATIVE * abs(r):
            return False
    return True


@settings(max_examples=400)
@given(pairs(), NOISE)
def test_agrees_with_the_definition(pair: tuple[Any, Any], noise: float) -> None:
    reference, actual = pair
    found = compare_output("y", 0, reference, actual, Tolerance(noise={"y": noise}))
    assert (not found.problem) == oracle(reference, actual, noise), found
    if not found.problem:
        assert found.excess is not None
        assert found.excess <= 1


@given(floats(FINITE), st.data(), st.floats(1.01, 1e6), NOISE)
def test_one_element_beyond_the_tolerance_never_passes(
    reference: Any, data: st.DataObject, factor: float, noise: float
) -> None:
    assume(reference.size)
    tolerance = Tolerance(noise={"y": noise})
    reference = reference.astype(np.float64)
    place = data.draw(st.integers(0, reference.size - 1))
    limit = float(tolerance.threshold("y", reference, 0).flat[place])
    assume(limit > 1e-30)
    actual = reference.copy()
    actual.flat[place] += factor * limit
    found = compare_output("y", 0, reference, actual, tolerance)
    assert found.excess == pytest.approx(factor, rel=1e-3)
    assert found.problem.startswith(
        f"differs beyond the tolerance, most at {[int(i) for i in np.unravel_index(place, reference.shape)]}"
    )


@given(floats(FINITE))
def test_the_figures_are_those_of_their_definitions(reference: Any) -> None:
    actual = (reference * np.float32(1.0004) + np.float32(1e-3)).astype(np.float32)
    found = compare_output("y", 3, reference, actual, Tolerance())
    ref, act = reference.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    assert (found.output, found.case) == ("y", 3)
    assert found.max_abs == pytest.approx(np.abs(ref - act).max(initial=0.0))
    assert found.max_rel == pytest.approx(
        max((abs(r - a) / abs(r) for r, a in zip(ref, act, strict=True) if r), default=0.0)
    )
    if np.any(ref) and np.any(act):
        assert found.cosine == pytest.approx(np.dot(ref, act) / np.linalg.norm(ref) / np.linalg.norm(act))
        assert found.sqnr_db == pytest.approx(
            10 * math.log10(np.square(ref).sum() / np.square(ref - act).sum())
        )


@given(floats())
def test_an_array_equals_itself(reference: Any) -> None:
    found = compare_output("y", 0, reference, reference.copy(), Tolerance())
    assert (found.problem, found.max_abs, found.max_rel, found.excess, found.sqnr_db) == (
        "",
        0.0,
        0.0,
        0.0,
        None,
    )


@given(pairs(), NOISE)
def test_every_figure_can_be_written_as_json(pair: tuple[Any, Any], noise: float) -> None:
    for tolerance in (Tolerance(noise={"y": noise}), Tolerance(sqnr_db=50.0)):
        found = compare_output("y", 0, *pair, tolerance)
        figures = (found.max_abs, found.max_rel, found.cosine, found.sqnr_db, found.excess)
        assert all(f is None or math.isfinite(f) for f in figures), found


@pytest.mark.parametrize(
    ("reference", "limit"),
    [
        (0.0, 1e-4 * 8),  # the absolute part alone: of the largest magnitude
        (2.0, 1e-4 * 8 + 1e-3 * 2),
        (-8.0, 1e-4 * 8 + 1e-3 * 8),
    ],
)
def test_the_boundary_of_the_formula(reference: float, limit: float) -> None:
    ref = np.array([-8.0, reference, np.inf])
    for factor, right in ((0.999, True), (1.001, False)):
        actual = np.array([-8.0, reference + factor * limit, np.inf])
        assert (not compare_output("y", 0, ref, actual, Tolerance()).problem) is right


@pytest.mark.parametrize(
    ("noise", "floor"), [(0.0, 1e-4), (5e-6, 1e-4), (2e-5, 2e-4), (5e-4, 5e-3), (1e-3, 1e-2), (1.0, 1e-2)]
)
def test_noise_widens_and_the_ceiling_holds(noise: float, floor: float) -> None:
    tolerance = Tolerance(noise={"y": noise, "z": 1.0})
    assert tolerance.threshold("y", np.array([1.0, 0.0]), 0).tolist() == pytest.approx([floor + 1e-3, floor])
    assert tolerance.lost_in_noise("y", np.array([1.0, 0.0]), 0) is (10 * noise > 1e-2)


def test_every_case_has_its_own_floor() -> None:
    reference, moved = np.array([1.0, 0.0]), np.array([1.0, 2e-3])
    tolerance = Tolerance(noise={"y": [1e-6, 5e-4, None, 1.0]})
    assert [not compare_output("y", case, reference, moved, tolerance).problem for case in range(5)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert [tolerance.lost_in_noise("y", reference, case) for case in range(5)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert not tolerance.lost_in_noise("y", np.zeros(2), 3)
    assert tolerance.largest_noise() == {"y": 1.0}


def test_what_is_beyond_the_noise_is_told_without_a_ceiling_or_an_sqnr() -> None:
    reference = np.array([1.0, 0.0])
    tolerance = Tolerance(noise={"y": [0.1]}, sqnr_db=50.0).beyond_noise()
    assert not compare_output("y", 0, reference, np.array([1.0, 0.9]), tolerance).problem
    assert compare_output("y", 0, reference, np.array([1.0, 1.1]), tolerance).problem


def test_a_constant_zero_allows_nothing() -> None:
    assert not compare_output("y", 0, np.zeros(3, "f4"), np.zeros(3, "f4"), Tolerance()).problem
    found = compare_output(
        "y", 0, np.zeros(3, "f4"), np.array([0, 1e-30, 0], "f4"), Tolerance(noise={"y": 1.0})
    )
    assert found.problem
    assert found.excess == 1e300


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_stand_at_the_same_places(value: float) -> None:
    reference = np.array([[1.0, value], [2.0, 3.0]], "f4")
    assert not compare_output("y", 0, reference, reference.copy(), Tolerance()).problem
    for wrong in (
        [[1.0, 9.0], [2.0, 3.0]],
        [[value, 1.0], [2.0, 3.0]],
        [[1.0, value], [2.0, value]],
        [[1.0, 3e38], [2.0, 3.0]],
    ):
        assert (
            "at other places" in compare_output("y", 0, reference, np.array(wrong, "f4"), Tolerance()).problem
        )
    if np.isinf(value):
        assert compare_output(
            "y", 0, reference, np.array([[1.0, -value], [2.0, 3.0]], "f4"), Tolerance()
        ).problem


def test_an_error_beside_a_non_finite_value_is_found_at_its_place() -> None:
    reference = np.array([[np.nan, 1.0], [np.inf, 2.0]], "f4")
    actual = np.array([[np.nan, 1.0], [np.inf, 3.0]], "f4")
    assert "most at [1, 1]" in compare_output("y", 0, reference, actual, Tolerance()).problem


@pytest.mark.parametrize(
    ("reference", "actual"),
    [((2, 3), (3, 2)), ((2, 3), (6,)), ((1,), ()), ((0, 3), (0, 4)), ((1, 2), (2,)), ((2, 1), (2, 2))],
)
def test_another_shape_is_a_problem_also_where_it_broadcasts(
    reference: tuple[int, ...], actual: tuple[int, ...]
) -> None:
    found = compare_output("y", 0, np.ones(reference, "f4"), np.ones(actual, "f4"), Tolerance())
    assert found.problem == f"shape {list(actual)}, but the reference has {list(reference)}"


@pytest.mark.parametrize("dtype", ["f4", "f2", "i8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_scalars_and_empty_arrays(dtype: str, shape: tuple[int, ...]) -> None:
    assert not compare_output("y", 0, np.ones(shape, dtype), np.ones(shape, dtype), Tolerance()).problem
    if not shape:
        assert compare_output("y", 0, np.ones(shape, dtype), np.zeros(shape, dtype), Tolerance()).problem


@pytest.mark.parametrize(
    ("reference", "actual"),
    [("f4", "f8"), ("f4", "f2"), ("i8", "i4"), ("i4", "f4"), ("?", "u1"), ("u1", "i1")],
)
def test_another_dtype_is_a_problem_unless_it_is_the_stated_narrowing(reference: str, actual: str) -> None:
    ref, act = np.ones(3, reference), np.ones(3, actual)
    found = compare_output("y", 0, ref, act, Tolerance())
    assert found.problem == f"dtype {act.dtype}, but the reference has {ref.dtype}"
    assert not compare_output("y", 0, ref, act, Tolerance(), narrowed=act.dtype.name).problem
    other = "int16" if act.dtype != np.int16 else "int8"
    assert compare_output("y", 0, ref, act, Tolerance(), narrowed=other).problem
    assert compare_output(
        "y", 0, ref, ref.copy(), Tolerance(), narrowed=act.dtype.name
    ).problem  # and it is really narrowed


def test_a_value_that_narrowing_can_not_hold_is_a_problem() -> None:
    big = np.array([1, 2**31 + 7, -(2**40)], "i8")
    assert compare_output("y", 0, big, big.astype("i4"), Tolerance(), narrowed="int32").problem
    huge = np.array([1.0, 1e300])
    with np.errstate(over="ignore"):
        narrow = huge.astype("f4")
    assert (
        "+inf at other places"
        in compare_output("y", 0, huge, narrow, Tolerance(), narrowed="float32").problem
    )


@pytest.mark.parametrize(
    ("reference", "actual"),
    [
        (np.array([True, False]), np.array([2, 0], "i4")),  # true only by way of a cast
        (np.array([3, 4]), np.array([3.9, 4.0], "f4")),  # equal only once cut off
        (np.array([2**53 + 1]), np.array([2.0**53], "f8")),  # equal only once rounded
        (np.array([255], "u1"), np.array([-1], "i4")),  # equal only once wrapped
    ],
)
def test_a_cast_does_not_make_numbers_equal(reference: Any, actual: Any) -> None:
    assert compare_output("y", 0, reference, actual, Tolerance(), narrowed=actual.dtype.name).problem


@given(
    st.sampled_from(["i8", "i4", "u1", "?", "u8"]).flatmap(
        lambda t: hnp.arrays(t, hnp.array_shapes(min_side=1, max_side=4))
    ),
    st.data(),
)
def test_integers_and_booleans_are_exact(reference: Any, data: st.DataObject) -> None:
    tolerance = Tolerance(noise={"y": 1e9})
    assert not compare_output("y", 0, reference, reference.copy(), tolerance).problem
    actual = reference.copy()
    place = data.draw(st.integers(0, reference.size - 1))
    actual.flat[place] = (
        not actual.flat[place]
        if reference.dtype == bool
        else actual.flat[place] ^ type(actual.flat[place])(1)
    )
    found = compare_output("y", 0, reference, actual, tolerance)
    assert found.problem == f"1 of {reference.size} elements differ; integers and booleans must be equal"


@pytest.mark.parametrize("required", [30.0, 50.0])
def test_the_signal_to_noise_ratio_decides_where_it_is_asked_for(required: float) -> None:
    """In one case with some slack; over all cases `compare_run` decides without."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(4096)
    noise = rng.standard_normal(4096)
    for gap, right in ((0.1, True), (-0.1, False)):
        scale = math.sqrt(
            np.square(reference).sum()
            / np.square(noise).sum()
            / 10 ** ((required - CASE_SLACK_DB + gap) / 10)
        )
        found = compare_output("y", 0, reference, reference + noise * scale, Tolerance(sqnr_db=required))
        assert found.sqnr_db == pytest.approx(required - CASE_SLACK_DB + gap)
        assert (not found.problem) is right
        assert found.excess == pytest.approx(10 ** (-gap / 20))
    assert not compare_output("y", 0, reference, reference.copy(), Tolerance(sqnr_db=required)).problem
    assert compare_output(
        "y", 0, np.zeros(4), np.full(4, 1e-20), Tolerance(sqnr_db=required)
    ).problem  # no signal, some noise


@pytest.mark.parametrize("magnitude", [1e-200, 1e200, 1e308])
def test_squares_that_leave_the_range_of_a_float_hide_no_difference(magnitude: float) -> None:
    reference = np.array([1.0, -0.5, 0.25]) * magnitude
    for tolerance in (Tolerance(), Tolerance(sqnr_db=50.0)):
        assert not compare_output("y", 0, reference, reference * (1 + 1e-5), tolerance).problem
        found = compare_output("y", 0, reference, reference * 0.9, tolerance)
        assert found.problem
        assert found.sqnr_db == pytest.approx(20.0)
        assert found.cosine == pytest.approx(1.0)


def test_a_missing_and_a_surplus_output_are_problems() -> None:
    one, two = np.ones(2, "f4"), np.zeros(3, "i8")
    assert [
        e.problem for e in compare_outputs(0, {"a": one, "b": two}, {"b": two, "a": one}, Tolerance())
    ] == ["", ""]
    found = compare_outputs(5, {"a": one, "b": two}, {"a": one, "c": two}, Tolerance())
    assert [(e.output, e.case, e.problem) for e in found] == [
        ("a", 5, ""),
        ("b", 5, "the output is missing"),
        ("c", 5, "an output the reference does not have"),
    ]
    assert compare_outputs(0, {}, {}, Tolerance()) == []


def test_only_the_output_that_is_named_may_be_narrowed() -> None:
    wide, narrow = np.arange(3), np.arange(3, dtype="i4")
    found = compare_outputs(
        0, {"a": wide, "b": wide}, {"a": narrow, "b": narrow}, Tolerance(), {"a": "int32"}
    )
    assert [bool(e.problem) for e in found] == [False, True]
