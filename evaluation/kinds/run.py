"""Running one kind as a user does, by the command line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from evaluation.kinds.table import Kind

SOURCES = Path(__file__).parent / "sources"
TIMEOUT = 600.0
CODES = {"proven": 0, "unproven": 1, "usage": 2, "refused": 3}


@dataclass(frozen=True)
class Ran:
    """How a kind ended: the exit code, and what was printed."""

    kind: Kind
    code: int
    text: str
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it ended as it must; an end that is not proven says so itself."""
        said = self.kind.ends.upper() in self.text if self.code == 1 else True
        return self.code == CODES[self.kind.ends] and said

    def __str__(self) -> str:
        return f"{self.kind.source}: exit code {self.code}, must be {self.kind.ends}"


def copied(directory: Path) -> Path:
    """The sources in *directory*, where those that others write can be written."""
    return Path(shutil.copytree(SOURCES, directory / "sources"))


def ran(kind: Kind, root: Path, out: str) -> Ran:
    """Prepare *kind*, whose files lie in *root*, into *out* there."""
    path = root / kind.source.partition(":")[0]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    if kind.made_by and not path.exists():
        subprocess.run([sys.executable, kind.made_by], cwd=root, env=environment, check=True, timeout=TIMEOUT)
    words = [kind.source, *shlex.split(kind.options), "-o", out]
    trust = ["--trust"] if ".py:" in kind.source else []
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mnnprep", "prepare", *words, *trust],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Ran(kind, done.returncode, done.stdout + done.stderr, time.monotonic() - started)
