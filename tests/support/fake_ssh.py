"""A host reached by ssh that is this machine: programs called ssh and scp, put on PATH by a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

PROGRAM = """#!{python}
import json, os, shutil, subprocess, sys, time
from pathlib import Path

fault = json.loads({fault!r})
name, words = Path(sys.argv[0]).name, sys.argv[1:]
with open({log!r}, "a") as log:
    print(json.dumps([name, *words]), file=log)
operands = words[words.index("--") + 1:]
command = operands[-1] if name == "ssh" else " ".join(operands)
if fault.get("on") and fault["on"] in f"{{name}} {{command}}":
    print(fault.get("says", ""), file=sys.stderr)
    if fault.get("hangs"):
        time.sleep(3600)
    if fault.get("removes"):
        shutil.rmtree(Path("/" + operands[0].partition(":/")[2]) / fault["removes"])
    else:
        sys.exit(fault["code"])
if name == "ssh":
    print(fault.get("greets", ""), flush=True)
    sys.exit(subprocess.run(["sh", "-c", command], env={{**os.environ, "TMPDIR": {temporary!r}}}).returncode)
local = ["/" + word.partition(":/")[2] if ":/" in word else word for word in operands]
sys.exit(subprocess.run(["cp", "-r", *local]).returncode)
"""


class FakeHost:
    """The host: what the programs were called with, and what is left in its temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "calls.jsonl"
        self.temporary = directory / "tmp"
        self.temporary.mkdir(parents=True)

    @property
    def calls(self) -> list[list[str]]:
        """Every call of ssh and scp, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def left(self) -> list[str]:
        """What lies in the host's temporary directory."""
        return [path.name for path in self.temporary.iterdir()]


def fake_host(monkeypatch: pytest.MonkeyPatch, directory: Path, **fault: object) -> FakeHost:
    """Put an ssh and an scp on PATH.

    *fault* says what goes wrong: ``on``, a part of the call that fails with ``code`` and ``says`` a line, or
    ``hangs``, or has ``removes`` gone before; ``greets``: a line that the shell prints first.
    """
    host, programs = FakeHost(directory), directory / "bin"
    programs.mkdir()
    for name in ("ssh", "scp"):
        (programs / name).write_text(
            PROGRAM.format(
                python=sys.executable,
                fault=json.dumps(fault),
                log=str(host.log),
                temporary=str(host.temporary),
            )
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return host
