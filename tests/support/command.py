"""Calling the command line: in this process, which is fast, or as a program of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mnnprep
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.cli.main import main
from mnnprep.evidence.check import Check

ROOT = Path(mnnprep.__file__).parent.parent
SUPPORT = Path(__file__).parent


class Result(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def call(*arguments: str | Path) -> Result:
    """``mnnprep *arguments`` in this process (its steps have their workers all the same)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as leaving:
            code = leaving.code
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, from which this mnnprep is found."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **changes}


def program(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Result:
    """``python -m mnnprep *arguments`` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mnnprep", *map(str, arguments)],
        cwd=cwd,
        env=dict(env) if env is not None else environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
    )
    return Result(
        done.returncode,
        done.stdout.decode(errors="surrogateescape"),
        done.stderr.decode(errors="surrogateescape"),
    )


def answer(code: str, *arguments: str | Path, cwd: Path | None = None) -> Any:
    """The value of ``answer`` once *code* has run with *arguments* in a Python of its own.

    It comes back through a file: stdout belongs to whatever the code imports, in an order that buffering
    decides.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "answer.json")
        keep = f"\nimport json, pathlib; pathlib.Path({str(file)!r}).write_text(json.dumps(answer))\n"
        done = subprocess.run(
            [sys.executable, "-c", code + keep, *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(file.read_text())


def prepared(source: str | Path, target: Path, *options: str | Path) -> Manifest:
    """The manifest of ``mnnprep prepare``, which must have written a bundle."""
    result = call("prepare", source, "-o", target, *options)
    assert (target / "manifest.json").is_file(), result.err
    manifest = read_manifest(target)
    assert result.code == manifest.verdict.exit_code, result.err
    return manifest


def checks_of(manifest: Manifest, name: str) -> list[Check]:
    """The checks of that name in a bundle's evidence."""
    return [c for c in manifest.evidence if c.check == name]


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below *directory* with its bytes (a directory ends with a slash), but for Python's
    caches.
    """
    paths = [p for p in sorted(directory.rglob("*")) if "__pycache__" not in p.parts]
    return {
        f"{p.relative_to(directory)}/" if p.is_dir() else str(p.relative_to(directory)): (
            b"" if p.is_dir() else p.read_bytes()
        )
        for p in paths
    }
