"""What the user types: read as it says in the help, or refused in one message with exit code 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnnprep.errors import EXIT_USAGE, UsageError
from mnnprep.model.request import Request, make_wants, parse_factory_args, parse_size
from mnnprep.model.signature import (
    DTYPES,
    Dim,
    Signature,
    TensorSpec,
    dim_names,
    is_named,
    named,
    parse_dim,
    parse_input,
    parse_range,
)

# Names as graphs have them: slashes, colons, dots, spaces within, an equals sign.
NAMES = st.text(st.sampled_from("abz_/.:0=- ü"), min_size=1, max_size=8).map(str.strip).filter(bool)
DIM_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,6}", fullmatch=True).filter(is_named)
SIZES = st.integers(1, 2**31 - 1)
SPECS = st.builds(
    TensorSpec, NAMES, st.sampled_from(DTYPES), st.lists(SIZES | DIM_NAMES, max_size=5).map(tuple)
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
READERS: dict[str, Callable[[str], Any]] = {
    "input": parse_input,
    "dim": parse_dim,
    "range": parse_range,
    "size": parse_size,
    "argument": lambda t: parse_factory_args((t,)),
}


def refusal(read: Callable[..., Any], *args: Any, **options: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(*args, **options)
    error = caught.value
    assert error.exit_code == EXIT_USAGE == 2
    assert error.what
    assert error.next
    assert "\n" not in error.what
    return error


@given(SPECS)
def test_an_input_is_read_as_it_is_written(spec: TensorSpec) -> None:
    assert parse_input(str(spec)) == spec


@given(SPECS)
def test_spaces_do_not_matter(spec: TensorSpec) -> None:
    assert parse_input(f"  {spec.name} ={spec.dtype}[ {' , '.join(map(str, spec.shape))} ]\n") == spec


@given(NAMES, SIZES, SIZES)
def test_a_dimension_is_read_as_it_is_written(name: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    dim = parse_dim(f"{name}={low}:{high}")
    assert dim == Dim(name, low, high)
    assert dim.declared
    assert [dim.admits(s) for s in (low - 1, low, high, high + 1)] == [False, True, True, False]
    if low != high:
        refusal(parse_dim, f"{name}={high}:{low}")


@given(NAMES, NUMBERS, NUMBERS)
def test_a_range_is_read_as_it_is_written(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert parse_range(f"{name}={low!r}:{high!r}") == (name, (low, high))
    if low < high:
        refusal(parse_range, f"{name}={high!r}:{low!r}")


@settings(max_examples=500)
@given(
    st.sampled_from(sorted(READERS)),
    st.text(st.sampled_from("ax=[],:0123.-+einfKMGB²٣½ \n\x00_")) | st.text(),
)
def test_no_text_ends_in_anything_but_a_value_or_a_usage_error(kind: str, text: str) -> None:
    try:
        value = READERS[kind](text)
    except UsageError:
        return
    msgspec.json.encode(value)  # what was read can be sent to a worker


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x=float32[batch,3,224,224]", TensorSpec("x", "float32", ("batch", 3, 224, 224))),
        ("x=float32[]", TensorSpec("x", "float32", ())),
        ("serving_default/x:0=int64[1]", TensorSpec("serving_default/x:0", "int64", (1,))),
        ("a=b=bool[n.1]", TensorSpec("a=b", "bool", ("n.1",))),
    ],
)
def test_inputs(text: str, spec: TensorSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "could not be read"),
        ("x", "could not be read"),
        ("x=float32", "could not be read"),
        ("=float32[1]", "could not be read"),
        ("x=[1]", "could not be read"),
        ("x=float32[1", "could not be read"),
        ("x=float32[1]]", "could not be read"),
        ("x=float32[[1]]", "could not be read"),
        ("x=Float32[1]", "could not be read"),
        ("float32[1]", "could not be read"),
        ("x:float32[1]", "could not be read"),
        ("x=float33[1]", "unknown dtype float33"),
        ("x=bfloat16[1]", "unknown dtype bfloat16"),
        ("x=string[1]", "unknown dtype string"),
        ("x=float32[1,]", "the dimension ''"),
        ("x=float32[,]", "the dimension ''"),
        ("x=float32[-2]", "the dimension '-2'"),
        ("x=float32[??]", "the dimension '??'"),
        ("x=float32[1.5]", "the dimension '1.5'"),
        ("x=float32[1x3]", "the dimension '1x3'"),
        ("x=float32[²]", "the dimension '²'"),
        ("x=float32[0,3]", "a dimension of size 0"),
        ("x=float32[00]", "a dimension of size 00"),
        ("x=float32[2147483648]", "a dimension of size 2147483648"),
        (f"x=float32[{'9' * 5000}]", "a dimension of size 999"),
    ],
)
def test_inputs_that_are_wrong(text: str, what: str) -> None:
    error = refusal(parse_input, text)
    assert what in error.what
    assert error.seen == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "could not be read"),
        ("batch", "could not be read"),
        ("batch=", "could not be read"),
        ("batch=8", "could not be read"),
        ("=1:8", "could not be read"),
        (" =1:8", "could not be read"),
        ("batch=1:", "could not be read"),
        ("batch=:8", "could not be read"),
        ("batch=1:8:9", "could not be read"),
        ("batch=1.0:8", "could not be read"),
        ("batch=-1:8", "could not be read"),
        ("batch=1:²", "could not be read"),
        ("batch=0:8", "a dimension of size 0"),
        ("batch=1:99999999999", "a dimension of size 99999999999"),
        ("batch=8:1", "empty range"),
    ],
)
def test_dimensions_that_are_wrong(text: str, what: str) -> None:
    assert what in refusal(parse_dim, text).what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "could not be read"),
        ("x", "could not be read"),
        ("x=0", "could not be read"),
        ("=0:1", "could not be read"),
        ("x=a:1", "could not be read"),
        ("x=0:1:2", "could not be read"),
        ("x=0:", "could not be read"),
        ("x=1:0", "empty or not finite"),
        ("x=nan:1", "empty or not finite"),
        ("x=0:nan", "empty or not finite"),
        ("x=0:inf", "empty or not finite"),
        ("x=-inf:0", "empty or not finite"),
        ("x=0:1e999", "empty or not finite"),
    ],
)
def test_ranges_that_are_wrong(text: str, what: str) -> None:
    assert what in refusal(parse_range, text).what


def test_wants_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wants = make_wants(
        ("x=float32[batch,3]", "y=int64[batch]"), ("batch=1:8",), ("x=0:1", "y=0:5"), "real.npz", 7
    )
    assert [s.name for s in wants.inputs] == ["x", "y"]
    assert wants.dims == (Dim("batch", 1, 8),)
    assert wants.ranges == {"x": (0, 1), "y": (0, 5)}
    assert (wants.samples, wants.seed) == (str(tmp_path / "real.npz"), 7)
    assert msgspec.json.decode(msgspec.json.encode(wants), type=type(wants)) == wants
    assert make_wants() == Request(source="x").wants
    assert make_wants(dims=("batch=1:8",)).dims  # the shapes are the file's to say


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"inputs": ("x=float32[1]", "y=float32[1]", "x=float32[2]")}, "--input is given twice for x"),
        ({"dims": ("b=1:2", "b=1:3")}, "--dim is given twice for b"),
        ({"ranges": ("x=0:1", "x=0:1")}, "--range is given twice for x"),
        ({"inputs": ("x=float32[b]",), "dims": ("c=1:2",)}, "--dim names c, which no --input has"),
        ({"inputs": ("x=float32[4]",), "dims": ("x=1:2",)}, "--dim names x, which no --input has"),
        ({"inputs": ("x",)}, "an --input could not be read"),
        ({"seed": -1}, "a seed is below 0"),
    ],
)
def test_wants_that_contradict_themselves(options: dict[str, Any], what: str) -> None:
    assert refusal(make_wants, **options).what == what


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), st.text(max_size=6), max_size=3)
)
def test_factory_arguments(arguments: dict[str, str]) -> None:
    assert parse_factory_args(tuple(f"{k}={v}" for k, v in arguments.items())) == arguments


@pytest.mark.parametrize(
    "texts", [("",), ("classes",), ("=10",), ("1=2",), ("a b=1",), ("a.b=1",), ("a=1", "a=2")]
)
def test_factory_arguments_that_are_wrong(texts: tuple[str, ...]) -> None:
    assert "--factory-arg" in refusal(parse_factory_args, texts).what


@given(
    st.integers(0, 2**20),
    st.sampled_from(["", "K", "M", "G", "T"]),
    st.sampled_from(["", "B", "iB"]),
    st.booleans(),
)
def test_sizes(number: int, unit: str, suffix: str, lower: bool) -> None:
    text = f" {number}{unit}{suffix} "
    assert parse_size(text.lower() if lower else text) == number * 1024 ** " KMGT".index(unit or " ")


@pytest.mark.parametrize(
    ("text", "size"), [("1.5G", 3 * 2**29), ("2 GB", 2**31), ("0", 0), ("1e3", 1000), ("0.5KiB", 512)]
)
def test_sizes_with_fractions(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "GB",
        "big",
        "2X",
        "2GBB",
        "--1",
        "nan",
        "inf",
        "1e999",
        "1e999K",
        "-1",
        "-2GB",
        "1,5G",
        "2G 3",
    ],
)
def test_sizes_that_are_wrong(text: str) -> None:
    assert refusal(parse_size, text).seen == text


def test_a_signature_knows_its_dimensions() -> None:
    specs = (TensorSpec("x", "float32", ("b", 3, "h")), TensorSpec("y", "int64", ("h", "b", "k")))
    assert dim_names(specs) == ("b", "h", "k")
    assert specs[1].sizes({"b": 1, "h": 2, "k": 3}) == (2, 1, 3)
    with pytest.raises(KeyError):
        specs[0].sizes({"b": 1})
    assert Signature(specs, (), (Dim("h", 1, 2),)).dim("h").max == 2
    assert not Signature(specs).dim("h").declared
    assert Dim("h").admits(10**9)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    named("input", "x", ["x"], "--input")
    assert "inputs of this model: x, y" in refusal(named, "input", "z", ["x", "y"], "--input").next
    assert refusal(named, "input", "z", [], "--input").next.endswith("none")


def test_infinite_ranges_never_arise() -> None:
    assert all(math.isfinite(v) for v in parse_range("x=-1.7e308:1.7e308")[1])
