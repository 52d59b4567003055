"""The nets for a phone: each is written, runs, and has a name of its own; how they are judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from evaluation.low_precision import NOTHING, Row, sqnr
from evaluation.phone import planted, sound
from evaluation.phone.net import PhoneNet
from support.rewriting import reference

PLANTED, SOUND = planted.nets(), sound.nets()


def test_there_are_enough_of_both_and_each_has_its_name() -> None:
    assert min(len(PLANTED), len(SOUND)) >= 60
    names = [net.name for net in (*PLANTED, *SOUND)]
    assert len(set(names)) == len(names)
    assert all(net.planted for net in PLANTED)
    assert not any(net.planted for net in SOUND)


@pytest.mark.parametrize("kind", sorted({net.kind for net in (*PLANTED, *SOUND)}))
def test_each_net_runs_and_its_samples_move_it(tmp_path: Path, kind: str) -> None:
    for number, net in enumerate(net for net in (*PLANTED, *SOUND) if net.kind == kind):
        directory = tmp_path / str(number)
        directory.mkdir()
        outputs = [
            run["y"] for run in reference(onnx.load(net.build(directory)), list(map(dict, net.samples)))
        ]
        assert all(np.isfinite(output).all() and np.abs(output).max() > 0 for output in outputs), net.name
        assert not np.array_equal(outputs[0], outputs[1]), net.name


def test_what_should_not_be_is_named() -> None:
    broken, fine = PLANTED[0], SOUND[0]

    def wrong(net: PhoneNet, high: float, low: float, repaired: float | None = None) -> str:
        return Row(net, high, low, repaired=repaired).wrong

    assert not wrong(broken, 120, 5)
    assert not wrong(broken, 120, 5, NOTHING)
    assert not wrong(fine, 120, 50, 45)
    assert wrong(broken, 120, 31)
    assert wrong(fine, 120, 29)
    assert wrong(fine, 20, 50)
    assert wrong(fine, 120, 50, 12)


def test_the_ratio() -> None:
    one = np.ones((2, 2), np.float32)
    assert sqnr([one * 1.1], [one]) == pytest.approx(20, abs=1e-4)
    assert sqnr([one], [one]) == float("inf")
    assert sqnr([one[0]], [one]) == NOTHING
    assert sqnr([one * np.nan], [one]) == NOTHING
