"""Outputs that samples bring along: the source must compute them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mnnprep.errors import RefusedError
from mnnprep.evidence.check import Status
from mnnprep.model.files import save_arrays
from mnnprep.reference.expected_outputs import compare_given

X, Y = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)


def sample(directory: Path, **outputs: np.ndarray) -> str:
    save_arrays(directory / "a.npz", {"inputs/x": X, **{f"outputs/{n}": a for n, a in outputs.items()}})
    save_arrays(directory / "b.npz", {"x": X})
    return str(directory)


def test_the_same_outputs_pass_and_are_counted(tmp_path: Path) -> None:
    (check,) = compare_given(
        sample(tmp_path, y=Y + 1e-6),
        [("samples a.npz", {"y": Y}), ("samples b.npz", {"y": Y + 9}), ("seed 0", {"y": Y})],
    )
    assert (check.check, check.status, check.numbers) == ("given_outputs", Status.PASSED, {"samples": 1})


def test_without_outputs_there_is_no_check(tmp_path: Path) -> None:
    assert compare_given(sample(tmp_path), [("samples a.npz", {"y": Y})]) == []
    assert compare_given("", [("seed 0", {"y": Y})]) == []


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"y": Y + 1}, "a.npz: y differs beyond the tolerance"),
        ({"y": Y[:1]}, "a.npz: y shape"),
        ({"z": Y}, "a.npz: the source has no output z"),
    ],
)
def test_other_outputs_are_refused(outputs: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="does not compute the outputs") as caught:
        compare_given(sample(tmp_path, **outputs), [("samples a.npz", {"y": Y})])
    assert words in caught.value.seen
