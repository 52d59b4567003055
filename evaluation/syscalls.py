"""What `mnnprep prepare` asks the system for, per format: no network, no program but Python, no file changed
outside target and scratch.

    python -m evaluation.syscalls [--only FORMAT]... [--unconfined]

Every format's small net is prepared under strace, in an environment with an empty home.  With
``--unconfined`` the workers are not
confined: what a framework tries for itself is then seen.  Prints one line per format, and below it every call
that is none of prepare's business, done or refused.  Exit code: 0 where no such call was done (refused ones
are no fault), else 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.nets import caffe_nets, mnn_models, tf_models
from evaluation.places import SOURCES

SHOWN = 12  # kinds of calls a format and outcome
PYTHON = os.path.realpath(sys.executable)
CALLS = (
    "%network,execve,execveat,open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,"
    "mkdir,mkdirat,mknod,mknodat,truncate,chmod,fchmodat,chown,lchown,fchownat,chdir,fchdir,clone,clone3,fork,vfork"
)
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/tty",
    "/dev/pts",
    "/proc/self/task",
    "/proc/self/oom_score_adj",
)  # the last two: a thread gets a name; a worker is the first to end when memory runs out
LINE = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
QUOTED = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<at>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
UNCONFINED = (
    "import mnnprep.workers.host as host; host.confinement_of = lambda *_, **__: None; from mnnprep.cli.main"
    " import main; main()"
)

NET = """
from torch import nn

def net():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 2)).eval()
"""
SAVED = "import torch; from net import net; torch.jit.script(net()).save('net.pt')"
IMAGE = ("--input", "input=float32[1,3,16,16]")


@dataclass
class Seen:
    """What of a trace is none of prepare's business, and how many calls there were."""

    calls: int = 0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def whole_lines(trace: Path) -> Iterator[str]:
    """The calls of a trace, those that another process interrupted put together again."""
    begun: dict[str, str] = {}
    with trace.open(errors="replace") as file:
        for raw in file:
            line = raw.rstrip("\n")
            pid = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                begun[pid] = line.removesuffix(" <unfinished ...>")
            elif "resumed>" in line:
                yield begun.pop(pid, "") + line.partition("resumed>")[2]
            else:
                yield line


def look(trace: Path, cwd: Path, own: Callable[[str], bool]) -> Seen:
    """What stands in *trace* of a command that began in *cwd*; a file is prepare's to change where *own* says
    so.
    """
    seen = Seen()
    places: dict[str, str] = {}
    for line in whole_lines(trace):
        match = LINE.match(line)
        if match is None:
            continue
        seen.calls += 1
        pid, name, arguments, result = match["pid"], match["name"], match["arguments"], match["result"]
        here = places.setdefault(pid, str(cwd))
        paths = [
            os.path.normpath(os.path.join(q["at"] or here, q["path"])) for q in QUOTED.finditer(arguments)
        ]
        if name in ("clone", "clone3", "fork", "vfork"):
            places[result] = here
        elif name == "chdir" and result == "0":
            places[pid] = paths[0]
        elif (what := foreign(name, arguments, paths, own)) and match["rest"].split(" ")[1:2] not in (
            ["ENOENT"],
            ["ENOTDIR"],
            ["EEXIST"],
        ):
            (seen.refused if result.startswith("-") else seen.done)[what] += 1
    return seen


def foreign(name: str, arguments: str, paths: list[str], own: Callable[[str], bool]) -> str:
    """What a call does that prepare needs not; empty for all others."""
    if name == "socket":
        return f"socket({arguments.partition(',')[0]})" if "AF_UNIX" not in arguments else ""
    if name in ("connect", "bind", "sendto") and "sa_family=AF_INET" in arguments:
        return f"{name} {arguments[:80]}"
    if name.startswith("execve"):
        return "" if os.path.realpath(paths[0]) == PYTHON else f"{name} {paths[0]}"
    if name.startswith("open") and not WRITING.search(arguments):
        return ""
    changing = name.startswith(
        (
            "open",
            "creat",
            "rename",
            "link",
            "symlink",
            "unlink",
            "rmdir",
            "mkdir",
            "mknod",
            "truncate",
            "chmod",
            "fchmodat",
        )
    )
    changed = paths[-1:] if name.startswith(("link", "symlink")) else paths
    strange = [path for path in changed if not own(path)] if changing or "chown" in name else []
    return f"{name} {strange[0]}" if strange else ""


def sources(place: Path) -> dict[str, tuple[str, ...]]:
    """A small net of every format, made with the frameworks' own tools: the arguments that name it."""
    tensorflow = tf_models.built(place)
    (place / "net.py").write_text(NET)
    subprocess.run([sys.executable, "-c", SAVED], cwd=place, check=True, capture_output=True)
    caffe = caffe_nets.write(
        place, caffe_nets.Small(caffe_nets.conv("conv", 4), blobs={"conv": [(4, 4, 3, 3), (4,)]})
    )
    onnx = mnn_models.matmul(place / "matmul.onnx")
    return {
        "onnx": (str(onnx),),
        "torch-factory": (f"{place / 'net.py'}:net", *IMAGE),
        "torchscript": (str(place / "net.pt"), *IMAGE),
        "keras": (str(tensorflow / "net.keras"),),
        "savedmodel": (str(tensorflow / "dict-outputs"),),
        "tflite": (str(tensorflow / "float.tflite"),),
        "caffe": (str(caffe),),
        "mnn": (str(place / "runs/onnx/out/model.mnn"),),
    }


def traced(arguments: tuple[str, ...], run: Path, *, unconfined: bool) -> tuple[str, Seen]:
    """The fate of one prepare, and what it did, in an environment of its own below *run*."""
    shutil.rmtree(run, ignore_errors=True)
    for name in ("home", "scratch", "cwd"):
        (run / name).mkdir(parents=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(run / "home"),
        "TMPDIR": str(run / "scratch"),
        "PYTHONPATH": str(SOURCES),
    }
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # Python's own habit, which is not looked at here
    command = ["-c", UNCONFINED] if unconfined else ["-m", "mnnprep"]
    target = run / "out"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            f"trace={CALLS}",
            "-e",
            "signal=none",
            "-o",
            str(run / "trace"),
            sys.executable,
            "-P",
            *command,
            "prepare",
            *arguments,
            "-o",
            str(target),
        ],
        cwd=run / "cwd",
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    verdict = {0: "proven", 1: "not proven"}.get(
        done.returncode, f"exit {done.returncode}: {done.stderr.strip()[-300:]}"
    )
    prefixes = (str(run / "scratch"), str(target), f"{run}/.{target.name}.", *DEVICES)
    return verdict, look(run / "trace", run / "cwd", lambda path: path.startswith(prefixes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="a format; may be repeated")
    parser.add_argument(
        "--unconfined",
        action="store_true",
        help="see what the frameworks try where nothing keeps them from it",
    )
    options = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed: apt-get install strace", file=sys.stderr)
        return 2
    worst = 0
    with tempfile.TemporaryDirectory(prefix="syscalls-") as directory:
        place = Path(directory).resolve()
        for name, arguments in sources(place).items():
            if options.only and name not in options.only:
                continue
            verdict, seen = traced(arguments, place / "runs" / name, unconfined=options.unconfined)
            refused = f", {seen.refused.total()} refused" if seen.refused else ""
            print(
                f"{name:15}{verdict:12}{seen.calls:7} calls, {seen.done.total()} of them none of its"
                f" business{refused}",
                flush=True,
            )
            for outcome, calls in (("done", seen.done), ("refused", seen.refused)):
                for call, count in calls.most_common(SHOWN):
                    print(f"    {outcome}: {call}" + (f" ({count} times)" if count > 1 else ""))
            worst |= bool(seen.done) or verdict.startswith("exit")
    return worst


if __name__ == "__main__":
    sys.exit(main())
