"""Steps that behave badly, for the tests of the process boundary.

A worker takes only mnnprep's own steps, so `test_isolate.py` puts this file into a copy of the
package made of links, as ``mnnprep.boundary_steps``, and starts its workers from there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.files import FileRef, file_ref
from mnnprep.workers.server import doing

MIB = 1 << 20


class Job(msgspec.Struct, frozen=True):
    text: str = ""
    number: float = 0

    @property
    def runs_own_code(self) -> bool:
        """Nothing keeps these steps from what they do; `test_confine.py` is about that."""
        return True


class Answer(msgspec.Struct, frozen=True):
    text: str = ""
    values: dict[str, str] = msgspec.field(default_factory=dict)
    files: list[FileRef] = msgspec.field(default_factory=list)
    more: dict[str, list[FileRef]] = msgspec.field(default_factory=dict)


def echo(job: Job) -> Answer:
    return Answer(job.text)


def crash(job: Job) -> Answer:
    """A write to address 0, in native code."""
    print("the line before\nthe last line", flush=True)
    doing("counting sheep")
    ctypes.memset(0, 1, 1)
    return Answer()


def raise_signal(job: Job) -> Answer:
    os.kill(os.getpid(), int(job.number))
    time.sleep(60)
    return Answer()


def leave(job: Job) -> Answer:
    """Leave by ``sys.exit``: even 0 is no reply."""
    sys.exit(int(job.number))


def no_reply(job: Job) -> Answer:
    """What a native library does that calls exit(0)."""
    os._exit(0)


def half_a_reply(job: Job) -> Answer:
    Path("reply.json").write_text('{"value": {"te')
    os._exit(0)


def hang(job: Job) -> Answer:
    """Sleep, deaf to everything that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    doing("waiting for Godot")
    if job.text:
        Path(job.text).write_text(str(os.getpid()))
    time.sleep(60)
    return Answer()


def nap(job: Job) -> Answer:
    time.sleep(job.number)
    return Answer("slept")


def eat_memory(job: Job) -> Answer:
    kept = []
    doing("eating")
    while len(kept) < 1024:
        kept.append(b"x" * MIB)
        time.sleep(0.001)
    return Answer()


def take_memory(job: Job) -> Answer:
    return Answer(str(len(b"x" * int(job.number * MIB))))


def out_of_memory(job: Job) -> Answer:
    raise MemoryError


def usage_error(job: Job) -> Answer:
    raise UsageError("what is wrong — ü", seen="this\nand that", next="do otherwise")


def refused_error(job: Job) -> Answer:
    raise RefusedError("refused")


def defect(job: Job) -> Answer:
    print("noise on stdout")
    raise ZeroDivisionError("a defect of ours")


def another_type(job: Job) -> object:
    return {"text": 5}


def can_not_be_written(job: Job) -> object:
    return object()


def write_file(job: Job) -> Answer:
    Path("file").write_bytes(b"right")
    return Answer(files=[file_ref(Path("file").absolute())])


def lie(job: Job) -> Answer:
    """Name a file that is missing, cut short or changed since it was hashed."""
    path = Path("file").absolute()
    path.write_bytes(b"right")
    ref = file_ref(path)
    if job.text == "missing":
        path.unlink()
    elif job.text == "short":
        path.write_bytes(b"rig")
    elif job.text == "changed":
        path.write_bytes(b"wrong")
    elif job.text == "directory":
        path.unlink()
        path.mkdir()
    return Answer(more={"nested": [ref]})


def stale(job: Job) -> Answer:
    """Name a file of an earlier run that this one was to write, and did not."""
    return Answer(files=[FileRef(job.text, "0" * 64, os.path.getsize(job.text))])


def print_much(job: Job) -> Answer:
    """Megabytes, Python's and native, and bytes that are no text; also what looks like the protocol."""
    print('{"id": "x", "exit": 0}\n' * 50_000)
    os.write(1, b"\xff\xfe" * 500_000)
    os.system("echo from a child; echo and its stderr >&2")
    sys.stdout.close()
    return Answer("done")


def remove_own_directory(job: Job) -> Answer:
    """What a cleanup gone wrong does."""
    import shutil

    shutil.rmtree(os.getcwd())
    os._exit(0)


def spawn(job: Job) -> Answer:
    """Leave a grandchild running, its pid written to ``job.text``; then succeed, crash or hang."""
    grandchild = subprocess.Popen(["sleep", "300"])
    Path(job.text).write_text(str(grandchild.pid))
    if job.number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.number == 2:
        time.sleep(60)
    return Answer("done")


def daemon(job: Job) -> Answer:
    """Leave a process running in a session of its own, orphaned, its pid written to ``job.text``; then
    wait.
    """
    code = (
        "import os, sys, time\nif os.fork(): os._exit(0)\nopen(sys.argv[1],"
        " 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    subprocess.run([sys.executable, "-c", code, job.text], start_new_session=True, check=True)
    time.sleep(60)
    return Answer()


def hold_the_lock(job: Job) -> Answer:
    """Sleep in native code that does not let go of the interpreter."""
    Path(job.text).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)
    return Answer()


_remembered = ""


def remember(job: Job) -> Answer:
    global _remembered
    _remembered = job.text
    return Answer()


def recall(job: Job) -> Answer:
    return Answer(_remembered)


def print_a_little(job: Job) -> Answer:
    print('{"id": "x"}')
    os.write(1, b'{"id": "y"}\n')
    return Answer(job.text)


def look(job: Job) -> Answer:
    """What a worker sees of the world."""
    threads = {
        k: v
        for k, v in os.environ.items()
        if k.endswith("_THREADS") or k.startswith("PYTHON") or k == "CUDA_VISIBLE_DEVICES"
    }
    return Answer(
        os.getcwd(),
        {
            **threads,
            "path": "\n".join(sys.path),
            "user_module": str(importlib.util.find_spec("module_of_the_user")),
            "home": os.environ.get("A_VARIABLE_OF_THE_USER", ""),
            "stdin": repr(sys.stdin.read()),
            "protocol": str(
                [
                    os.readlink(f"/proc/self/fd/{n}")
                    for n in os.listdir("/proc/self/fd")
                    if n not in "012" and _is_pipe(n)
                ]
            ),
            "files": "\n".join(sorted(os.listdir("."))),
            "killed_first": Path("/proc/self/oom_score_adj").read_text().strip(),
        },
    )


def _is_pipe(number: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("pipe:")
    except OSError:
        return False
