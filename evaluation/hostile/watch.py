"""Run one command in a sandbox, watch its processes, and say what it did that it must not."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.hostile.case import Canary
from evaluation.places import SOURCES

WALL = 60.0  # seconds, less those in which the processes waited for a processor that others had
LONGEST = 600.0
# --timeout: so long may one step of a command take, so that a model that never ends is told within WALL
STEP = 15
GROWTH = 1 << 30
MOST = 6 << 30  # resident bytes at which a command is stopped, so that the machine lives
PAGE = os.sysconf("SC_PAGE_SIZE")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, <linux/prctl.h>
FAULTS = ("executed", "written", "read", "crashed", "slow", "grew", "raw", "left")
SCRIPT = "<script>document.title='executed'"  # what names in hostile files hold


@dataclass
class Call:
    """One command's end.

    ``code`` is None where it was stopped; ``peak`` is the resident memory of its processes together.
    """

    command: str
    code: int | None = None
    seconds: float = 0.0
    peak: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    said: str = ""


def environment(canary: Canary) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH")}
    return kept | {
        "HOME": str(canary.root / "home"),
        "TMPDIR": str(canary.root / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(SOURCES),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def arguments(command: str, path: Path, out: Path, extra: tuple[str, ...]) -> list[str]:
    """The command line of *command* on *path*, writing under *out*."""
    given = str(path) if not path.name.startswith("-") else f"./{path}"
    limit = ["--timeout", str(STEP)] if command in ("prepare", "compare", "verify", "bisect", "json") else []
    if command == "prepare":
        return ["prepare", given, "-o", str(out / "bundle"), *extra, *limit]
    if command == "compare":
        return ["compare", given, given, *extra, *limit]
    if command == "consolidate":
        return ["consolidate", given, "-o", str(out / "weights.safetensors")]
    if command == "json":
        return [
            "json",
            given,
            "-o",
            str(out / ("back.mnn" if path.suffix == ".json" else "model.json")),
            *limit,
        ]
    if command == "bisect":
        return ["bisect", given, "-o", str(out / "repro"), *limit]
    return [command, given, *limit]


def run(
    command: str,
    path: Path,
    canary: Canary,
    extra: tuple[str, ...] = (),
    number: int = 0,
    argv: list[str] | None = None,
) -> Call:
    """Run it (or *argv* in its place), and judge."""
    out = canary.root / "out" / f"{number}-{command}"
    out.mkdir(parents=True, exist_ok=True)
    argv = argv or [sys.executable, "-m", "mnnprep", *arguments(command, path, out, extra)]
    call = Call(command)
    before = snapshot(canary.root)
    started = time.monotonic()
    with (out / "stdout").open("wb") as stdout, (out / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            argv,
            cwd=canary.root / "cwd",
            env=environment(canary),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        call.code, call.peak, seen = watch(process, started)
    call.seconds = time.monotonic() - started
    left = survivors(seen - {process.pid})
    judge(call, canary, out, before)
    if left and call.code is not None:
        call.faults["left"] = f"{len(left)} processes live on"
    return call


def watch(process: subprocess.Popen[bytes], started: float) -> tuple[int | None, int, set[int]]:
    """Wait for its end, or end it; its exit code, the peak of the resident memory, and the processes that it
    had.
    """
    peak, seen = 0, {process.pid}
    starved: dict[int, float] = {}
    while process.poll() is None:
        tree = descendants(process.pid) | {process.pid}
        seen |= tree
        peak = max(peak, sum(map(resident, tree)))
        starved |= {pid: waited(pid) for pid in tree}
        spent = time.monotonic() - started
        if spent - sum(starved.values()) > WALL or spent > LONGEST or peak > MOST:
            end(tree)
            process.wait()
            return None, peak, seen
        time.sleep(0.05)
    return process.returncode, peak, seen


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{waiting[-1]}/task"):
                text = Path(f"/proc/{waiting[-1]}/task/{task}/children").read_text()
                new = {int(p) for p in text.split()} - found
                found |= new
                waiting[:0] = new
        waiting.pop()
    return found


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def waited(pid: int) -> float:
    """Seconds for which the process was ready to run and did not (the second number of schedstat,
    Documentation/scheduler/sched-stats.rst).
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def end(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def adopt() -> None:
    """Have orphans of the commands become children of this process, so that they are found and reaped."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def survivors(pids: set[int]) -> set[int]:
    """Those of *pids*, and orphans of theirs, that live one second later; they are ended."""
    waited = time.monotonic()
    alive = {p for p in pids if _alive(p)}
    while alive and time.monotonic() - waited < 1.0:
        time.sleep(0.1)
        alive = {p for p in alive if _alive(p)}
    end(alive)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
    return alive


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time and inode of everything but what a command may write."""
    found = {}
    for top in ("model", "secrets", "home", "cwd", "fired"):
        for directory, names, files in os.walk(root / top):
            for name in [*names, *files]:
                path = os.path.join(directory, name)
                with contextlib.suppress(OSError):
                    stat = os.lstat(path)
                    found[path] = (
                        stat.st_size if name in files else 0,
                        stat.st_mtime_ns if name in files else 0,
                        stat.st_ino,
                    )
    return found


def judge(call: Call, canary: Canary, out: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Enter what the command did that it must not."""
    after = snapshot(canary.root)
    changed = sorted(p for p in after.keys() | before.keys() if after.get(p) != before.get(p))
    stdout, stderr = ((out / name).read_bytes()[-(1 << 24) :] for name in ("stdout", "stderr"))
    texts = [t.decode("utf-8", "replace") for t in (stdout, stderr)]
    call.said = last_line(texts[1]) or last_line(texts[0])
    code = [p for p in changed if p.startswith(canary.executed)]
    if code:
        call.faults["executed"] = "its code ran"
        with contextlib.suppress(OSError):
            os.unlink(canary.executed)
    # `report BUNDLE` writes that file alone, which the user named by naming the bundle.
    own = {str(canary.root / "model/bundle/report.html")} if call.command == "report" else set()
    other = [p for p in changed if p not in code and p not in own]
    if other:
        call.faults["written"] = ", ".join(
            os.path.relpath(os.fsencode(p), os.fsencode(canary.root)).decode("utf-8", "replace")
            for p in other[:3]
        )
    if place := leaked(canary, out):
        call.faults["read"] = f"the secret is in {place}"
    if call.code is None:
        call.faults["grew" if call.peak > MOST else "slow"] = (
            f"stopped at {call.seconds:.0f} s, {call.peak >> 20} MB"
        )
    elif call.code not in (0, 1, 2, 3) or b"Traceback (most recent call last)" in stderr:
        call.faults["crashed"] = f"exit {call.code}: {call.said[:120]}"
    raw = unclean("".join(texts))
    for report in out.rglob("*.html"):
        raw = raw or ("a script in the report" if SCRIPT in report.read_text(errors="replace") else "")
    if raw:
        call.faults["raw"] = raw


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")[:300]


def unclean(text: str) -> str:
    """A sign that a terminal obeys, outside of tabs and ends of lines."""
    for sign in text:
        if (
            unicodedata.category(sign) in ("Cc", "Cf")
            and sign not in "\n\t\r\xad\ufeff\u200b\u200c\u200d\u2060"
        ):
            return f"U+{ord(sign):04X} reaches the terminal"
    return ""


# --- the secret, however it is written
# ------------------------------------------------------------------------------


def spellings(token: bytes) -> list[bytes]:
    """The token as bytes, text and arrays, each cut to its first quarter so that a part of it is found."""
    values = np.frombuffer(token, "<f4")[:4]
    part = token[:16]
    single = np.frombuffer(part, np.uint8)
    arrays = [values.astype(t) for t in ("<f4", "<f8", "<f2")] + [
        single.astype(t) for t in ("<f4", "<i4", "<i8", "<f8", "<f2", "<i2")
    ]
    texts = [part.hex(), part.hex().upper(), base64.b64encode(part[:15]).decode(), str(part)[2:-1]]
    hexed = token.hex().encode()[:16]
    return [
        part,
        *(a.tobytes() for a in arrays),
        *(t.encode() for t in texts),
        np.frombuffer(hexed, np.uint8).astype("<f4").tobytes(),
    ]


def leaked(canary: Canary, out: Path) -> str:
    """The first output with the token in it, or empty."""
    wanted = re.compile(b"|".join(re.escape(s) for s in spellings(canary.token)), re.DOTALL)
    numbers = [f"{v:.5f}"[:7].encode() for v in np.frombuffer(canary.token, "<f4")]
    for path in sorted(out.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        for name, data in contents(path):
            if wanted.search(data) or sum(n in data for n in numbers) >= 5:
                return f"{path.name}{name}"
    return ""


def contents(path: Path) -> list[tuple[str, bytes]]:
    """A file's bytes, and those of its members if it is an archive."""
    data = path.read_bytes()[: 1 << 28]
    found = [("", data)]
    if data[:2] == b"PK":
        with (
            contextlib.suppress(zipfile.BadZipFile, OSError, NotImplementedError),
            zipfile.ZipFile(path) as archive,
        ):
            found += [
                (f":{i.filename}", archive.read(i)) for i in archive.infolist() if i.file_size < 1 << 28
            ]
    return found
