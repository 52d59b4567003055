"""Weights by value: what moves values and changes none is found, one bit is not overlooked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.evidence.check import Check, Status

Arrays = dict[str, Any]
FEW = ("f2", "i8", "i4", "i1", "u1")  # dtypes whose values the tensors below share
DTYPES = ["f4", "f8", "f2", "i8", "i4", "i1", "u1", "c8"]


def net(dtype: str = "f4", seed: int = 0) -> Arrays:
    """Tensors of a small net: a convolution, a norm, a Linear, a recurrent layer, a scalar."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv": (8, 4, 3, 3),
        "bias": (8,),
        "mean": (8,),
        "linear": (12, 20),
        "gates": (4 * 6, 5),
        "scale": (),
    }
    return {
        n: np.asarray(rng.standard_normal(s) * (1 if np.dtype(dtype).kind in "fc" else 40)).astype(dtype)
        for n, s in shapes.items()
    }


def passes(check: Check) -> bool:
    assert check.check == "weights"
    assert check.status in (Status.PASSED, Status.FAILED)
    assert (check.status is Status.FAILED) == bool(check.reason)
    return check.status is Status.PASSED


def gates_reordered(array: Any) -> Any:
    """From PyTorch's order of an LSTM's gates (i, f, g, o) to ONNX's (i, o, f, c)."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])[None]


MOVES: dict[str, Callable[[Arrays], Arrays]] = {
    "identical": lambda a: dict(a),
    "renamed and in another order": lambda a: {f"const_{i}": a[n] for i, n in enumerate(reversed(a))},
    "flat": lambda a: {n: v.reshape(-1) for n, v in a.items()},
    "with axes of 1": lambda a: {n: v[None, ..., None] for n, v in a.items()},
    "transposed": lambda a: {n: v.T for n, v in a.items()},
    "channels last": lambda a: a | {"conv": a["conv"].transpose(2, 3, 1, 0)},
    "an LSTM's gates": lambda a: a | {"gates": gates_reordered(a["gates"])},
    "stacked": lambda a: {"all": np.concatenate([v.reshape(-1) for v in a.values()])},
    "split in three": lambda a: {
        k: v
        for n in a
        for k, v in ({f"{n}{i}": p for i, p in enumerate(np.array_split(a[n].reshape(-1), 3))}).items()
    },
    "among constants": lambda a: (
        a | {"shape": np.array([1, -1]), "half": np.float32(0.5), "none": np.zeros(0, "f4")}
    ),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_only_moved_are_found(move: str, dtype: str) -> None:
    source = net(dtype)
    check = match_weights(source, MOVES[move](source))
    assert passes(check), check.reason
    assert (
        sum(int(check.numbers[k]) for k in ("identical", "transposed", "regrouped"))
        == len(source)
        == check.numbers["parameters"]
    )  # type: ignore[arg-type]


def test_each_kind_is_counted() -> None:
    source = net()
    artifact = source | {
        "linear": source["linear"].T,
        "gates": gates_reordered(source["gates"]),
        "constant": np.zeros(3),
    }
    numbers = match_weights(source, artifact).numbers
    assert numbers == {
        "identical": 4,
        "transposed": 1,
        "regrouped": 1,
        "computed": 0,
        "parameters": 6,
        "artifact_tensors": 7,
        "not_parameters": 1,
    }


def one_bit(array: Any) -> Any:
    changed = np.array(array, order="C")
    changed.reshape(-1).view("u1")[0] ^= 1  # the lowest bit: 1 ulp of the first value
    return changed


@pytest.mark.parametrize("move", [m for m in MOVES if m != "among constants"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_of_any_tensor_is_seen(move: str, dtype: str) -> None:
    source = net(dtype)
    if dtype in FEW:
        del source["scale"]  # one value, which others hold too
    for name in source:
        check = match_weights(source, MOVES[move](source | {name: one_bit(source[name])}))
        assert not passes(check), name
        assert (
            name in check.reason or dtype in FEW
        )  # where all values are shared, another may be the one left without


@pytest.mark.parametrize("move", ["identical", "transposed", "an LSTM's gates", "stacked"])
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8"])
@pytest.mark.parametrize("name", [n for n in net() if n != "scale"])
def test_one_percent_of_any_tensor_is_seen(move: str, dtype: str, name: str) -> None:
    source = net(dtype)
    changed = (source[name].astype("f8") * 1.01).astype(dtype)
    assert not passes(match_weights(source, MOVES[move](source | {name: changed})))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: -a,
        lambda a: np.where(a == 3, 4, a),
        np.zeros_like,
        lambda a: np.repeat(a.reshape(-1)[:1], a.size),
    ],
)
def test_a_change_among_few_values_is_seen(change: Callable[[Any], Any]) -> None:
    """int8 weights hold every value there is: it is their number that tells."""
    rng = np.random.default_rng(0)
    source = {
        "w": rng.integers(-100, 120, (64, 256)).astype("i1"),
        "v": rng.integers(-100, 120, (64, 64)).astype("i1"),
    }
    assert passes(
        match_weights(source, {"both": np.concatenate([v.reshape(-1) for v in source.values()])[::-1]})
    )
    assert not passes(match_weights(source, source | {"w": change(source["w"]).astype("i1")}))


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4"])
def test_dtypes_numpy_does_not_have(kind: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, kind))
    source = {"w": np.random.default_rng(0).uniform(-7, 7, (32, 8)).astype(dtype)}
    assert passes(match_weights(source, {"w": source["w"].T}))
    assert passes(match_weights(source, {"w": np.concatenate([source["w"][16:], source["w"][:16]])}))
    other = source["w"].copy()
    other[3, 3] = dtype.type(1) if other[3, 3] != dtype.type(1) else dtype.type(2)
    assert not passes(match_weights(source, {"w": other}))


@pytest.mark.parametrize(
    "strings", [np.array(["a", "b"], object), np.array(["a", "b"]), np.array([b"a", b"b"], object)]
)
def test_text_is_compared_by_value(strings: Any) -> None:
    assert passes(
        match_weights({"vocabulary": strings}, {"v": np.array([type(v)(v) for v in strings], strings.dtype)})
    )
    assert not passes(
        match_weights({"vocabulary": strings}, {"v": np.array([strings[0], strings[0] * 2], strings.dtype)})
    )


@pytest.mark.parametrize("other", ["f8", "f2", "i4", "u4", ">f4"])
def test_another_dtype_is_not_the_same_weights(other: str) -> None:
    source = net("f4")
    changed = source["linear"].view("u4") if other == "u4" else source["linear"].astype(other)
    if other == "u4":  # the same bytes, read as integers
        changed = changed.astype("u4")
    assert not passes(match_weights(source, source | {"linear": changed}))


def test_the_signs_of_zero_and_the_bits_of_nan_count() -> None:
    zeros, nans = np.zeros(4, "f4"), np.full(4, np.nan, "f4")
    assert passes(match_weights({"z": zeros, "n": nans}, {"z": zeros, "n": nans.copy()}))
    assert not passes(match_weights({"z": zeros}, {"z": -zeros}))
    assert not passes(match_weights({"n": nans}, {"n": -nans}))


def test_a_tensor_that_is_missing_is_named() -> None:
    source = net()
    check = match_weights(source, {n: a for n, a in source.items() if n != "bias"})
    assert check.subject == "bias"
    assert check.reason == "1 of the source's 6 parameters are not in the artifact by value: bias"
    many = {f"p{i:02d}": np.full(2, i, "f4") + np.arange(2, dtype="f4") / 7 for i in range(25)}
    assert match_weights(many, {}).reason.endswith(", p09 and 15 more")


def test_nothing_to_find_passes_and_an_empty_artifact_holds_nothing() -> None:
    assert passes(match_weights({}, {}))
    assert passes(match_weights({}, net()))
    assert not passes(match_weights(net(), {}))
    assert passes(match_weights({"e": np.zeros((0, 4), "f4")}, {}))
    assert passes(match_weights({"e": np.zeros((0, 4), "f4")}, {"w": np.ones(3, "f4")}))


def test_equal_tensors_may_be_kept_once() -> None:
    """Tied weights, equal biases of query, key and value: an exporter stores them once."""
    weight = np.random.default_rng(0).standard_normal((6, 4)).astype("f4")
    assert passes(match_weights({"embedding": weight, "head": weight.copy()}, {"one": weight.T}))
    assert passes(match_weights({"in_proj_bias": np.zeros(12, "f4")}, {"bias": np.zeros(4, "f4")}))
    assert passes(
        match_weights(
            {"in_proj_bias": np.zeros(12, "f4"), "out": np.zeros(4, "f4")}, {"bias": np.zeros(4, "f4")}
        )
    )
    assert not passes(match_weights({"in_proj_bias": np.zeros(12, "f4")}, {"bias": np.full(4, 1e-30, "f4")}))
    assert not passes(
        match_weights({"in_proj_bias": np.zeros(12, "f4")}, {"bias": np.zeros(4, "i4"), "w": weight})
    )
    rows = np.stack([weight, weight + 1])
    assert passes(match_weights({"a": rows, "b": rows.copy()}, {"swapped": rows[::-1]}))
    joined = np.concatenate([rows[::-1].reshape(-1), np.ones(3, "f4")])  # once, among other things
    assert passes(match_weights({"a": rows, "b": rows.copy()}, {"joined": joined}))
    assert not passes(match_weights({"a": rows, "b": rows + 1}, {"joined": joined}))


@settings(max_examples=150)
@given(
    st.sampled_from(["f4", "f2", "i1", "i8"]).flatmap(
        lambda t: hnp.arrays(t, hnp.array_shapes(max_dims=4, max_side=4))
    ),
    st.data(),
)
def test_any_permutation_of_axes_and_of_rows_is_found_and_one_value_is_seen(
    array: Any, data: st.DataObject
) -> None:
    axes = data.draw(st.permutations(range(array.ndim)))
    rows = data.draw(st.permutations(range(array.shape[0])))
    assert passes(match_weights({"w": array}, {"w": array.transpose(axes)}))
    assert passes(match_weights({"w": array}, {"w": array[list(rows)]}))
    place = data.draw(st.integers(0, array.size - 1))
    changed = array.copy()
    changed.reshape(-1).view(f"u{array.itemsize}")[place] ^= np.array(1, f"u{array.itemsize}")
    known = array.reshape(-1).view(f"u{array.itemsize}")
    if np.unique(known).size > 1 or array.size == 1:
        assert not passes(match_weights({"w": array}, {"w": changed[list(rows)]}))


def test_large_pools_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(0)
    layers = {f"layer{i}": rng.standard_normal((512, 512), dtype="f4") for i in range(8)}
    lstm = {f"lstm{i}": rng.standard_normal((1024, 256), dtype="f4") for i in range(4)}
    source = layers | lstm | {f"tiny{i}": rng.standard_normal(16, dtype="f4") for i in range(500)}
    artifact = {n: a.T for n, a in source.items()} | {n: gates_reordered(a) for n, a in lstm.items()}
    started = time.process_time()
    assert passes(match_weights(source, artifact))
    assert time.process_time() - started < 10
    artifact["lstm3"] = one_bit(artifact["lstm3"])
    assert match_weights(source, artifact).subject == "lstm3"


def test_what_an_exporter_folds_a_parameter_into_is_known() -> None:
    source = net()
    folded = source | {"linear": source["linear"] + np.float32(1), "gates": source["gates"] + np.float32(1)}
    check = match_weights(source, folded)
    assert passes(check), check.reason
    assert check.numbers["computed"] == 2
    assert not passes(match_weights(source, folded | {"linear": one_bit(folded["linear"])}))
