"""Killed at any moment, a run leaves the old bundle or the new one, no process, and nothing that the next run
does not take away.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation import kills  # here with fewer kills and no clock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the environment of processes")


def bundle(directory: Path, mark: str) -> Path:
    """A directory that is a bundle, as far as replacing it goes."""
    (directory / "cases").mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"schema": "mnnprep.bundle/1"}))
    (directory / "cases" / "mark").write_text(mark)
    return directory


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: thousands of files are synced."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.mark.parametrize("exchanging", [True, False], ids=["in one step", "without an exchange"])
def test_the_commit_killed_before_and_after_every_call_that_changes_the_disk(
    quick: Path, exchanging: bool
) -> None:
    place = kills.Place(quick, [bundle(quick / "old", "old"), bundle(quick / "new", "new")])
    done, wrong = kills.kill_commit(place, exchanging=exchanging)
    assert wrong == []
    assert done > 40


@pytest.mark.parametrize("number", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_prepare_killed_at_random_moments(tmp_path: Path, number: int) -> None:
    place = kills.Place.prepared(tmp_path)
    assert kills.kill_prepare(place, number, seed=1, patience=60) == {
        "the target is the old or the new bundle": [],
        "verify proves it": [],
        "no process 1 s later": [],
        "nothing is left after the next run": [],
    }
