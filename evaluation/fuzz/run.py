"""Damage small valid files of every format and read them: nothing but a refusal or an answer may come of it.

    python -m evaluation.fuzz --count 20000 [--seed 0] [--kinds onnx,keras] [--through-workers 200]

Every input is a seed (`seeds.py`) with mutations by its bytes and its structure (`mutations.py`), drawn from
the seed and its number alone, so that any of them can be made again: ``--replay NUMBER`` reads that one and
lets its exception through.

In process, in forked batches, the readers of every command are called: what a file is, ``inspect``, ``check``
with its rules, the source of ``prepare``, the plan of ``consolidate``, samples, manifests and reports.
Through workers, the commands themselves are. A fault is an exception that is no `MnnprepError` (or an
`InternalError`), a call over ``--seconds``, a signal, or more than 1 GB of memory.  Prints a line for each
kind of file, writes every fault to ``WORK/faults``, and ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from evaluation.fuzz.mutations import damage
from evaluation.fuzz.seeds import GROUPS, Seed, load

BATCH = 400
GROWTH = 1 << 30  # bytes of address space beyond what a batch begins with
SILENCE = 60.0  # seconds in which a batch must come to its next input: a hang in native code hears no alarm
FAULTS = ("exception", "hang", "signal", "growth")
Call = tuple[str, Callable[[], Any]]


class Hang(BaseException):
    """Raised in a call that takes too long."""


def made(seeds: list[Seed], run: str, number: int) -> tuple[Seed, dict[str, bytes]]:
    """The input of that *number*: its seed, and its files, one of them damaged."""
    random = Random(f"{run}:{number}")
    kind = random.choice(sorted({seed.kind for seed in seeds}))
    seed = random.choice([seed for seed in seeds if seed.kind == kind])
    name = random.choice([next(iter(seed.files))] * 4 + list(seed.files))
    return seed, {**seed.files, name: damage(seed.files[name], name, random)}


def place(files: dict[str, bytes], directory: Path) -> Path:
    """Write the *files*; the path that a user would give."""
    for name, content in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    first = next(iter(files))
    return (
        directory
        if first in ("saved_model.pb", "manifest.json") or first.startswith("variables/")
        else directory / first
    )


def calls(kind: str, path: Path) -> Iterator[Call]:
    """What is called with a source of that *kind* at *path*, by name."""
    from mnnprep.bundle.manifest import read_manifest
    from mnnprep.bundle.report import render
    from mnnprep.commands.check import count
    from mnnprep.commands.consolidation import Options, RehearsalJob, rehearse
    from mnnprep.commands.inspect import read
    from mnnprep.commands.reading import PathJob
    from mnnprep.commands.resolve import FileJob, read_source
    from mnnprep.model.messages import InputSpecs
    from mnnprep.model.signature import TensorSpec
    from mnnprep.reference.samples import read_samples
    from mnnprep.repair.steps import CheckJob, check

    if kind == "bundle":
        yield "report", lambda: render(read_manifest(path))
        return
    if kind == "samples":
        specs = (TensorSpec("x", "float32", (1, 3)), TensorSpec("ids", "int64", ("n",)))[
            : 1 if path.suffix == ".npy" else 2
        ]
        yield "samples", lambda: read_samples(InputSpecs(samples=str(path)), specs)
        return
    if kind not in ("caffe", "mnn", "tflite"):
        rehearsal = RehearsalJob(
            checkpoint=str(path), base="", linked=[], options=Options(), shapes=None, shown=True
        )
        yield "consolidate", lambda: rehearse(rehearsal)
    if kind == "shards":
        return
    job = PathJob.of(path)
    yield "inspect", lambda: read(job)
    yield "count", lambda: count(job)
    source = FileJob(
        path=str(path),
        directory=str(path.parent),
        weights="",
        wants=InputSpecs(),
        trust=False,
        signature="",
        outputs=(),
    )
    yield "source", lambda: read_source(source)
    if kind == "onnx":
        yield "check", lambda: check(CheckJob(model=str(path)))


def tried(seed: Seed, files: dict[str, bytes], seconds: float) -> dict[str, Any]:
    """What came of reading one input: the calls, how many were refused, and the fault if there was one."""
    found: dict[str, Any] = {"calls": 0, "refused": 0}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        path = place(files, Path(directory))
        for name, call in calls(seed.kind, path):
            found["calls"] += 1
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                call()
            except Hang:
                found["fault"] = {"what": "hang", "call": name, "trace": traceback.format_exc(limit=-12)}
            except BaseException as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                fault = judged(error)
                found["refused"] += not fault
                if fault:
                    found["fault"] = {
                        "what": fault,
                        "call": name,
                        "trace": "".join(traceback.format_exception(error)),
                    }
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if "fault" in found:
                break
    return found


def judged(error: BaseException) -> str:
    """The fault that *error* is; empty for a refusal."""
    from mnnprep.errors import InternalError, MnnprepError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "growth"
        cause = cause.__cause__
    if isinstance(error, MnnprepError) and not isinstance(error, InternalError):
        str(error).encode("utf-8", "backslashreplace")
        return ""
    return "exception"


def batch(seeds: list[Seed], run: str, numbers: range, seconds: float, out: int) -> None:
    """Try every one of *numbers* in this process and tell of each on the pipe *out*; never returns."""
    status = Path("/proc/self/statm")
    mapped = int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 1 << 33
    resource.setrlimit(resource.RLIMIT_AS, (mapped + GROWTH, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def alarmed(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarmed)
    for number in numbers:
        os.write(out, json.dumps({"at": number}).encode() + b"\n")
        seed, files = made(seeds, run, number)
        os.write(
            out,
            json.dumps(tried(seed, files, seconds) | {"number": number, "kind": seed.kind}).encode() + b"\n",
        )
    os._exit(0)


def in_batches(seeds: list[Seed], run: str, numbers: range, seconds: float) -> Iterator[dict[str, Any]]:
    """What came of every input in process; a batch that ends early is blamed on the input it was at, and goes
    on after it.
    """
    start = numbers.start
    while start < numbers.stop:
        part = range(start, min(start + BATCH, numbers.stop))
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            with contextlib.suppress(BaseException):
                batch(seeds, run, part, seconds, writing)
            os._exit(70)
        os.close(writing)
        at, hung = start, False
        with open(reading, "rb", buffering=0) as pipe:
            for line in _lines(pipe):
                if line is None:
                    hung = True
                    os.kill(pid, signal.SIGKILL)
                    break
                message = json.loads(line)
                if "at" in message:
                    at = message["at"]
                else:
                    start = message["number"] + 1
                    yield message
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if start < part.stop:
            kind = made(seeds, run, at)[0].kind
            fault = {
                "what": "hang" if hung else "signal",
                "call": "",
                "trace": f"the process ended with {code}",
            }
            yield {"number": at, "kind": kind, "calls": 0, "refused": 0, "fault": fault}
            start = at + 1


def _lines(pipe: Any) -> Iterator[bytes | None]:
    """The lines of a pipe, None where none came for too long."""
    pending = b""
    while True:
        if not select.select([pipe], [], [], SILENCE)[0]:
            yield None
            return
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines


def through_workers(seeds: list[Seed], run: str, numbers: range) -> Iterator[dict[str, Any]]:
    """What came of the commands themselves: the exit code, and one JSON document on stdout."""
    for number in numbers:
        seed, files = made(seeds, run, number)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
            path = place(files, Path(directory, "in"))
            fault = {}
            for command in _commands(seed.kind, path, Path(directory, "out"), number):
                done, limit = None, 120
                with contextlib.suppress(subprocess.TimeoutExpired):
                    done = subprocess.run(
                        [sys.executable, "-m", "mnnprep", *command, "--json"],
                        capture_output=True,
                        timeout=limit,
                        check=False,
                    )
                what = (
                    "hang"
                    if done is None
                    else "signal"
                    if done.returncode < 0
                    else "exception"
                    if not _answered(done)
                    else ""
                )
                if what and not fault:
                    fault = {
                        "what": what,
                        "call": command[0],
                        "trace": (done.stderr if done else b"").decode(errors="replace")[-3000:],
                    }
        yield {"number": number, "kind": seed.kind, "calls": 1, "refused": 0} | (
            {"fault": fault} if fault else {}
        )


def _commands(kind: str, path: Path, out: Path, number: int) -> list[list[str]]:
    if kind == "bundle":
        return [["verify", str(path)]]
    if kind == "samples":
        return []
    if kind in ("safetensors", "shards"):
        return [["consolidate", str(path), "-o", f"{out}.safetensors"]]
    found = [["inspect", str(path)], ["check", str(path)]]
    return [*found, ["prepare", str(path), "-o", str(out)]] if number % 4 == 0 else found


def _answered(done: subprocess.CompletedProcess[bytes]) -> bool:
    try:
        json.loads(done.stdout)
    except ValueError:
        return False
    return done.returncode in (0, 1, 2, 3) and b"Traceback" not in done.stderr


class Tally:
    """The results by kind, and the faults on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.counts: dict[str, Counter[str]] = {}
        self.started = time.monotonic()

    def add(self, seeds: list[Seed], run: str, found: dict[str, Any]) -> None:
        counts = self.counts.setdefault(found["kind"], Counter())
        counts.update(inputs=1, calls=found["calls"], refused=found["refused"])
        fault = found.get("fault")
        if not fault:
            return
        counts[fault["what"]] += 1
        kept = self.directory / f"{found['kind']}-{found['number']}-{fault['what']}"
        shutil.rmtree(kept, ignore_errors=True)
        place(made(seeds, run, found["number"])[1], kept)
        (kept / "fault.txt").write_text(f"{fault['call']}\n{fault['trace']}", errors="backslashreplace")

    def show(self) -> int:
        """Print the table; the number of faults."""
        columns = ("inputs", "calls", "refused", *FAULTS)
        total: Counter[str] = Counter()
        for kind, counts in sorted(self.counts.items()):
            total += counts
            print(f"{kind:12} " + "  ".join(f"{counts[name]:6} {name}" for name in columns))
        seconds = time.monotonic() - self.started
        print(
            f"{'all':12} "
            + "  ".join(f"{total[name]:6} {name}" for name in columns)
            + f"  {total['calls'] / seconds:.0f} calls/s"
        )
        return sum(total[name] for name in FAULTS)


def replay(seeds: list[Seed], run: str, number: int) -> None:
    """Read one input again, its exception let through."""
    seed, files = made(seeds, run, number)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        path = place(files, Path(directory))
        print(seed.name, path)
        for name, call in calls(seed.kind, path):
            try:
                print(name, str(call())[:300].encode(errors="backslashreplace").decode())
            except Exception as error:
                if judged(error):
                    raise
                print(name, str(error).encode(errors="backslashreplace").decode())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=20_000, help="inputs read in process")
    parser.add_argument(
        "--through-workers", type=int, default=0, metavar="N", help="further inputs that the commands read"
    )
    parser.add_argument("--seed", default="0")
    parser.add_argument("--start", type=int, default=0, help="the first input's number")
    parser.add_argument("--seconds", type=float, default=10.0, help="for one call in process")
    parser.add_argument("--kinds", default="", help="comma-separated: onnx, keras, torch, ...")
    parser.add_argument("--groups", default=",".join(GROUPS), help="of seeds: light needs no framework")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/fuzz"), help="seeds and faults are kept here"
    )
    parser.add_argument("--replay", type=int, metavar="NUMBER")
    options = parser.parse_args()
    seeds = load(options.work, tuple(options.groups.split(",")))
    if options.kinds:
        seeds = [seed for seed in seeds if seed.kind in options.kinds.split(",")]
    if options.replay is not None:
        replay(seeds, options.seed, options.replay)
        return 0
    for module in (
        "numpy",
        "onnx",
        "onnx_ir",
        "onnx.checker",
        "h5py",
        "mnnprep.repair.steps",
        "mnnprep.bundle.report",
    ):
        with contextlib.suppress(ImportError):  # before the batches fork
            __import__(module)
    for _ in calls("onnx", Path("absent.onnx")):
        pass
    tally = Tally(options.work / "faults")
    last = options.start + options.count
    for found in in_batches(seeds, options.seed, range(options.start, last), options.seconds):
        tally.add(seeds, options.seed, found)
    for found in through_workers(seeds, options.seed, range(last, last + options.through_workers)):
        tally.add(seeds, options.seed, found)
    return 1 if tally.show() else 0
