"""Starting a worker process. Nothing but the standard library is imported here, so that a worker can be
started first of all.

Importing a framework takes longer than anything that this side does before its first job: a worker started
:func:`ahead` imports while this process does, too.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent.parent

# The worker sees this very mnnprep, and nothing of the user's: no current directory, no PYTHON* variable but
# ours (which is why it is not isolated mode: that would not see those of WORKER_ENVIRONMENT either).
_BOOT = (
    "import sys; root, parent, *preload = sys.argv[1:]; root in sys.path or sys.path.insert(0, root); from"
    " mnnprep.isolate.guardian import guard; guard(int(parent)); from mnnprep.isolate.server import main;"
    " main(preload)"
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

# glibc fills what it gives with 0x3f and what it takes back with 0xc0, so that memory nobody set is 0.75 or
# -6.0 in float32 and large in int32: a result that depends on it is seen, whatever the memory would have held
# by chance.
DIRTY_MEMORY = {
    "MALLOC_PERTURB_": "192",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}  # small blocks would come from a cache as they are

_ahead: dict[tuple[str, ...], tuple[dict[str, str], subprocess.Popen[bytes]]] = {}


def ahead(preload: Sequence[str]) -> None:
    """Start a worker with *preload* (none: not) now, for the first :func:`launch` that asks for one; it ends
    with this process.
    """
    if preload and tuple(preload) not in _ahead:
        variables = _variables({})
        _ahead[tuple(preload)] = variables, _start(preload, variables)


def launch(preload: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker that imports *preload*, under its guardian, which ends all of it on SIGTERM; ``environment``
    adds variables to its own.

    Its end of the protocol: :mod:`mnnprep.isolate.server`.  The process returned is the guardian:
    :mod:`mnnprep.isolate.guardian`.
    """
    variables = _variables(environment)
    if tuple(preload) in _ahead and _ahead[tuple(preload)][0] == variables:
        return _ahead.pop(tuple(preload))[1]
    return _start(preload, variables)


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if "KERAS_HOME" not in own and not os.path.exists(os.path.expanduser("~/.keras")):
        own["KERAS_HOME"] = (
            "/dev/null/keras"  # Keras makes a directory of its own at home when it is imported; here it can't
        )
    return own | WORKER_ENVIRONMENT | dict(environment)


def _start(preload: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    root = str(PACKAGE.parent)
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            *(["-s"] if sys.flags.no_user_site else []),
            "-c",
            _BOOT,
            root,
            str(os.getpid()),
            *preload,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
    )


@atexit.register
def _end() -> None:
    """End what was started ahead for nothing."""
    for _, process in _ahead.values():
        process.terminate()
        process.wait()
    _ahead.clear()
