"""Judging a net that rounds: what borders of steps explain, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from mnnprep.comparison.steps import Array, StepTally, between_kernels, steps_off
from mnnprep.comparison.tolerance import Tolerance, compare_output
from mnnprep.model.steps import Step

STORED = Step(1.0)


def reference(count: int = 2000) -> Array:
    return np.clip(np.round(np.random.default_rng(0).normal(0, 40, count)), -128, 127).astype(np.int8)


def problems(actual: Array, step: Step = STORED) -> list[str]:
    tally = StepTally(step)
    tally.add(reference(), steps_off(step, reference(), actual, np.zeros(())))
    return tally.problems()


def flipped(share: float, seed: int = 1) -> Array:
    """The reference with a *share* of its elements a step off, in either direction."""
    random = np.random.default_rng(seed)
    off = random.choice([-1, 1], 2000) * (random.random(2000) < share)
    return reference().astype(int) + off


class TestWhatABorderExplains:
    def test_the_same(self) -> None:
        assert not problems(reference())

    def test_a_few_elements_a_step_off(self) -> None:
        assert not problems(flipped(0.04))

    def test_as_many_as_the_sources_own_kernels(self) -> None:
        assert problems(flipped(0.3))
        assert not problems(flipped(0.3), between_kernels(1.0, [(reference(), flipped(0.2, seed=2))]))


class TestWhatItDoesNot:
    def test_a_scale_two_percent_off(self) -> None:
        assert any("of the reference off" in p for p in problems(np.round(reference() * 1.02)))

    def test_a_scale_two_percent_off_where_kernels_differ(self) -> None:
        noisy = between_kernels(1.0, [(reference(), flipped(0.3, seed=2))])
        assert any("of the reference off" in p for p in problems(np.round(reference() * 1.02), noisy))

    def test_a_zero_point_one_off(self) -> None:
        assert any("on average" in p for p in problems(reference().astype(int) + 1))

    def test_many_elements_a_step_off(self) -> None:
        assert any("a step off or more" in p for p in problems(flipped(0.15)))

    def test_many_in_one_case_of_many(self) -> None:
        tally = StepTally(STORED)
        for _ in range(20):
            tally.add(reference(), np.zeros(2000))
        tally.add(reference(), flipped(0.3) - reference().astype(float))
        assert any("of 2000 elements" in p for p in tally.problems())

    @pytest.mark.parametrize("dtype", [np.int8, np.float32])
    def test_one_element_many_steps_off(self, dtype: type) -> None:
        one = reference().astype(dtype)
        other = one.copy()
        other[7] -= 5
        tolerance = Tolerance(steps={"y": STORED})
        assert "steps off at [7]" in compare_output("y", 0, one, other, tolerance).problem
        assert not compare_output("y", 0, one, one.copy(), tolerance).problem


def test_an_output_without_a_scale_is_judged_in_steps_of_its_range() -> None:
    values = np.linspace(-1, 1, 101).astype(np.float32)
    off = steps_off(Step(0.0), values, values + np.float32(2 / 255), np.zeros(()))
    np.testing.assert_allclose(off, 1, atol=1e-3)


def test_wide_integers_have_the_tolerance_of_floats() -> None:
    """A step of 16 bits is smaller than what float32 may be off."""
    one = np.array([32000, -20000, 5], np.int16)
    tolerance = Tolerance(steps={"y": STORED})
    assert not tolerance.off("y", one, one + np.int16(3)).any()
    assert tolerance.off("y", one, one + np.int16(100)).all()


def test_no_shape_or_dtype_is_excused() -> None:
    tolerance = Tolerance(steps={"y": STORED})
    one = reference()
    assert "shape" in compare_output("y", 0, one, one[:-1], tolerance).problem
    assert "dtype" in compare_output("y", 0, one, one.astype(np.int32), tolerance).problem
