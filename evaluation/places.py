"""Where things lie in the project, and the environment in which its programs find each other."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"
NETS = ROOT / "evaluation" / "nets"
DATA = ROOT / "tests" / "data"


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, in which Python finds this mnnprep and these evaluations from anywhere."""
    path = os.pathsep.join(filter(None, (str(SOURCES), str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}
