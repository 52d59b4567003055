"""An emulator that emulates nothing, and environments for it: it runs the program in this Python."""

from __future__ import annotations

import sys
from pathlib import Path

import MNN
import pytest

from mnnprep.model.target import host_machine
from mnnprep.targets.places import EnvironmentRecord, engine_of, root_of, write_record

OTHER = "x86_64" if host_machine() == "arm64" else "arm64"  # an architecture that needs an emulator here

PROGRAM = """#!{python}
import os, sys
words = sys.argv[1:]
assert words[0] == "-L" and words[2] == "-cpu", words
{fault}
at = words.index("-c")
sys.argv = ["-c", *words[at + 2:]]
sys.stdin = None
exec(compile(words[at + 1], "boot", "exec"), {{"__name__": "__main__"}})
"""


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def fake_emulator(monkeypatch: pytest.MonkeyPatch, cache: Path, fault: str = "", arch: str = OTHER) -> None:
    """Put an emulator for *arch* on PATH that does *fault*, a line of Python, before it runs the program.

    Environments are looked for below *cache*.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    root, programs = root_of(arch), cache / "bin"
    programs.mkdir(parents=True)
    name = {"arm64": "qemu-aarch64-static", "x86_64": "qemu-x86_64-static"}[arch]
    (programs / name).write_text(PROGRAM.format(python=sys.executable, fault=fault))
    (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    (root / "tree" / "usr" / "bin").mkdir(parents=True)
    write_record(
        root, EnvironmentRecord(arch=arch, python=PYTHON, origin="a test", interpreter="usr/bin/python3.11")
    )
    fake_engine(arch, MNN.version())


def fake_engine(arch: str, version: str) -> Path:
    """An engine of *version* for *arch* whose packages are those of this Python; its directory."""
    directory = engine_of(arch, version)
    (directory / "site").mkdir(parents=True)
    write_record(directory, EnvironmentRecord(arch=arch, python=PYTHON, origin="a test", engine=version))
    return directory
