"""Surveying a source, with nets written in NumPy: the sizes it takes, its cases, and what it proves of
itself.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Check, Status
from mnnprep.model.files import save_arrays
from mnnprep.model.messages import InputSpecs
from mnnprep.model.net import Refused, any_ranks
from mnnprep.model.request import make_wants
from mnnprep.model.signature import Dim, TensorSpec, parse_input
from mnnprep.reference import sizes as module
from mnnprep.reference.checks import Surveyed
from mnnprep.reference.inputs import synthesize
from mnnprep.reference.sizes import batch_dims, sweep_sizes
from mnnprep.reference.survey import base_case, survey
from support.fakes import Arrays, Fake, refuse_unless


def rows(x: Any) -> Any:
    return x.reshape(x.shape[0], -1).sum(1)


def check(found: Surveyed, name: str) -> Check:
    return next(c for c in found.checks if c.check == name)


def statuses(found: Surveyed) -> dict[str, str]:
    return {c.check: c.status.value for c in found.checks}


GOOD = {"reference": "passed", "determinism": "passed", "vacuity": "passed"}


def test_a_net_of_fixed_sizes() -> None:
    found = survey(Fake("x=float32[2,3]", lambda x: x * 2), InputSpecs())
    assert statuses(found) == GOOD
    assert [c.origin for c in found.cases] == ["seed 0", "seed 1", "seed 2, scale 16"]
    assert found.signature.outputs == (TensorSpec("y", "float32", (2, 3)),)
    assert (found.signature.dims, found.sweep.sizes, found.sweep.refused) == ((), {}, {})
    for case in found.cases:
        assert np.array_equal(case.outputs["y"], case.inputs["x"] * 2)
    assert not np.array_equal(found.cases[0].inputs["x"], found.cases[1].inputs["x"])


def multiple_of_four(x: Any) -> Any:
    refuse_unless(all(n % 4 == 0 for n in x.shape[1:]))
    return x


def not_one(x: Any) -> Any:
    refuse_unless(all(n > 1 for n in x.shape))
    return x


def square(x: Any) -> Any:
    refuse_unless(x.shape[1] == x.shape[2])
    return x


def both_alike(x: Any, y: Any) -> Any:
    refuse_unless(x.shape == y.shape)
    return x + y


def one_at_a_time(x: Any) -> Any:
    refuse_unless(x.shape[0] == 1)
    return x


def image_of_224(x: Any) -> Any:
    refuse_unless(x.shape[2:] == (224, 224))
    return rows(x)


@pytest.mark.parametrize(
    ("inputs", "function", "admits"),
    [
        ("x=float32[batch,h,w]", multiple_of_four, lambda s: s["h"] % 4 == s["w"] % 4 == 0),
        ("x=float32[batch,h,w]", not_one, lambda s: min(s.values()) > 1),
        ("x=float32[batch,h,w]", square, lambda s: s["h"] == s["w"]),
        ("x=float32[a,b];y=float32[c,d]", both_alike, lambda s: (s["a"], s["b"]) == (s["c"], s["d"])),
        ("x=float32[batch,h]", one_at_a_time, lambda s: s["batch"] == 1),
        ("x=float32[batch,3,h,w]", image_of_224, lambda s: s["h"] == s["w"] == 224),
    ],
)
def test_sizes_are_found_by_trying(
    inputs: str, function: Any, admits: Callable[[dict[str, int]], bool]
) -> None:
    net = Fake(inputs, function)
    found = survey(net, InputSpecs())
    assert len(found.cases) >= 2
    assert all(admits(c.dims) for c in found.cases)
    assert statuses(found)["reference"] == "passed"
    assert len(net.asked) < 150
    for name, refused in found.sweep.refused.items():
        together = name in found.sweep.constraints and found.sweep.constraints[name].partner
        assert together or not set(refused) & set(found.sweep.sizes[name])
        assert set(refused.values()) == {"not such a size"}


def test_sizes_that_are_two_powers_apart_are_found() -> None:
    def strange(x: Any, y: Any) -> Any:
        refuse_unless(len(x) == 4 and len(y) == 32)
        return x.sum() + y

    assert survey(Fake("x=float32[a];y=float32[b]", strange), InputSpecs()).cases[0].dims == {"a": 4, "b": 32}


def test_no_size_at_all_is_refused_with_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TRIAL", 2**18)

    def never(x: Any) -> Any:
        raise Refused("expected 77 channels")

    net = Fake("x=float32[n,c,h]", never)
    with pytest.raises(RefusedError) as caught:
        survey(net, InputSpecs())
    assert caught.value.exit_code == 3
    assert caught.value.seen.startswith("at n=")
    assert caught.value.seen.endswith(": expected 77 channels")
    assert "--samples" in caught.value.next
    assert 100 < len(net.asked) <= module.TRIALS
    assert (
        max(a["x"].size for a in net.asked) <= module.LARGEST_TRIAL
    )  # 16000 in every direction would be terabytes
    with pytest.raises(RefusedError, match="its own signature"):
        survey(Fake("x=float32[3]", never), InputSpecs())


def test_what_is_declared_is_tried_however_large() -> None:
    wants = make_wants(dims=("h=5000:5000", "w=4000:4000"))
    assert survey(Fake("x=uint8[h,w]", lambda x: x[:4, :4]), wants).cases[0].dims == {"h": 5000, "w": 4000}


def test_undeclared_dimensions_are_swept_near_the_base() -> None:
    found = survey(Fake("x=float32[batch,length]", lambda x: x), InputSpecs())
    assert found.sweep.sizes == {"batch": [1, 2, 3], "length": [16, 17, 32]}
    assert found.cases[0].dims == {"batch": 2, "length": 16}
    assert found.sweep.refused == {}


def test_declared_ranges_are_swept_with_both_ends() -> None:
    found = survey(
        Fake("x=float32[batch,length]", lambda x: x), make_wants(dims=("batch=1:8", "length=5:40"))
    )
    assert found.sweep.sizes["batch"] == [1, 2, 5, 8]
    assert {5, 23, 40} <= set(found.sweep.sizes["length"])
    assert all(1 <= c.dims["batch"] <= 8 and 5 <= c.dims["length"] <= 40 for c in found.cases)


def test_a_declared_size_the_source_refuses_is_kept_with_its_words() -> None:
    def short(x: Any) -> Any:
        refuse_unless(x.shape[1] <= 32, "position 32 is out of range\nand a stack")
        return x

    found = survey(Fake("x=float32[batch,length]", short), make_wants(dims=("length=1:40",)))
    assert found.sweep.refused == {"length": {40: "position 32 is out of range"}}
    assert 40 not in found.sweep.sizes["length"]


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_sizes_of_a_declared_range_are_within_it_and_hold_its_ends(low: int, span: int) -> None:
    sizes = sweep_sizes(Dim("n", low, low + span), low, batch=False)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (low, low + span)
    assert len(sizes) >= min(span + 1, 2)


@given(st.integers(1, 300), st.booleans())
def test_the_sizes_of_an_undeclared_dimension_hold_its_base(base: int, batch: bool) -> None:
    sizes = sweep_sizes(Dim("n"), base, batch=batch)
    assert base in sizes
    assert len(set(sizes)) == len(sizes) >= 2


@pytest.mark.parametrize(
    ("inputs", "batches"),
    [
        ("x=float32[batch,h]", {"batch"}),
        ("x=float32[n,h]", {"n"}),
        ("x=float32[first,h];y=int64[first,h]", {"first"}),
        ("x=float32[a,a]", set()),
        ("ids=int64[length]", set()),
        ("x=float32[k,h];y=float32[h,k]", set()),
    ],
)
def test_what_looks_like_a_batch(inputs: str, batches: set[str]) -> None:
    assert batch_dims(tuple(parse_input(t) for t in inputs.split(";"))) == batches


def test_a_net_that_gives_other_numbers_the_second_time() -> None:
    rng = np.random.default_rng(0)
    found = survey(
        Fake("x=float32[2,3]", lambda x: {"noisy": x + rng.random(x.shape, "f4"), "calm": x}), InputSpecs()
    )
    assert check(found, "determinism").status is Status.FAILED
    assert check(found, "determinism").subject == "noisy"


def test_a_net_that_keeps_state() -> None:
    calls = iter(range(100))
    seen: set[bytes] = set()

    def once(x: Any) -> Any:
        refuse_unless(x.tobytes() not in seen, "closed")
        seen.add(x.tobytes())
        return x + next(calls)

    found = survey(Fake("x=float32[2,3]", once), InputSpecs())
    assert "closed" in check(found, "determinism").reason

    def growing(x: Any) -> Any:
        return np.ones(next(calls), "f4") * x.sum()

    assert check(survey(Fake("x=float32[2,3]", growing), InputSpecs()), "determinism").status is Status.FAILED


def test_nan_is_the_same_the_second_time() -> None:
    found = survey(Fake("x=float32[2,3]", lambda x: np.where(x > 0, np.nan, x).astype("f4")), InputSpecs())
    assert check(found, "determinism").status is Status.PASSED


@pytest.mark.parametrize(
    ("function", "dull"),
    [
        (lambda x: np.ones(3, "f4"), "y"),
        (lambda x: np.zeros(3, "f4"), "y"),
        (lambda x: {"moves": x, "label": np.zeros(2, "i8")}, "label"),
        (lambda x: 1 + x * np.float32(1e-6), "y"),  # moves, within the tolerance
        (lambda x: np.full(x.shape, np.nan, "f4"), "y"),  # never a finite number
        (lambda x: np.zeros((0, 3), "f4"), "y"),  # nothing to compare
        (lambda x: {"a": np.ones(1, "f4"), "b": np.ones(1, "f4"), "c": x}, "a, b"),
        (lambda x: np.array([x.shape[0]], "f4"), "y"),  # moves only with the size
    ],
)
def test_outputs_that_no_input_moves_prove_nothing(function: Any, dull: str) -> None:
    found = survey(Fake("x=float32[batch,3]", function), InputSpecs())
    vacuity = check(found, "vacuity")
    assert vacuity.status is Status.FAILED
    assert vacuity.subject == dull
    assert "--samples" in vacuity.reason


def test_outputs_constant_by_design_are_exempt_by_name() -> None:
    function = lambda x: {"moves": x, "shape": np.array(x.shape)}  # noqa: E731
    assert check(survey(Fake("x=float32[2,3]", function), InputSpecs()), "vacuity").status is Status.FAILED
    vacuity = check(
        survey(Fake("x=float32[2,3]", function, exempt={"shape": "of sizes alone"}), InputSpecs()), "vacuity"
    )
    assert vacuity.status is Status.PASSED
    assert vacuity.numbers == {"exempt": ["shape: of sizes alone"]}


@pytest.mark.parametrize(
    ("function", "scale"),
    [
        (lambda x: np.maximum(np.abs(x) - 6, 0).astype("f4"), "scale 16"),  # silent until inputs are large
        (lambda x: np.maximum(np.abs(x) - 90, 0).astype("f4"), "scale 64"),
        (lambda x: (np.abs(x).max() < 1).astype("i8"), "scale 0.25"),  # saturated unless they are small
    ],
)
def test_inputs_that_move_an_output_are_looked_for(function: Any, scale: str) -> None:
    found = survey(Fake("x=float32[4,3]", function), InputSpecs())
    assert check(found, "vacuity").status is Status.PASSED
    assert found.cases[-1].origin.endswith(scale)


def test_one_case_reaches_further_where_that_says_something() -> None:
    def origins(function: Any, spec: str = "x=float32[4,3]", **wants: Any) -> list[str]:
        return [c.origin for c in survey(Fake(spec, function), make_wants(**wants)).cases]

    assert "seed 2, scale 16" in origins(lambda x: np.clip(x, 0, 6))
    assert "seed 2, scale 16" in origins(lambda x: np.clip(x, 0, 6), "x=float32[n,3]", dims=("n=1:4",))
    assert origins(lambda x: x, ranges=("x=0:1",)) == [
        "seed 0",
        "seed 1",
        "seed 2",
    ]  # the user said how large
    assert origins(lambda x: x, "x=int32[4,3]") == ["seed 0", "seed 1", "seed 2"]
    assert origins(lambda x: np.exp(np.square(x)).astype("f4")) == ["seed 0", "seed 1", "seed 2"]  # overflows
    assert origins(lambda x: np.sin(1e6 * x).astype("f4")) == ["seed 0", "seed 1", "seed 2"]  # noise alone
    with pytest.raises(RefusedError):
        origins(lambda x: refuse_unless(False) or x)
    assert any_ranks(["Conv", "Top_K"])
    assert not any_ranks(["Conv", "Relu"])
    chooses = survey(Fake("x=float32[4,3]", lambda x: x.argmax(1)), InputSpecs(), ranks=lambda: True)
    assert [c.origin for c in chooses.cases] == ["seed 0", "seed 1", "seed 2"]  # saturated scores tie


def test_the_search_knows_the_noise() -> None:
    """An output that the first cases move by less than its noise demands is searched for as well."""

    def net(x: Any) -> Any:
        return (1000 + 1.2 * x + np.where(np.abs(x) > 8, 500, 0)).astype("f4")

    class Noisy(Fake):
        def run_precise(self, inputs: Arrays) -> Arrays | None:
            return {"y": net(inputs["x"]) + 0.7}

    found = survey(Noisy("x=float32[4,3]", net), InputSpecs())
    assert check(found, "vacuity").status is Status.PASSED
    assert found.noise["y"] == pytest.approx([0.7] * len(found.cases), rel=1e-2)


def test_the_noise_floor_is_measured_against_more_precision() -> None:
    class Precise(Fake):
        def run_precise(self, inputs: Arrays) -> Arrays | None:
            return {"y": inputs["x"].astype("f8") + 0.004, "n": np.zeros(2)}

    net = Precise("x=float32[2,3]", lambda x: {"y": x, "n": np.array([1, int(x.sum() * 100)])})
    found = survey(net, InputSpecs())
    assert found.noise == {"y": pytest.approx([0.004] * len(found.cases), rel=1e-3)}
    noise = check(found, "noise")  # ten times that is above a hundredth of the largest value
    assert noise.status is Status.FAILED
    assert noise.subject == "y"
    assert noise.numbers["lost_in_noise"][0].startswith("case 0 (seed 0): noise of 0.0")


def test_the_noise_floor_is_measured_by_one_ulp_elsewhere() -> None:
    calm = survey(Fake("x=float32[2,3]", lambda x: x * 2), InputSpecs())
    assert 0 < calm.noise["y"][0] < 1e-5
    assert set(calm.noise["y"][1:]) == {
        None
    }  # and far below what is allowed in the others, so it is not measured there
    assert "noise" not in statuses(calm)
    chaotic = survey(
        Fake("x=float32[2,3]", lambda x: np.sin(x.astype("f8") * 1e9).astype("f4")), InputSpecs()
    )
    assert min(chaotic.noise["y"]) > 0.1
    again = survey(Fake("x=float32[2,3]", lambda x: np.sin(x.astype("f8") * 1e9).astype("f4")), InputSpecs())
    assert chaotic.noise == again.noise
    assert check(chaotic, "noise").status is Status.FAILED


def test_no_noise_is_measured_where_there_is_none_to_measure() -> None:
    found = survey(Fake("ids=int64[4]", lambda ids: ids * 2), InputSpecs())
    assert found.noise == {}
    assert statuses(found) == GOOD


def test_integers_stay_within_the_table_they_index() -> None:
    table = np.arange(50, dtype="f4")

    def embed(ids: Any) -> Any:
        refuse_unless(bool(np.all((ids >= 0) & (ids < 50))), "index out of range")
        return table[ids]

    net = Fake("ids=int64[batch,length]", embed, bounds={"ids": (0, 49)})
    found = survey(net, InputSpecs())
    drawn = np.concatenate([c.inputs["ids"].ravel() for c in found.cases])
    assert drawn.min() >= 0
    assert 40 < drawn.max() <= 49
    assert found.signature.inputs[0].range == (0, 49)
    narrower = survey(
        Fake("ids=int64[batch,length]", embed, bounds={"ids": (0, 49)}), make_wants(ranges=("ids=3:5",))
    )
    assert {int(i) for c in narrower.cases for i in c.inputs["ids"].ravel()} == {3, 4, 5}
    with pytest.raises(UsageError, match="index outside its table"):
        survey(
            Fake("ids=int64[batch,length]", embed, bounds={"ids": (0, 49)}), make_wants(ranges=("ids=0:50",))
        )


def test_two_inputs_are_not_fed_the_same_numbers() -> None:
    arrays = synthesize((parse_input("a=float32[9]"), parse_input("b=float32[9]")), {}, 0, {})
    assert not np.any(arrays["a"] == arrays["b"])


def test_masks_are_runs_of_ones() -> None:
    specs = (parse_input("attention_mask=int64[batch,9]"), parse_input("mask=bool[9]"))
    for seed in range(6):
        for mask in synthesize(specs, {"batch": 4}, seed, {}).values():
            values = np.atleast_2d(mask).astype(int)
            assert np.all(np.diff(values, axis=1) <= 0)
            assert np.all(values[:, :5] == 1)
            assert seed % 2 or values.all()
    assert not all(synthesize(specs, {"batch": 4}, seed, {})["attention_mask"].all() for seed in range(6))


@settings(max_examples=200)
@given(
    st.sampled_from(["float32", "float16", "int64", "int32", "uint8", "int8", "bool"]),
    st.floats(-200, 200),
    st.floats(0, 300),
    st.integers(0, 9),
)
def test_values_are_within_their_range_or_the_range_is_refused(
    dtype: str, low: float, span: float, seed: int
) -> None:
    net = Fake(f"x={dtype}[40]", lambda x: x)
    try:
        found = survey(net, InputSpecs(ranges={"x": (low, low + span)}, seed=seed))
    except UsageError as error:
        assert error.what == "--range gives x values that its dtype can't hold"  # noqa: PT017
        assert not dtype.startswith("float")
        return
    slack = 0.2 if dtype == "float16" else 1e-4
    for case in found.cases:
        assert case.inputs["x"].dtype == dtype
        assert np.all(case.inputs["x"].astype("f8") >= low - slack)
        assert np.all(case.inputs["x"].astype("f8") <= low + span + slack)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("uint8", "x=0:256"),
        ("uint8", "x=-1:5"),
        ("int8", "x=0:255"),
        ("bool", "x=0:2"),
        ("int64", "x=0.2:0.8"),
        ("int64", "x=0:1e30"),
        ("float16", "x=0:1e6"),
        ("float32", "x=0:1e300"),
        ("float64", "x=-1.7e308:1.7e308"),
    ],
)
def test_ranges_that_a_dtype_does_not_have(dtype: str, text: str) -> None:
    with pytest.raises(UsageError, match="its dtype can't hold"):
        survey(Fake(f"x={dtype}[4]", lambda x: x), make_wants(ranges=(text,)))


@pytest.mark.parametrize(
    "dtype", ["int64", "uint64", "int8", "uint8", "bool", "float32", "float64", "float16"]
)
def test_the_ends_of_a_dtype_can_be_asked_for(dtype: str) -> None:
    kind = np.dtype(dtype).kind
    low, high = (
        (0, 1)
        if kind == "b"
        else (float(np.finfo(dtype).min) / 4, float(np.finfo(dtype).max) / 4)
        if kind == "f"
        else (-(2.0**31), 2.0**31)
    )
    if kind in "iu":
        low, high = max(low, np.iinfo(dtype).min), min(high, np.iinfo(dtype).max)
    assert survey(Fake(f"x={dtype}[4]", lambda x: x), InputSpecs(ranges={"x": (low, high)})).cases


SAMPLE = {"x": np.linspace(2, 3, 6, dtype="f4").reshape(2, 3), "k": np.array([4, 5])}


def two(x: Any, k: Any) -> Any:
    return x * k[:, None]


def pair(**options: Any) -> Fake:
    return Fake("x=float32[n,3];k=int64[n]", two, **options)


def with_samples(path: Path, net: Fake | None = None, **texts: Any) -> Surveyed:
    return survey(net or pair(), make_wants(samples=str(path), **texts))


def test_samples_come_first_and_give_the_range_of_what_is_synthesized(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", **{**SAMPLE, "x": SAMPLE["x"] + 1})
    save_arrays(tmp_path / "a.npz", {"inputs/x": SAMPLE["x"], "inputs/k": SAMPLE["k"]})
    (tmp_path / "notes.txt").write_text("not a sample")
    found = with_samples(tmp_path)
    assert [c.origin for c in found.cases[:3]] == ["samples a.npz", "samples b.npz", "seed 0"]
    assert np.array_equal(found.cases[0].inputs["x"], SAMPLE["x"])
    assert all(
        c.inputs["x"].min() >= 2 and c.inputs["x"].max() <= 4 and set(c.inputs["k"]) <= {4, 5}
        for c in found.cases
    )
    assert found.cases[2].dims == {"n": 2}
    assert found.signature.inputs[0].range == (2, 4)
    declared = with_samples(tmp_path, ranges=("x=0:1",))
    assert max(c.inputs["x"].max() for c in declared.cases if c.origin.startswith("seed")) <= 1


def test_one_array_is_a_sample_of_a_net_with_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", SAMPLE["x"].astype("f8"))
    found = with_samples(tmp_path / "x.npy", Fake("x=float32[n,3]", lambda x: x))
    assert found.cases[0].origin == "samples x.npy"
    assert found.cases[0].inputs["x"].dtype == np.float32
    with pytest.raises(UsageError, match="one input"):
        with_samples(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": SAMPLE["x"]}, "not the model's inputs"),
        ({**SAMPLE, "z": np.zeros(1)}, "not the model's inputs"),
        ({"a": SAMPLE["x"], "b": SAMPLE["k"]}, "not the model's inputs"),
        ({**SAMPLE, "x": np.zeros((2, 4), "f4")}, "x has another shape"),
        ({**SAMPLE, "x": np.zeros((2, 3, 1), "f4")}, "x has another shape"),
        ({**SAMPLE, "x": np.zeros((), "f4")}, "x has another shape"),
        ({**SAMPLE, "k": np.array([0.5, 1])}, "k has another dtype"),
        ({**SAMPLE, "x": np.zeros((2, 3), "c8")}, "x has another dtype"),
        ({**SAMPLE, "x": np.full((2, 3), "a")}, "x has another dtype"),
        ({**SAMPLE, "k": np.array([1, 2, 3])}, "the dimension n two sizes"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, arrays: Arrays, what: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(UsageError, match=what) as caught:
        with_samples(tmp_path / "s.npz")
    assert "s.npz" in caught.value.seen
    assert caught.value.next


def test_a_sample_of_values_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", k=np.array([2**40]))
    with pytest.raises(UsageError, match="k holds values that its dtype can't hold"):
        with_samples(tmp_path / "s.npz", Fake("k=int32[n]", lambda k: k))


def test_a_sample_outside_a_declared_dimension(tmp_path: Path) -> None:
    for name, n in (("a", 2), ("b", 9)):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((n, 3), "f4"), k=np.arange(n))
    with pytest.raises(UsageError, match="outside its --dim") as caught:
        with_samples(tmp_path, dims=("n=1:4",))
    assert caught.value.seen == "samples b.npz: 9"
    assert with_samples(tmp_path, dims=("n=1:9",)).sweep.sizes["n"][-1] == 9


def test_a_sample_that_the_source_refuses(tmp_path: Path) -> None:
    def positive(x: Any, k: Any) -> Any:
        refuse_unless(bool(np.all(k > 0)), "k must be positive")
        return two(x, k)

    np.savez(tmp_path / "s.npz", x=SAMPLE["x"], k=np.array([0, 1]))
    with pytest.raises(UsageError) as caught:
        with_samples(tmp_path / "s.npz", Fake("x=float32[n,3];k=int64[n]", positive), ranges=("k=1:5",))
    assert caught.value.seen == "samples s.npz: k must be positive"


def broken_files(path: Path) -> dict[str, Callable[[], object]]:
    np.savez(path / "whole.npz", **SAMPLE)
    whole = (path / "whole.npz").read_bytes()
    (path / "whole.npz").unlink()
    target = path / "s.npz"

    def npy() -> None:
        with target.open("wb") as file:
            np.save(file, SAMPLE["x"])

    def corrupt() -> None:
        np.savez_compressed(target, x=np.zeros((2, 3), "f4"), k=np.arange(2))
        data = bytearray(target.read_bytes())
        data[60:90] = b"\xff" * 30
        target.write_bytes(data)

    def no_arrays() -> None:
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("x.npy", b"no array")

    return {
        "empty": lambda: target.write_bytes(b""),
        "text": lambda: target.write_text("<html>"),
        "truncated": lambda: target.write_bytes(whole[: len(whole) // 2]),
        "cut at the end": lambda: target.write_bytes(whole[:-10]),
        "an .npy": npy,
        "objects": lambda: np.savez(target, x=np.array([{}], object), k=SAMPLE["k"]),
        "corrupt": corrupt,
        "no arrays": no_arrays,
        "a directory": target.mkdir,
    }


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "text",
        "truncated",
        "cut at the end",
        "an .npy",
        "objects",
        "corrupt",
        "no arrays",
        "a directory",
    ],
)
def test_files_that_are_no_samples_are_refused(tmp_path: Path, how: str) -> None:
    broken_files(tmp_path)[how]()
    with pytest.raises(RefusedError) as caught:
        with_samples(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.seen.startswith(("s.npz: ", "s.npz, "))


def test_an_npz_named_npy_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **SAMPLE)
    (tmp_path / "s.npz").rename(tmp_path / "s.npy")
    with pytest.raises(RefusedError, match="could not be read"):
        with_samples(tmp_path, Fake("x=float32[n,3]", lambda x: x))


def test_no_samples_are_a_mistake(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "none", "no samples at this path"),
        (tmp_path, "does not contain .npz, .npy, .jpg, .png or .wav file"),
    ):
        with pytest.raises(UsageError, match=what):
            with_samples(path)
    (tmp_path / "s.csv").write_text("1,2")
    with pytest.raises(UsageError, match=r"samples are .npz, .npy"):
        with_samples(tmp_path / "s.csv")


def test_the_sources_own_example_comes_first() -> None:
    example = {"x": np.full((1, 3), 7, "f4"), "k": np.array([9])}
    found = survey(pair(example=example), InputSpecs())
    assert found.cases[0].origin == "the source's example"
    assert found.cases[0].inputs["x"].max() == 7
    assert found.cases[1].dims == {"n": 2}  # a batch of 1 is widened where the source takes it
    assert found.signature.inputs[0].range is None  # one example says nothing of the range
    one = survey(Fake("x=float32[n,3]", one_at_a_time, example={"x": example["x"]}), InputSpecs())
    assert {c.dims["n"] for c in one.cases} == {1}


@pytest.mark.parametrize(
    "example",
    [
        {"x": np.zeros((1, 3), "f4")},
        {"x": np.zeros((1, 4), "f4"), "k": np.array([1])},
        {"x": np.zeros((1, 3), "f8"), "k": np.array([1])},
        {"x": np.zeros(3, "f4"), "k": np.array([1])},
        {"x": np.zeros((9, 3), "f4"), "k": np.arange(9)},  # outside the --dim
    ],
)
def test_an_example_that_does_not_fit_what_is_declared_is_left_out(example: Arrays) -> None:
    found = survey(pair(example=example), make_wants(dims=("n=2:4",)))
    assert all(c.origin.startswith("seed") for c in found.cases)


def test_outputs_are_specified_as_the_cases_show_them() -> None:
    def net(x: Any) -> Any:
        batch, length = x.shape
        return {
            "same": x,
            "pooled": x.sum(1),
            "doubled": np.concatenate([x, x], 1),
            "fixed": np.ones((4, 4), "f8") * x.sum(),
            "swapped": x.T.copy(),
            "ids": (x.sum(1) * 100).astype("i8"),
            "flat": x.reshape(batch * length),
            "scalar": x.sum(),
        }

    found = survey(Fake("x=float32[batch,length]", net), InputSpecs())
    assert {o.name: str(o).partition("=")[2] for o in found.signature.outputs} == {
        "same": "float32[batch,length]",
        "pooled": "float32[batch]",
        "doubled": "float32[batch,doubled_axis1]",
        "fixed": "float64[4,4]",
        "swapped": "float32[length,batch]",
        "ids": "int64[batch]",
        "flat": "float32[flat_axis0]",
        "scalar": "float32[]",
    }
    assert [o.name for o in found.signature.outputs] == list(net(np.zeros((1, 1), "f4")))


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        ({"inputs": ("z=float32[1]",)}, "--input names input 'z', which the model does not have"),
        ({"ranges": ("z=0:1",)}, "--range names input 'z'"),
        ({"dims": ("m=1:2",)}, "--dim names dimension 'm'"),
        ({"inputs": ("x=float64[n,3]",)}, "another dtype"),
        ({"inputs": ("x=float32[n,3,1]",)}, "another number of dimensions"),
        ({"inputs": ("x=float32[n,4]",)}, "changes a fixed dimension of x"),
        ({"inputs": ("x=float32[n,m]",)}, "changes a fixed dimension of x"),
    ],
)
def test_what_is_declared_must_fit_the_source(texts: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        survey(pair(), make_wants(**texts))
    assert what in caught.value.what
    assert caught.value.exit_code == 2


def test_a_dimension_may_be_fixed_or_renamed() -> None:
    found = survey(pair(), make_wants(inputs=("x=float32[5,3]", "k=int64[5]")))
    assert (found.signature.dims, len(found.cases)) == ((), 3)
    renamed = survey(pair(), make_wants(inputs=("x=float32[many,3]", "k=int64[many]"), dims=("many=2:6",)))
    assert renamed.sweep.sizes["many"] == [2, 3, 6] or renamed.sweep.sizes["many"][0] == 2
    assert renamed.signature.outputs[0].shape == ("many", 3)


def written(found: Surveyed, directory: Path) -> list[tuple[str, dict[str, int], str]]:
    directory.mkdir()
    return [(c.origin, c.dims, c.file.sha256) for c in found.write(directory)]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), low=st.floats(-5, 0), high=st.floats(1, 5), declared=st.booleans())
def test_the_same_request_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, low: float, high: float, declared: bool
) -> None:
    wants = InputSpecs(seed=seed, ranges={"x": (low, high)}, dims=(Dim("n", 2, 7),) if declared else ())
    root = tmp_path_factory.mktemp("bytes")
    surveys = [survey(pair(bounds={"k": (1, 9)}), wants) for _ in "ab"]
    first, second = (written(found, root / name) for name, found in zip("ab", surveys, strict=True))
    assert first == second
    assert surveys[0].noise == surveys[1].noise
    assert surveys[0].checks == surveys[1].checks
    other = written(
        survey(
            pair(bounds={"k": (1, 9)}), InputSpecs(seed=seed + 1000, ranges=wants.ranges, dims=wants.dims)
        ),
        root / "c",
    )
    assert not {h for *_, h in first} & {h for *_, h in other}


def test_an_export_is_made_with_the_inputs_of_the_first_synthesized_case() -> None:
    for wants in (InputSpecs(), make_wants(dims=("n=3:5",), ranges=("x=0:1",), seed=3)):
        found = survey(pair(bounds={"k": (1, 9)}), wants)
        for name, array in base_case(pair(bounds={"k": (1, 9)}), wants).items():
            assert np.array_equal(array, found.cases[0].inputs[name])


def test_every_case_holds_what_the_source_computed_for_it() -> None:
    """Also where a run that looked for sizes serves as a case."""
    found = survey(pair(bounds={"k": (1, 9)}), make_wants(dims=("n=1:4",)))
    assert len({c.inputs["x"].tobytes() for c in found.cases}) == len(found.cases)
    for case in found.cases:
        assert np.array_equal(case.outputs["y"], two(**case.inputs))


def failing(error: Exception) -> Any:
    """A function that fails alike whatever it is given, as a framework's net tells it."""

    def function(x: Any) -> Any:
        raise Refused(f"{type(error).__name__}: {error} (at net.py:12)") from error

    return function


@pytest.mark.parametrize("inputs", ["x=float32[batch,n,m]", "x=float32[2,3]"])
def test_a_mistake_in_the_sources_own_code_is_no_matter_of_sizes(inputs: str) -> None:
    net = Fake(inputs, failing(NameError("name 'y' is not defined")))
    with pytest.raises(RefusedError) as caught:
        survey(net, InputSpecs())
    assert caught.value.what == "the source raises NameError: name 'y' is not defined (at net.py:12)"
    assert "--dim" not in caught.value.next
    assert len(net.asked) <= module.ALIKE


def test_a_mistake_for_some_sizes_alone_is_tried_past() -> None:
    def function(x: Any) -> Any:
        if x.shape[1] < 64:
            raise Refused("AttributeError: 'NoneType' object has no attribute 'shape'") from AttributeError()
        return x

    assert survey(Fake("x=float32[batch,n]", function), InputSpecs()).cases[0].dims["n"] >= 64


def test_what_is_refused_alike_at_every_size_is_the_message() -> None:
    with pytest.raises(RefusedError) as caught:
        survey(Fake("x=float32[n]", failing(ValueError("no such layer"))), InputSpecs())
    assert "no such layer" in caught.value.what
    assert "--dim" in caught.value.next


def test_a_mistake_that_shows_with_a_sample_is_told_as_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3, "f4"))
    with pytest.raises(RefusedError, match="the source raises NameError"):
        survey(
            Fake("x=float32[3]", failing(NameError("name 'y' is not defined"))),
            make_wants(samples=str(tmp_path)),
        )
