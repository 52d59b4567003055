"""A slice of the fuzzing that :mod:`evaluation.fuzz` does: damaged files of every format are read or refused,
nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from evaluation import places


def test_five_hundred_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "evaluation.fuzz",
        "--count",
        "500",
        "--groups",
        "light",
        "--seed",
        "slice",
        "--seconds",
        "60",
        "--work",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=places.environment(), check=False)
    faults = "\n".join(
        f"{path.parent.name}: {path.read_text()[-2000:]}" for path in tmp_path.glob("faults/*/fault.txt")
    )
    assert done.returncode == 0, done.stdout + faults + done.stderr[-2000:]
    assert "   500 inputs" in done.stdout


def test_a_fault_is_counted_kept_and_made_again(tmp_path: Path) -> None:
    """The same program, with a reader that fails: it must not pass."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys\n"
        "from evaluation.fuzz import run\n"
        "import mnnprep.reference.samples as samples\n"
        "def fails(*_): raise KeyError('absent')\n"
        "samples.read_samples = fails\n"
        "sys.exit(run.main())\n"
    )
    command = [
        sys.executable,
        str(broken),
        "--count",
        "3",
        "--groups",
        "light",
        "--kinds",
        "samples",
        "--work",
        str(tmp_path / "work"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=places.environment(), check=False)
    assert done.returncode == 1, done.stderr
    assert "3 exception" in done.stdout
    kept = sorted((tmp_path / "work" / "faults").iterdir())
    assert [path.name for path in kept] == [f"samples-{number}-exception" for number in range(3)]
    assert "KeyError: 'absent'" in (kept[0] / "fault.txt").read_text()
    again = subprocess.run(
        [*command, "--replay", "1"], capture_output=True, text=True, env=places.environment(), check=False
    )
    assert "KeyError: 'absent'" in again.stderr
