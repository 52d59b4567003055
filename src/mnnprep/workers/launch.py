"""Starting a worker process.

Nothing but the standard library is imported here, so that a worker can be started first of all.

Importing a framework takes longer than anything that this side does before its first job: a worker started
with :func:`prestart` imports while this process does, too.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mnnprep.workers.step import Worker

PACKAGE = Path(__file__).parent.parent

# The worker sees this very mnnprep, and nothing of the user's: no current directory, no PYTHON* variable but
# ours (which is why it is not isolated mode: that would not see those of WORKER_ENVIRONMENT either).
_BOOT = (
    "import sys; root, parent, *preload = sys.argv[1:]; root in sys.path or sys.path.insert(0, root); from"
    " mnnprep.workers.guardian import guard; guard(int(parent)); from mnnprep.workers.server import main;"
    " main(preload)"
)

# A worker in a Python of its own: the guardian runs here, confines the process, and that becomes the other.
_BOOT_ELSEWHERE = (
    "import sys; root, parent, packages, places, *command = sys.argv[1:]; root in sys.path or"
    " sys.path.insert(0, root); from mnnprep.workers.guardian import guard; guard(int(parent)); from"
    " mnnprep.workers.elsewhere import become; become(command, packages, places)"
)
_BOOT_THERE = (
    "import sys; root, *preload = sys.argv[1:]; sys.path.append(root); from mnnprep.workers.server import"
    " main; main(preload)"
)

# One thread everywhere: the same bytes on any number of cores; and nobody calls home.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # its kernels sum in an order that depends on the machine
    "KERAS_BACKEND": "tensorflow",
    "MALLOC_MMAP_THRESHOLD_": str(
        1 << 25
    ),  # glibc: keep what a net frees, its next layer wants it again; without
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),  # these a quarter of a run's CPU time went into mapping pages
    "MALLOC_TOP_PAD_": str(1 << 26),
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "",
}

_prestarted: dict[Worker, tuple[dict[str, str], subprocess.Popen[bytes]]] = {}


def prestart(worker: Worker) -> None:
    """Start a process of the kind *worker* now, for the first :func:`launch` that asks for one.

    It ends with this process. Nothing is started for a worker without imports.
    """
    if worker.imports and worker not in _prestarted:
        variables = _variables(worker)
        _prestarted[worker] = variables, _start(worker, variables)


def launch(
    worker: Worker, *, writes: Sequence[str] = (), reads: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """A process of the kind *worker*, under its guardian, which ends all of it on SIGTERM.

    One with an interpreter of its own is confined as a whole: it writes below *writes*, and reads these,
    *reads* and the places it lies in. In any other, each job is confined on its own.

    Its end of the protocol: :mod:`mnnprep.workers.server`.  The process returned is the guardian:
    :mod:`mnnprep.workers.guardian`.
    """
    variables = _variables(worker)
    if worker in _prestarted and _prestarted[worker][0] == variables:
        return _prestarted.pop(worker)[1]
    if worker.interpreter is not None:
        return _start_elsewhere(worker, variables, writes, reads)
    return _start(worker, variables)


def _variables(worker: Worker) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if "KERAS_HOME" not in own and not os.path.exists(os.path.expanduser("~/.keras")):
        own["KERAS_HOME"] = (
            "/dev/null/keras"  # Keras makes a directory of its own at home when it is imported; here it can't
        )
    return own | WORKER_ENVIRONMENT | dict(worker.environment)


def _start(worker: Worker, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return _python(_BOOT, [*worker.imports], variables)


def _start_elsewhere(
    worker: Worker, variables: dict[str, str], writes: Sequence[str], reads: Sequence[str]
) -> subprocess.Popen[bytes]:
    there = worker.interpreter
    assert there is not None
    places = {"read": [*reads, *there.reads, there.packages, str(PACKAGE)], "write": list(writes)}
    command = [*there.command, "-P", "-S", "-c", _BOOT_THERE, str(PACKAGE.parent), *worker.imports]
    return _python(_BOOT_ELSEWHERE, [there.packages, json.dumps(places), *command], variables)


def _python(boot: str, arguments: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """This Python with the program *boot*, which is given where mnnprep is, this process and *arguments*."""
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            *(["-s"] if sys.flags.no_user_site else []),
            "-c",
            boot,
            str(PACKAGE.parent),
            str(os.getpid()),
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
    )


@atexit.register
def _end() -> None:
    """End what was started early for nothing."""
    for _, process in _prestarted.values():
        process.terminate()
        process.wait()
    _prestarted.clear()
