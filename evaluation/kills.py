"""`prepare` killed with SIGKILL: at random moments, and at every call of the commit. What is at the target,
what still runs, what is left?

    python -m evaluation.kills [--kills 200] [--seed 0] [--strace]

1. `prepare --force` in place of a bundle is killed at random moments, from its start to a little after its
   end.
2. The replacement of a bundle and the first bundle at a target are killed before and after each call that
   changes the disk, by a wrapper around those calls, on a file system that exchanges directories in one step
   and on one that can't; with --strace also by strace's fault injector, at each of its system calls.

After each kill the target must be the old bundle or the new one, byte for byte (where directories can't be
exchanged: after the next run), and `verify` must prove it; one second later no process of the run may be
alive; and after the next run, killed ones included, nothing of those before may be left beside the target or
in the scratch. Prints a line a criterion; exit code 0 when all hold, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from evaluation.places import environment

MARK = "MNNPREP_KILLS"
ENVIRONMENT = environment()
WAIT_SECONDS = 1.0
VERIFIED_EVERY, WHOLE_EVERY = 20, 5  # kills
_ON_NAMES = ("renameat2", "rename", "mkdir", "rmdir", "unlink", "unlinkat", "chmod", "openat")
SYSTEM_CALLS = (*_ON_NAMES, "fchmodat", "fsync", "ftruncate", "flock", "pwrite64")

# Replaces TARGET by a copy of BUNDLE; ends at the call that changes the disk with the number given, before it
# (or, 1, after it).
COMMIT = """
import fcntl, os, shutil, signal, sys
from pathlib import Path
from mnnprep.bundle import writer
from mnnprep.safety import renames

target, new, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
late, exchanging = sys.argv[4] == "1", sys.argv[5] == "1"

def commit(number):
    left = [number]
    def deadly(function):
        def call(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0 and not late:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call
    names = "rename replace unlink rmdir mkdir fsync chmod ftruncate pwrite open close link"
    for name in names.split():
        setattr(os, name, deadly(getattr(os, name)))
    fcntl.flock = deadly(fcntl.flock)
    renames._renameat2 = deadly(renames._renameat2) if exchanging else lambda *_: False
    with writer.stage(target, force=True) as staged:
        shutil.copytree(new, staged, dirs_exist_ok=True)

if number >= 0:
    commit(number)
else:
    # Each number in a process of its own, forked from this one, which has imported everything;
    # the caller looks at the target in between.
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            commit(int(line))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below *directory*, by its path."""
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()
    }


def net(path: Path, seed: int) -> Path:
    """A product with a random matrix."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(
        np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32), "w"
    )
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


class Place:
    """A directory with two bundles, a target that is the first one, and a directory for scratch."""

    def __init__(self, root: Path, bundles: Sequence[Path]) -> None:
        self.root, self.target, self.scratch, self.beside = (
            root,
            root / "runs" / "out",
            root / "scratch",
            root / "runs",
        )
        self.scratch.mkdir()
        self.beside.mkdir()
        self.environment = ENVIRONMENT | {"TMPDIR": str(self.scratch), MARK: str(root)}
        self.bundles = bundles
        self.sources: list[Path] = []
        self.known = [contents(bundle) for bundle in bundles]
        shutil.copytree(bundles[0], self.target)

    @classmethod
    def prepared(cls, root: Path) -> Place:
        """The bundles are those of two nets."""
        bundles = [root / f"bundle{i}" for i in range(2)]
        sources = [net(root / f"{i}.onnx", i) for i in range(2)]
        for source, bundle in zip(sources, bundles, strict=True):
            subprocess.run(
                cls.command("prepare", source, "-o", bundle), env=ENVIRONMENT, check=True, capture_output=True
            )
        place = cls(root, bundles)
        place.sources = sources
        return place

    @staticmethod
    def command(*arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "mnnprep", *map(str, arguments)]

    def start(self, source: Path) -> subprocess.Popen[bytes]:
        """`prepare --force` of *source* to the target."""
        command = self.command("prepare", source, "-o", self.target, "--force")
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def verified(self, bundle: Path) -> bool:
        return (
            subprocess.run(
                self.command("verify", bundle), env=self.environment, capture_output=True
            ).returncode
            == 0
        )

    def whole(self) -> bool:
        """Whether the target is one of the two bundles, to the byte."""
        return self.target.is_dir() and contents(self.target) in self.known

    def alive(self) -> list[psutil.Process]:
        """The processes of runs that are alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """What is beside the target, and in the scratch."""
        return sorted(p.name for p in (*self.beside.iterdir(), *self.scratch.iterdir()) if p != self.target)


def kill_prepare(place: Place, kills: int, seed: int, patience: float = WAIT_SECONDS) -> dict[str, list[str]]:
    """What was wrong after each of the kills at random moments, by criterion.

    After *patience* seconds no process may be left.
    """
    wrong: dict[str, list[str]] = {
        "the target is the old or the new bundle": [],
        "verify proves it": [],
        "no process 1 s later": [],
        "nothing is left after the next run": [],
    }
    target, proven, gone, clean = wrong.values()
    moments = random.Random(seed)
    started = time.monotonic()
    assert place.start(place.sources[1]).wait() == 0
    takes = time.monotonic() - started
    for number in range(kills):
        process = place.start(place.sources[number % 2])
        moment = moments.uniform(0, takes * 1.1)
        time.sleep(moment)
        process.kill()
        process.wait()
        until = time.monotonic() + patience
        while place.alive() and time.monotonic() < until:
            time.sleep(WAIT_SECONDS / 20)
        at = f"kill {number} after {moment:.2f} s"
        if survivors := place.alive():
            gone.append(f"{at}: {[p.cmdline()[:3] for p in survivors]}")
        if not place.whole():
            target.append(at)
        if number % VERIFIED_EVERY == VERIFIED_EVERY - 1 and not place.verified(place.target):
            proven.append(at)
        if number % WHOLE_EVERY == WHOLE_EVERY - 1 or number == kills - 1:
            if place.start(place.sources[number % 2]).wait() != 0:
                target.append(f"{at}: the next run failed")
            if left := place.left():
                clean.append(f"{at}: {left}")
    if not place.verified(place.target):
        proven.append("at the end")
    return wrong


def kill_commit(place: Place, *, exchanging: bool) -> tuple[int, list[str]]:
    """The number of kills, before and after every call that changes the disk, and what was wrong after each
    of them and the run after it.
    """
    wrong, done = [], 0
    for old in (True, False):
        for late in "01":
            arguments = [str(place.target), str(place.bundles[1]), "-1", late, str(int(exchanging))]
            loop = subprocess.Popen(
                [sys.executable, "-c", COMMIT, *arguments],
                env=place.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert loop.stdin is not None
            assert loop.stdout is not None
            for number in range(1, 10_000):
                shutil.rmtree(place.target, ignore_errors=True)
                if old:
                    shutil.copytree(place.bundles[0], place.target)
                print(number, file=loop.stdin, flush=True)
                code = int(loop.stdout.readline())
                at = (
                    f"{'a replaced' if old else 'a first'} bundle, {'after' if late == '1' else 'before'}"
                    f" call {number}"
                )
                if code == 0:
                    break
                done += 1
                wrong += [
                    f"{at}: {why}"
                    for why in after_commit(place, code, old=old, exchanging=exchanging, loop=loop)
                ]
            loop.stdin.close()
            loop.wait()
    return done, wrong


def after_commit(
    place: Place, code: int, *, old: bool, exchanging: bool, loop: subprocess.Popen[str]
) -> list[str]:
    """What is wrong after a kill, and after the next run."""
    assert loop.stdin is not None
    assert loop.stdout is not None
    wrong = []
    if code != -signal.SIGKILL:
        wrong.append(f"exit code {code}")
    if exchanging and not place.whole() and (old or place.target.exists()):
        wrong.append("the target is neither bundle")
    print(10_000, file=loop.stdin, flush=True)
    if loop.stdout.readline().strip() != "0":
        wrong.append("the next run failed")
    if contents(place.target) != place.known[1]:
        wrong.append("the next run made another bundle")
    if left := place.left():
        wrong.append(f"left: {left}")
    return wrong


def kill_system_calls(place: Place) -> tuple[int, list[str]]:
    """:func:`kill_commit` by strace, at every system call of a kind, the one that it would make included."""
    wrong, done = [], 0
    run = [sys.executable, "-c", COMMIT, str(place.target), str(place.bundles[1]), "10000", "0", "1"]
    for name in SYSTEM_CALLS:
        for number in range(1, 10_000):
            shutil.rmtree(place.target, ignore_errors=True)
            shutil.copytree(place.bundles[0], place.target)
            only = (
                [f"--trace-path={place.beside}"] if name == "openat" else []
            )  # Python opens hundreds of files as it starts
            inject = [
                "strace",
                "-f",
                "-qq",
                "-o",
                os.devnull,
                *only,
                "-e",
                f"inject={name}:signal=SIGKILL:when={number}",
            ]
            code = subprocess.run([*inject, *run], env=place.environment, capture_output=True).returncode
            if code == 0:
                break
            done += 1
            if not place.whole():
                wrong.append(f"{name} {number}: the target is neither bundle")
            subprocess.run(run, env=place.environment, check=True)
            if contents(place.target) != place.known[1] or place.left():
                wrong.append(f"{name} {number}: after the next run: {place.left()}")
    return done, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--strace",
        action="store_true",
        help="also at every system call of the commit, by strace's fault injector",
    )
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory(prefix="kills-") as root:
        place = Place.prepared(Path(root))
        for criterion, wrong in kill_prepare(place, options.kills, options.seed).items():
            met &= report(f"{options.kills} kills of prepare: {criterion}", wrong)
        for exchanging in (True, False):
            done, wrong = kill_commit(place, exchanging=exchanging)
            met &= report(
                f"{done} kills of the commit, {'in one step' if exchanging else 'without an exchange'}", wrong
            )
        if options.strace:
            done, wrong = kill_system_calls(place)
            met &= report(f"{done} kills of the commit at system calls", wrong)
    return 0 if met else 1


def report(criterion: str, wrong: list[str]) -> bool:
    print(f"{'met' if not wrong else 'NOT MET'}  {criterion}", *wrong[:5], sep="\n         ", flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
