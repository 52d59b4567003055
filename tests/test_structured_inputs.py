"""Structured inputs: what each kind is, its statistics, its bytes; where a survey turns to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnprep.evidence.check import Status
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import make_wants
from mnnprep.model.signature import TensorSpec
from mnnprep.reference import survey as module
from mnnprep.reference.inputs import synthesize
from mnnprep.reference.structured import VARIANTS, kind_of, structured
from mnnprep.reference.survey import SEARCH_SCALES, survey
from support.fakes import Fake

IMAGE = TensorSpec("x", "float32", (2, 3, 32, 32))
SOUND = TensorSpec("x", "float32", (1, 4000))
IDS = TensorSpec("x", "int64", (4, 64), (0.0, 99.0))


def made(spec: TensorSpec, variant: int, seed: int = 0) -> Any:
    values = structured(spec, spec.sizes({}), seed, variant)
    assert values is not None
    return values


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (IMAGE, "image"),
        (TensorSpec("x", "uint8", (1, 32, 48, 3)), "image"),
        (SOUND, "sound"),
        (IDS, "ids"),
        (TensorSpec("x", "float32", (2, 16)), None),
        (TensorSpec("x", "float32", (1, 16, 32, 32)), None),
        (TensorSpec("attention_mask", "int64", (4, 64), (0.0, 1.0)), None),
        (TensorSpec("x", "int64", (4, 64)), None),
    ],
)
def test_the_kind_of_an_input(spec: TensorSpec, kind: str | None) -> None:
    assert kind_of(spec, spec.sizes({})) == kind
    assert (structured(spec, spec.sizes({}), 0, 0) is None) == (kind is None)


@pytest.mark.parametrize("spec", [IMAGE, SOUND, IDS, TensorSpec("x", "uint8", (1, 40, 24, 3))])
@pytest.mark.parametrize("variant", range(VARIANTS))
def test_a_seed_gives_the_same_values_in_the_range(spec: TensorSpec, variant: int) -> None:
    values = made(spec, variant)
    assert (values.shape, values.dtype) == (spec.shape, np.dtype(spec.dtype))
    assert values.tobytes() == made(spec, variant).tobytes()
    assert values.tobytes() != made(spec, variant, seed=1).tobytes()
    low, high = spec.range or ((-1, 1) if spec.dtype == "float32" else (0, 255))
    assert low <= values.min()
    assert values.max() <= high


def neighbours(values: Any) -> float:
    """How much neighbours differ, by how much any two values do."""
    return float(np.abs(np.diff(values)).mean() / values.std())


def test_images_are_smooth_have_edges_or_strokes() -> None:
    noise = synthesize((IMAGE,), {}, 0, {})["x"]
    natural, shapes, strokes = (made(IMAGE, v) for v in range(VARIANTS))
    assert neighbours(natural) < 0.5
    assert neighbours(noise) > 1
    steps = np.abs(np.diff(shapes))
    assert np.median(steps) < 0.1 < steps.max()
    assert all(len(np.unique(channel)) == 2 for image in strokes for channel in image)


def test_sounds_rise_pause_or_strike() -> None:
    chirp, bursts, strikes = (made(SOUND, v)[0] for v in range(VARIANTS))
    crossings = [int((np.diff(np.sign(part)) != 0).sum()) for part in (chirp[:1000], chirp[-1000:])]
    assert crossings[1] > 2 * crossings[0] > 0
    assert (bursts[900:1500] == 0).all()
    assert np.abs(bursts[:800]).max() > 0.1
    assert 0.001 < np.mean(strikes != 0) < 0.03


def test_ids_follow_zipf_are_padded_or_alone() -> None:
    zipf, padded, alone = (made(IDS, v) for v in range(VARIANTS))
    assert 0.3 < np.mean(zipf == 0) < 0.7
    assert len(np.unique(zipf)) > 10
    assert any((row[-3:] == 0).all() for row in padded)
    assert len(np.unique(alone)) == 1


def sees_smooth(x: Any) -> Any:
    """A detector that sees nothing in noise."""
    rough = np.abs(np.diff(x)).mean((1, 2, 3)) / x.std((1, 2, 3))
    return np.where(rough < 0.7, x.mean((1, 2, 3)), 0).astype(np.float32)


def test_an_output_that_noise_leaves_unmoved_is_moved_by_structure() -> None:
    found = survey(Fake("x=float32[2,3,32,32]", sees_smooth), InputSpecs())
    assert next(c for c in found.checks if c.check == "vacuity").status is Status.PASSED
    assert "structured" in found.cases[-1].origin


def test_without_structured_inputs_the_same_net_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VARIANTS", 0)
    found = survey(Fake("x=float32[2,3,32,32]", sees_smooth), InputSpecs())
    assert next(c for c in found.checks if c.check == "vacuity").status is Status.FAILED


def test_the_search_stops_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    def counted(x: Any) -> Any:
        nonlocal runs
        runs += 1
        return np.zeros(2, np.float32)

    survey(Fake("x=float32[2,3,32,32]", counted), InputSpecs())
    with_search, runs = runs, 0
    monkeypatch.setattr(module, "VARIANTS", 0)
    monkeypatch.setattr(module, "SEARCH_SCALES", ())
    survey(Fake("x=float32[2,3,32,32]", counted), InputSpecs())
    assert with_search - runs == VARIANTS + len(SEARCH_SCALES)


def ignoring(x: Any, key_padding_mask: Any) -> Any:
    """Softmax over what a mask does not ignore: NaN where it ignores all, as torch has it."""
    kept = np.where(key_padding_mask, 0.0, np.exp(x))
    with np.errstate(invalid="ignore"):
        return (kept / kept.sum(1, keepdims=True)).astype(np.float32)


def test_masks_that_ignore_everything_are_turned() -> None:
    specs = "x=float32[batch,time];key_padding_mask=bool[batch,time]"
    found = survey(Fake(specs, ignoring), make_wants(dims=("batch=1:4", "time=2:6")))
    assert all(np.isfinite(c.outputs["y"]).all() for c in found.cases)
    assert any(c.inputs["key_padding_mask"].any() for c in found.cases)


def test_a_source_that_is_never_finite_keeps_its_cases() -> None:
    found = survey(Fake("x=float32[2,3]", lambda x: np.full_like(x, np.nan)), InputSpecs())
    assert [c.origin for c in found.cases[:2]] == ["seed 0", "seed 1"]


def test_bits_of_open_length_keep_one_in_every_row() -> None:
    spec = TensorSpec("m", "int64", ("batch", "n"))
    for seed in range(20):
        rows = synthesize((spec,), {"batch": 8, "n": 2}, seed, {"m": (0.0, 1.0)})
        assert rows["m"].any(axis=1).all()
    alone = synthesize((spec,), {"batch": 64, "n": 1}, 0, {"m": (0.0, 1.0)})["m"]
    assert 0 < alone.mean() < 1
