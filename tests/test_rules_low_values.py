"""The rules for precision low that need to know how large values get, on the planted nets of the evaluation.

Half precision is here the model run with its numbers rounded as MNN rounds them at low (``low_hazards``).
What MNN itself computes is measured by ``evaluation.low_precision``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from evaluation.nets.mnn_models import case
from evaluation.phone import planted, sound
from evaluation.phone.net import PhoneNet, normal, uniform, written
from mnnprep.model.magnitudes import Magnitude
from mnnprep.repair.low_hazards.step import LowFindings, LowJob, low_hazards
from mnnprep.repair.steps import Repaired, RepairJob, repair
from mnnprep.repair.table import low_rules
from mnnprep.workers.host import Host
from support.rewriting import Arrays, reference, same_bits, through_mnn

PLANTED = {net.name: net for net in planted.nets()}
SOUND = {net.name: net for net in sound.nets()}
LEAST = 30.0  # dB
# By rule, and whether its bits are the same in onnxruntime.
REPAIRED = {
    "pixels divided by their norm": ("power-of-two", True),
    "ReduceSumSquare, epsilon": ("power-of-two", True),
    "LpNormalization": ("power-of-two", True),
    "LayerNorm written out": ("power-of-two", True),
    "cosine similarity": ("power-of-two", True),
    "power spectrum of sound in int16's range": ("power-of-two", False),
    "weighted centre": ("power-of-two", True),
    "residuals that grow": ("power-of-two", True),
    "convolutions of pixels, then scaled back": ("power-of-two", True),
    "batch norm of large features": ("power-of-two", True),
    "a cube and its root": ("power-of-two", False),
    "attention scores before their scale": ("power-of-two", True),
    "norm that may be 0, epsilon 1e-12": ("power-of-two", True),
    "logarithm of a probability, epsilon 1e-8": ("power-of-two", False),
    "small kernels, a large gain": ("power-of-two", True),
    "square of small numbers": ("power-of-two", True),
    "softmax without the shift": ("unshifted-exponential", False),
    "softmax without the shift, by a Reciprocal": ("unshifted-exponential", False),
    "log of a sum of exponentials": ("unshifted-exponential", False),
    "ReduceLogSumExp": ("unshifted-exponential", False),
    "softplus written out": ("unshifted-exponential", False),
    "reparametrised deviation": ("unshifted-exponential", False),
    "logarithm of a softmax": ("unshifted-exponential", False),
    "logit": ("complement-of-clip", False),
    "an offset added and taken away": ("offset-taken-away", False),
    "a grid of large coordinates": ("offset-taken-away", False),
    "variance by moments": ("variance-by-moments", False),
    "standardisation by moments": ("variance-by-moments", False),
}
MOMENTS = 1e-3  # of a difference of squares: float32 itself loses that


def measured(model: Any, net: PhoneNet, directory: Path) -> LowFindings:
    """How large the values of *model* get on the net's samples, and what half precision makes of them."""
    directory.mkdir(parents=True)
    onnx.save(model, directory / "model.onnx")
    cases = [case(directory, number, sample) for number, sample in enumerate(net.samples)]
    job = LowJob(model=str(directory / "model.onnx"), cases=cases, directory=str(directory))
    return low_hazards(job)


def apply(
    model: Any, magnitudes: Mapping[str, Magnitude], directory: Path, *rules: str
) -> tuple[Any, Repaired]:
    (directory / "out").mkdir(parents=True)
    onnx.save(model, directory / "in.onnx")
    job = RepairJob(
        model=str(directory / "in.onnx"),
        directory=str(directory / "out"),
        rules=list(rules or low_rules()),
        magnitudes=dict(magnitudes),
    )
    done = repair(job)
    return (onnx.load(done.files[0].path) if done.files else model), done


def feeds(net: PhoneNet) -> list[Arrays]:
    return [dict(sample) for sample in net.samples]


def close(found: list[Arrays], expected: list[Arrays], share: float) -> bool:
    pairs = [(f[n], e[n]) for f, e in zip(found, expected, strict=True) for n in e]
    return all(
        f.shape == e.shape and np.allclose(f, e, rtol=1e-3, atol=share * np.abs(e).max()) for f, e in pairs
    )


@pytest.mark.parametrize("name", REPAIRED)
def test_wrong_in_half_before_and_right_after(host: Host, tmp_path: Path, name: str) -> None:
    rule, exact = REPAIRED[name]
    net = PLANTED[name]
    model = onnx.load(net.build(tmp_path))
    before = measured(model, net, tmp_path / "before")
    assert before.sqnr_db is not None
    assert before.sqnr_db < LEAST or "half-vanished" in [f.rule for f in before.findings]
    result, done = apply(model, before.magnitudes, tmp_path / "repair")
    assert rule in [f.rule for f in done.fired]
    expected = reference(model, feeds(net))
    found = reference(result, feeds(net))
    assert same_bits(found, expected) if exact else close(found, expected, MOMENTS)
    after = measured(result, net, tmp_path / "after")
    assert after.sqnr_db is None or after.sqnr_db >= LEAST
    through = through_mnn(host, result, feeds(net), tmp_path / "mnn")
    assert not isinstance(through, str), through
    assert close(through, found, 1e-4)
    assert [v.name for v in result.graph.output] == [v.name for v in model.graph.output]
    assert not apply(result, after.magnitudes, tmp_path / "again")[1].fired


@pytest.mark.parametrize("name", REPAIRED)
def test_nothing_is_scaled_that_was_not_measured(tmp_path: Path, name: str) -> None:
    model = onnx.load(PLANTED[name].build(tmp_path))
    done = apply(model, {}, tmp_path / "repair")[1]
    by_pattern = {"variance-by-moments"} | ({"unshifted-exponential"} if "softmax" in name else set())
    assert {f.rule for f in done.fired} <= by_pattern


NUMBERS = {"m": Magnitude(3.0, 0.1)}
LEFT_ALONE: dict[str, tuple[str, dict[str, Any], dict[str, tuple[float, float]]]] = {
    "a magic number that rounds": (
        "s = Add(x, c) y = Sub(s, c)",
        {"c": np.float32(12582912)},
        {"s": (12582915.0, 12582900.0), "y": (3.0, 0.0)},
    ),
    "an offset that float32 loses much in": (
        "s = Add(x, c) y = Sub(s, c)",
        {"c": np.float32(50_000)},
        {"s": (50_003.0, 49_997.0), "y": (3.0, 0.1)},
    ),
    "a small offset": (
        "s = Add(x, c) y = Sub(s, c)",
        {"c": np.float32(8)},
        {"s": (11.0, 5.0), "y": (3.0, 0.1)},
    ),
    "another offset": (
        "s = Add(x, c) y = Sub(s, d)",
        {"c": np.float32(5000), "d": np.float32(4999)},
        {"s": (5003.0, 4997.0), "y": (4.0, 0.1)},
    ),
    "an offset that makes it larger": (
        "s = Add(x, c) y = Sub(s, c)",
        {"c": np.full((5, 1, 4), 5000, np.float32)},
        {"s": (5003.0, 4997.0), "y": (3.0, 0.1)},
    ),
    "a clip that leaves something": (
        "p = Clip(x, lo, hi) y = Sub(one, p)",
        {"lo": np.float32(0), "hi": np.float32(0.9), "one": np.float32(1)},
        {"p": (0.9, 0.1), "y": (1.0, 0.1)},
    ),
    "a quotient that may be negative": ("q = Div(x, x) y = Log(q)", {}, {"q": (1e6, 1e-6)}),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_only_looks_like_it_is_left_alone(tmp_path: Path, name: str) -> None:
    lines, weights, values = LEFT_ALONE[name]
    net = written(name, "", lines, {"x": ((2, 4), normal())}, weights, planted=False)
    magnitudes = {key: Magnitude(*value) for key, value in values.items()}
    rules = ("offset-taken-away", "complement-of-clip", "logarithm-of-quotient")
    assert not apply(onnx.load(net.build(tmp_path)), magnitudes, tmp_path / "repair", *rules)[1].fired


FORMS = {
    "taken away first": ("d = Sub(x, c) y = Add(c, d)", "d"),
    "of two sums": ("s = Add(x, c) t = Add(c, z) y = Sub(s, t)", "s"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_of_an_offset(tmp_path: Path, name: str) -> None:
    lines, total = FORMS[name]
    feeds_of = {"x": ((2, 4), normal()), **({"z": ((2, 4), normal())} if "z" in lines else {})}
    net = written(name, "", lines, feeds_of, {"c": np.float32(5000)}, planted=False)
    model = onnx.load(net.build(tmp_path))
    magnitudes = {total: Magnitude(5003.0, 4997.0), "y": Magnitude(3.0, 0.1)}
    result, done = apply(model, magnitudes, tmp_path / "repair", "offset-taken-away")
    assert [f.rule for f in done.fired] == ["offset-taken-away"]
    assert close(reference(result, feeds(net)), reference(model, feeds(net)), 1e-3)


def test_the_complement_of_a_clip_has_the_same_bits(tmp_path: Path) -> None:
    lines = "p = Clip(x, lo, hi) y = Sub(one, p)"
    weights = {"lo": np.float32(1e-7), "hi": np.float32(1 - 1e-6), "one": np.float32(1)}
    net = written("bits", "", lines, {"x": ((64, 64), uniform(-0.1, 1.1))}, weights, planted=False)
    model = onnx.load(net.build(tmp_path))
    result, done = apply(model, NUMBERS, tmp_path / "repair", "complement-of-clip")
    assert [f.rule for f in done.fired] == ["complement-of-clip"]
    assert same_bits(reference(result, feeds(net)), reference(model, feeds(net)))


@pytest.mark.parametrize("kind", sorted({net.kind for net in SOUND.values()}))
def test_a_sound_net_stays_as_good(tmp_path: Path, kind: str) -> None:
    for number, net in enumerate(net for net in SOUND.values() if net.kind == kind):
        directory = tmp_path / str(number)
        directory.mkdir()
        model = onnx.load(net.build(directory))
        before = measured(model, net, directory / "before")
        result, done = apply(model, before.magnitudes, directory / "repair")
        if not done.fired:
            continue
        after = measured(result, net, directory / "after")
        assert after.sqnr_db is None or after.sqnr_db >= LEAST, net.name
        assert close(reference(result, feeds(net)), reference(model, feeds(net)), 1e-4), net.name


def test_a_large_average_is_a_mean(host: Host, tmp_path: Path) -> None:
    net = PLANTED["global average pooling of a large map"]
    model = onnx.load(net.build(tmp_path))
    result, done = apply(model, {}, tmp_path / "repair")
    assert [f.rule for f in done.fired] == ["large-pooling"]
    assert [n.op_type for n in result.graph.node if n.op_type != "Constant"] == ["ReduceMean"]
    expected = reference(model, feeds(net))
    assert close(reference(result, feeds(net)), expected, 1e-6)
    through = through_mnn(host, result, feeds(net), tmp_path / "mnn")
    assert not isinstance(through, str)
    assert close(through, expected, 1e-5)


SMALL = {
    "32 by 32": ("y = GlobalAveragePool(x)", 32),
    "a window that is not the map": ("y = AveragePool<kernel_shape = [64, 64]>(x)", 128),
    "padded": ("y = AveragePool<kernel_shape = [64, 64], pads = [1, 1, 1, 1]>(x)", 64),
}


@pytest.mark.parametrize("name", SMALL)
def test_another_average_is_left_alone(tmp_path: Path, name: str) -> None:
    lines, size = SMALL[name]
    net = written(name, "", lines, {"x": ((1, 2, size, size), uniform())}, planted=False)
    assert not apply(onnx.load(net.build(tmp_path)), {}, tmp_path / "repair")[1].fired


def test_an_open_size_counts_as_large_where_a_run_was_measured(tmp_path: Path) -> None:
    net = written(
        "open",
        "",
        "y = GlobalAveragePool(x)",
        {"x": ((1, 2, "h", "h"), uniform())},
        planted=False,
        sizes={"h": (8, 9, 10)},
    )
    model = onnx.load(net.build(tmp_path))
    assert not apply(model, {}, tmp_path / "without")[1].fired
    assert apply(model, {"x": Magnitude(1.0, 0.1)}, tmp_path / "with")[1].fired


def test_what_a_body_uses_and_an_output_keep_their_values(tmp_path: Path) -> None:
    """A value that is kept scaled is used by a branch, by a scaled node and as an output."""
    net = written(
        "branch",
        "",
        """q = Mul(x, x) s = ReduceSum<keepdims = 1>(q, a) r = Sqrt(s) m = ReduceMax<keepdims = 0>(x)
            c = Greater(m, zero) t = If(c) <then_branch = then () => (float[4, 1] u) { u = Identity(r) },
                else_branch = other () => (float[4, 1] v) { v = Neg(r) }>
            d = Div(x, r) p = Mul(t, k) y = Add(d, p)""",
        {"x": ((4, 256), normal(200))},
        {"a": np.array([1]), "zero": np.float32(0), "k": np.float32(1e-4)},
        planted=True,
    )
    model = onnx.load(net.build(tmp_path))
    for name in ("r", "s"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, [4, 1]))
    magnitudes = measured(model, net, tmp_path / "before").magnitudes
    result, done = apply(model, magnitudes, tmp_path / "repair")
    assert [f.rule for f in done.fired] == ["power-of-two"]
    assert same_bits(reference(result, feeds(net)), reference(model, feeds(net)))


def test_a_mask_is_not_scaled(tmp_path: Path) -> None:
    """What softmax makes of a mask's number and of infinity is the same."""
    for name in (
        "causal attention, mask -1e+09",
        "mask of -3.4e+38 chosen",
        "rows masked throughout by -1e+09",
    ):
        directory = tmp_path / name[:4]
        directory.mkdir()
        model = onnx.load(SOUND[name].build(directory))
        magnitudes = measured(model, SOUND[name], directory / "before").magnitudes
        assert not apply(model, magnitudes, directory / "repair")[1].fired, name
