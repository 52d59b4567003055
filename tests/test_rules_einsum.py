"""Einsum: which equations MNN gets wrong, and what is written in their place, at open sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from evaluation.nets.mnn_models import node
from mnnprep.repair.arithmetic.einsum_forms import RULE, _fault
from mnnprep.repair.support.products import Equation
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.rewriting import Arrays, build, close, reference, repaired, through_mnn

SIZES = {"a": 2, "b": 3, "c": 1, "d": 4, "w": 5, "x": 2, "y": 3, "z": 1}
WRONG = (
    "abc,abw->awc",  # the last two axes are exchanged
    "acb,awb->awc",
    "bchi,bchj->bhij",
    "bnid,bijd->bnij",
    "ab,xb->a",
    "ab,w->ab",
    "ab,cb->",
    "ab,ba->",
)
RIGHT = ("bhid,bhjd->bhij", "bhij,bhjd->bhid", "bqhd,bkhd->bhqk", "ab,bc->ac", "ab,cb->ca", "a,b->ab")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(Worker("test", ("numpy", "MNN", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


def einsum(equation: str, shapes: list[list[Any]], opset: int = 13) -> Any:
    names = [f"i{number}" for number in range(len(shapes))]
    inputs = [(name, TensorProto.FLOAT, shape) for name, shape in zip(names, shapes, strict=True)]
    outputs = [("result", TensorProto.FLOAT, None)]
    return build([node("Einsum", names, ["result"], equation=equation)], inputs, outputs, opset=opset)


def open_shapes(equation: str) -> list[list[str]]:
    return [list(term) for term in equation.partition("->")[0].split(",")]


def feeds(shapes: list[list[Any]], sizes: dict[str, int]) -> Arrays:
    random = np.random.default_rng(5)
    return {
        f"i{number}": random.standard_normal([sizes.get(s, s) for s in shape]).astype(np.float32)
        for number, shape in enumerate(shapes)
    }


def sizes_of(equation: str, less: int = 0) -> dict[str, int]:
    letters = sorted({letter for letter in equation if letter.isalpha()})
    return {letter: max(1, 2 + (place + less) % 4 - less) for place, letter in enumerate(letters)}


@pytest.mark.parametrize("equation", WRONG)
def test_what_mnn_gets_wrong_is_written_out(equation: str, tmp_path: Path, host: Host) -> None:
    shapes = open_shapes(equation)
    model = einsum(equation, shapes)
    tried = [feeds(shapes, sizes_of(equation, less)) for less in (0, 1)]
    expected = [{"result": np.einsum(equation, *feed.values())} for feed in tried]
    assert not close(through_mnn(host, model, tried, tmp_path / "before"), expected, 1e-4)
    after, done = repaired(model, tmp_path / "repair", RULE.name)
    assert done.fired
    assert close(reference(after, tried), expected, 1e-5)
    assert close(through_mnn(host, after, tried, tmp_path / "after"), expected, 1e-4)


@pytest.mark.parametrize("equation", RIGHT)
def test_what_mnn_gets_right_stays(equation: str, tmp_path: Path, host: Host) -> None:
    shapes = open_shapes(equation)
    model = einsum(equation, shapes)
    assert not repaired(model, tmp_path / "repair", RULE.name)[1].fired
    tried = [feeds(shapes, sizes_of(equation))]
    assert close(through_mnn(host, model, tried, tmp_path / "as-it-is"), reference(model, tried), 1e-4)


@pytest.mark.slow
def test_every_equation_of_three_and_three_axes_is_wrong_or_right_as_the_rule_says(
    tmp_path: Path, host: Host
) -> None:
    orders = [["".join(order) for order in itertools.permutations(term)] for term in ("abc", "abw", "acw")]
    for left, right, result in itertools.product(*orders):
        equation = f"{left},{right}->{result}"
        shapes = open_shapes(equation)
        model, tried = einsum(equation, shapes), [feeds(shapes, sizes_of(equation))]
        found = through_mnn(host, model, tried, tmp_path / equation)
        assert close(found, reference(model, tried), 1e-4) == (not _fault(Equation.parse(equation))), equation


@st.composite
def equations(draw: st.DrawFn) -> str:
    """Equations of two operands that a rewrite may be asked for."""
    left = draw(
        st.permutations("abcd").map("".join).flatmap(lambda t: st.integers(1, 4).map(lambda n: t[:n]))
    )
    shared = draw(st.lists(st.sampled_from(left), unique=True))
    own = draw(st.lists(st.sampled_from("wxy"), unique=True, min_size=0 if shared else 1, max_size=2))
    right = "".join(draw(st.permutations(shared + own)))
    letters = sorted({*left, *right})
    kept = draw(st.lists(st.sampled_from(letters), unique=True))
    return f"{left},{right}->{''.join(kept)}"


@given(equations())
def test_the_product_is_the_einsum(tmp_path_factory: pytest.TempPathFactory, equation: str) -> None:
    """Whatever the equation: those that the rule leaves alone would be right as well."""
    shapes = open_shapes(equation)
    model = einsum(equation, shapes)
    after, done = repaired(model, tmp_path_factory.mktemp("einsum") / "x", RULE.name)
    tried = [feeds(shapes, SIZES)]
    assert close(reference(after, tried), [{"result": np.einsum(equation, *tried[0].values())}], 1e-4)
    assert bool(done.fired) == bool(_fault(Equation.parse(equation)))


@pytest.mark.parametrize("shapes", [[[4, "n", 6], [2, 1, "n", 3]], [["b", "n", 6], ["b", "n", 3]]])
def test_an_ellipsis_broadcasts(shapes: list[list[Any]], tmp_path: Path, host: Host) -> None:
    model = einsum("...nd,...ng->...gd", shapes)
    tried = [feeds(shapes, {"b": 2, "n": 5})]
    expected = [{"result": np.einsum("...nd,...ng->...gd", *tried[0].values())}]
    assert not close(through_mnn(host, model, tried, tmp_path / "before"), expected, 1e-4)
    after, done = repaired(model, tmp_path / "repair", RULE.name)
    assert done.fired
    assert close(through_mnn(host, after, tried, tmp_path / "after"), expected, 1e-4)


def test_three_operands_of_open_sizes(tmp_path: Path, host: Host) -> None:
    equation = "bi,ij,bj->b"
    shapes = open_shapes(equation)
    after, done = repaired(einsum(equation, shapes), tmp_path / "repair", RULE.name)
    tried = [feeds(shapes, {"b": 3, "i": 4, "j": 5})]
    expected = [{"result": np.einsum(equation, *tried[0].values())}]
    assert done.fired
    assert close(through_mnn(host, after, tried, tmp_path / "after"), expected, 1e-4)


def test_a_diagonal_of_open_sizes_is_left_to_its_hazard(tmp_path: Path) -> None:
    model = einsum("ii->i", [["n", "n"]])
    assert not repaired(model, tmp_path / "repair", RULE.name)[1].fired


def test_an_equation_without_a_result_has_what_occurs_once() -> None:
    assert Equation.parse("b...j, ...a j") == Equation(("b...j", "...aj"), "...ab")
    assert Equation.parse("ii") == Equation(("ii",), "")
