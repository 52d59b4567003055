"""What a source asks of its dimensions: found by trying, stated as an app developer reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnnprep.model.constraints import Constraint, discover, sum_of
from mnnprep.model.request import make_wants
from mnnprep.model.signature import Dim
from mnnprep.reference.survey import survey
from support.fakes import Fake, refuse_unless


@given(
    st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32, 64, 128]),
    st.integers(0, 40),
    st.integers(1, 400),
    st.booleans(),
)
def test_a_modulus_and_both_ends_are_found(modulus: int, low: int, span: int, capped: bool) -> None:
    least = modulus * (1 + low)
    most = least + modulus * span if capped else None
    base = least + modulus * (span // 2)
    dim = Dim("height", 1, least + modulus * (span + 3) + 1)

    def takes(sizes: dict[str, int]) -> bool:
        size = sizes["height"]
        return size % modulus == 0 and size >= least and (most is None or size <= most)

    refused = [s for s in (dim.min, dim.max) if s is not None and not takes({"height": s})]
    if not refused:
        return
    found = discover(takes, dim, {"height": base}, [base], refused, [dim])
    if found is None:  # too few sizes beside the base on either side
        assert span < 2 * 5 or modulus * 5 > base
        return
    for size in (s for s in range(dim.min or 0, (dim.max or 0) + 1) if s % modulus == 0):
        if found.least is not None or size >= base:
            assert found.admits(size) <= takes({"height": size}) or (
                found.most is None and most is not None and size > most
            )
    assert not any(found.admits(size) for size in refused)
    assert found.admits(base)


def test_the_words() -> None:
    assert Constraint(modulus=32, least=64).words("height") == "height % 32 == 0, height >= 64"
    assert Constraint(partner="width").words("height") == "height == width"
    assert Constraint(partner="width", offset=-1, most=9).words("h") == "h <= 9, h == width - 1"
    assert Constraint().words("h") == ""


@pytest.mark.parametrize(
    ("inputs", "function", "dims", "name", "words", "sizes"),
    [
        (
            "x=float32[1,height]",
            lambda x: refuse_unless(x.shape[1] % 32 == 0) or x,
            ("height=32:640",),
            "height",
            "height % 32 == 0",
            {32, 640},
        ),
        (
            "x=float32[1,height]",
            lambda x: refuse_unless(x.shape[1] % 32 == 0) or x,
            ("height=1:640",),
            "height",
            "height % 32 == 0",
            {32, 640},
        ),
        (
            "x=float32[1,n]",
            lambda x: refuse_unless(x.shape[1] >= 7) or x,
            ("n=1:100",),
            "n",
            "n >= 7",
            {7, 100},
        ),
        (
            "x=float32[1,n]",
            lambda x: refuse_unless(x.shape[1] <= 32) or x,
            ("n=1:40",),
            "n",
            "n <= 32",
            {1, 32},
        ),
        (
            "x=float32[1,a];z=float32[1,b]",
            lambda x, z: x + z if x.shape == z.shape else refuse_unless(False),
            ("a=1:9", "b=1:9"),
            "a",
            "a == b",
            {1, 9},
        ),
        (
            "x=float32[1,height]",
            lambda x: refuse_unless(x.shape[1] % 32 == 0) or x,
            (),
            "height",
            "height % 32 == 0",
            set(),
        ),
    ],
)
def test_a_survey_states_the_constraint_and_sweeps_what_it_admits(
    inputs: str, function: Any, dims: Any, name: str, words: str, sizes: set[int]
) -> None:
    found = survey(Fake(inputs, lambda **a: np.asarray(function(**a))), make_wants(dims=dims))
    assert found.sweep.constraints[name].words(name) == words
    assert sizes <= set(found.sweep.sizes[name])
    assert len(found.sweep.sizes[name]) >= 2


@pytest.mark.parametrize(
    ("takes", "declared", "fits"),
    [
        (lambda n: n <= 16, "n=1:32", (1, 16)),
        (lambda n: n >= 7, "n=1:32", (7, 32)),
        (lambda n: 3 <= n <= 21, "n=1:32", (3, 21)),
        (lambda n: n % 32 == 0, "n=1:640", None),  # multiples are what a range leaves to the source
        (lambda n: n % 2 == 0, "n=1:33", None),
        (lambda n: n % 32 == 0 and n >= 64, "n=1:640", (64, 640)),
        (lambda n: n % 32 == 0 and n >= 64, "n=32:640", (64, 640)),
        (lambda n: n % 2 == 0 and n <= 16, "n=1:32", (1, 16)),
        (lambda n: n != 23, "n=5:40", (5, 22)),
        (lambda n: True, "n=1:32", None),
    ],
)
def test_the_part_of_a_declared_range_that_fits_is_found(takes: Any, declared: str, fits: Any) -> None:
    def net(x: Any) -> Any:
        refuse_unless(takes(x.shape[1]))
        return x

    wants = make_wants(dims=(declared,))
    found = survey(Fake("x=float32[1,n]", net), wants)
    assert found.sweep.fits.get("n") == fits
    if fits is not None:  # and the range that is offered is one that it takes
        again = survey(Fake("x=float32[1,n]", net), make_wants(dims=(f"n={fits[0]}:{fits[1]}",)))
        assert "n" not in again.sweep.fits
    open_ = survey(Fake("x=float32[1,n]", net), make_wants())
    assert open_.sweep.fits == {}


def test_what_nothing_simple_explains_has_no_constraint() -> None:
    found = survey(
        Fake("x=float32[n]", lambda x: refuse_unless(x.shape[0] in (5, 16, 17, 40)) or x),
        make_wants(dims=("n=5:40",)),
    )
    assert found.sweep.constraints == {}
    assert 23 in found.sweep.refused["n"]


def test_two_dimensions_are_moved_together() -> None:
    found = survey(Fake("x=float32[a,b]", lambda x: x), make_wants(dims=("a=1:9", "b=1:9")))
    base = found.cases[0].dims
    assert any(c.dims["a"] != base["a"] and c.dims["b"] != base["b"] for c in found.cases)
    area = survey(
        Fake("x=float32[a,b]", lambda x: refuse_unless(x.size <= 90) or x),
        make_wants(dims=("a=9:20", "b=4:10")),
    )
    assert area.sweep.refused_pairs == [] or "a" in area.sweep.refused_pairs[0].sizes


def test_a_sum_of_two_others_is_found() -> None:
    dims = [Dim("total", 2, 10), Dim("new", 1, 4), Dim("past", 1, 6)]
    base = {"total": 8, "new": 3, "past": 5}
    assert sum_of(lambda s: s["total"] == s["new"] + s["past"], dims[0], base, dims) == "new+past"
    assert not sum_of(lambda _: True, dims[0], base, dims)
    assert not sum_of(lambda s: s["total"] == s["new"] + 5, dims[0], base, dims)
