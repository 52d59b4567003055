"""Hostile files of every format through every command, with canaries: nothing may run, write, read elsewhere,
crash, hang or grow.

    python -m evaluation.hostile [--only PATTERN]... [--commands NAME,NAME] [--jobs N] [--keep DIR] [--list]
                                 [--controls] [--json ROWS]

Each file has a sandbox of its own (HOME, working directory, TMPDIR, a directory of secrets, a place that only
its code or operators would write to); each command is a process in it with 60 s (less what it waited for a
busy processor) and ``--timeout 15`` for its steps.  Told for each kind (format and family) are the files, the
calls, and the calls in which code of the file ran (*executed*), a file was changed outside of the target and
TMPDIR (*written*), bytes of the secret stood in an output (*read*), the exit code was 70, a signal or a
traceback (*crashed*), 60 s were not enough (*slow*), the processes together grew by over 1 GB beyond the same
command on a right file of the format (*grew*), a sign of the file reached the terminal or the report raw
(*raw*), or a process lived on for a second (*left*).

``--controls`` gives each file that has one to its framework's own loader, unguarded, and says how many
canaries fire: a file whose canary can't fire proves nothing.  PATTERN is a part of a file's name (``keras/``,
``zip-bomb``), or a shell pattern.
Exit code: 0 when every count is zero, else 1.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluation.hostile import controls
from evaluation.hostile.benign import BENIGN
from evaluation.hostile.case import ALL, Canary, Hostile
from evaluation.hostile.watch import FAULTS, GROWTH, Call, adopt, run
from evaluation.places import environment

MODULES = (
    "keras_files",
    "hdf5",
    "tensorflow_files",
    "savedmodel",
    "torch_files",
    "pickle_files",
    "streams",
    "onnx_files",
    "weights",
    "caffe",
    "flat",
    "bundles",
    "paths",
)
for _module in MODULES:
    importlib.import_module(f"evaluation.hostile.{_module}")


def chosen(patterns: list[str]) -> list[Hostile]:
    return [
        h for i, h in ALL.items() if not patterns or any(p in i or fnmatch.fnmatch(i, p) for p in patterns)
    ]


def place(work: Path, one: Hostile) -> Canary:
    return Canary(work / one.id.replace("/", "_"))


def make(work: Path, files: list[Hostile]) -> None:
    """Write *files*, those of one module in a process of their own, which alone imports their framework."""
    for module in dict.fromkeys(h.module for h in files):
        mine = [h.id for h in files if h.module == module]
        done = subprocess.run(
            [sys.executable, "-m", "evaluation.hostile", "--make", str(work)],
            input=json.dumps(mine),
            text=True,
            stdout=sys.stderr,
            env=environment(),
        )
        if done.returncode:
            sys.exit(f"the files of {module} could not be made")


def make_here(work: Path, names: list[str]) -> None:
    for name in names:
        canary = place(work, ALL[name])
        canary.make()
        os.chdir(canary.model)
        try:
            path = ALL[name].make(canary)
        except Exception as error:
            raise RuntimeError(f"{name} can't be made") from error
        (canary.root / "made.json").write_text(json.dumps(str(path)))


def made(work: Path, one: Hostile) -> Path:
    return Path(json.loads((place(work, one).root / "made.json").read_text()))


def attack(work: Path, one: Hostile, commands: list[str]) -> list[Call]:
    """Every command on one file."""
    calls = []
    canary, path = place(work, one), made(work, one)
    for number, command in enumerate(c for c in one.commands if not commands or c in commands):
        call = run(command, path, canary, one.extra, number)
        if (
            call.peak > GROWTH
            and "grew" not in call.faults
            and call.peak - baseline(work, one, command) > GROWTH
        ):
            call.faults["grew"] = f"{call.peak >> 20} MB"
        calls.append(call)
        for fault, why in call.faults.items():
            print(f"  {fault.upper():8} {one.id} {command}: {why}", flush=True)
    return calls


_baselines: dict[tuple[str, str], int] = {}


def baseline(work: Path, one: Hostile, command: str) -> int:
    """The resident memory of *command* on a right file of the format; measured only where it decides."""
    kind = one.id if one.id in BENIGN else one.format
    key = (kind, command)
    if key not in _baselines:
        canary = Canary(work / f"benign_{kind.replace('/', '_')}_{command}")
        canary.make()
        maker = BENIGN.get(kind)
        _baselines[key] = run(command, maker(canary), canary, one.extra).peak if maker else 0
    return _baselines[key]


def table(results: dict[str, list[Call]]) -> int:
    """Print the counts for each kind; the number of faults."""
    files: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for name, done in results.items():
        kind = name.rpartition("/")[0]
        files[kind] += 1
        calls[kind] += len(done)
        counts.update((kind, fault) for call in done for fault in call.faults)
    print(f"\n{'kind':32}{'files':>6}{'calls':>6}" + "".join(f"{f:>9}" for f in FAULTS))
    for kind in files:
        print(f"{kind:32}{files[kind]:6}{calls[kind]:6}" + "".join(f"{counts[kind, f]:9}" for f in FAULTS))
    whole = [sum(counts[k, f] for k in files) for f in FAULTS]
    print(f"{'all':32}{files.total():6}{calls.total():6}" + "".join(f"{n:9}" for n in whole))
    return sum(whole)


def recorded(path: Path | None) -> dict[str, list[Call]]:
    """The calls by file that an earlier run left at *path*."""
    if path is None or not path.exists():
        return {}
    rows = map(json.loads, path.read_text().splitlines())
    return {row["file"]: [Call(**call) for call in row["calls"]] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--commands", default="", help="these commands alone")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work in this directory, and leave it")
    parser.add_argument("--list", action="store_true", help="say what each file tries")
    parser.add_argument("--controls", action="store_true", help="the unguarded loaders in place of mnnprep")
    parser.add_argument(
        "--json", type=Path, help="a line a file with its calls; a file in it is not run again"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make_here(options.make, json.load(sys.stdin))
    files = chosen(options.only)
    if options.list:
        print("\n".join(f"{h.id:60} {h.tries}" for h in files), f"\n{len(files)} files")
        return None
    adopt()
    work = options.keep or Path(tempfile.mkdtemp(prefix="hostile-"))
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    try:
        if options.controls:
            files = [h for h in files if h.control]
        known = recorded(options.json)
        make(work, [h for h in files if h.id not in known])
        if options.controls:
            sys.exit(controls.report([(h, place(work, h), made(work, h)) for h in files]))
        commands = [c for c in options.commands.split(",") if c]
        started = time.monotonic()

        def calls(one: Hostile) -> list[Call]:
            if one.id in known:
                return known[one.id]
            done = attack(work, one, commands)
            if options.json:
                with options.json.open("a") as rows:
                    rows.write(json.dumps({"file": one.id, "calls": [vars(call) for call in done]}) + "\n")
            return done

        with ThreadPoolExecutor(options.jobs) as pool:
            results = dict(zip((h.id for h in files), pool.map(calls, files), strict=True))
        faults = table(results)
        print(f"{time.monotonic() - started:.0f} s")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(bool(faults))
