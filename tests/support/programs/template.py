"""A process that has imported what a kind of worker imports, and forks a worker whenever it is asked for one.

``python template.py ROOT SOCKET STEPS MODULES...``, STEPS the modules of its steps, as JSON. Every request
brings three descriptors: the worker's standard input and output, and where to say its process id and, at its
end, its exit code. It ends with the socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys


def worker(request: dict[str, str], parent: int, stdin: int, stdout: int, preload: list[str]) -> None:
    """Become what :mod:`mnnprep.workers.launch` starts: a guardian, and its worker."""
    from mnnprep.workers.guardian import guard
    from mnnprep.workers.server import main

    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.close(stdin)
    os.close(stdout)
    with contextlib.suppress(OSError):
        os.chdir(request["cwd"])
    guard(parent)
    main(preload)


def serve(requests: socket.socket, preload: list[str]) -> None:
    """Fork a worker for each request, and tell the ends of those that are there."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}
    own = os.getpid()
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 10)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    with contextlib.suppress(BrokenPipeError):
                        os.write(told[ended[0]], f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
                    os.close(told.pop(ended[0]))
        if requests in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 3)
            if not data:
                return
            stdin, stdout, status = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.close()
                for descriptor in (woken, wake, status, *told.values()):
                    os.close(descriptor)
                code = 1
                try:
                    worker(json.loads(data), own, stdin, stdout, preload)
                    code = 0
                finally:
                    os._exit(code)
            told[pid] = status
            os.close(stdin)
            os.close(stdout)
            with contextlib.suppress(BrokenPipeError):
                os.write(status, f"{pid}\n".encode())


def main() -> None:
    """Import, then serve until nobody can ask any more."""
    root, descriptor, steps, *preload = sys.argv[1:]
    if root not in sys.path:
        sys.path.insert(0, root)
    from mnnprep.workers import guardian  # noqa: F401
    from mnnprep.workers.quiet import quiet_imports
    from mnnprep.workers.server import GARBAGE_THRESHOLD

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.set_threshold(GARBAGE_THRESHOLD)
    for module in (*preload, *json.loads(steps)):
        with quiet_imports(), contextlib.suppress(ImportError, OSError):
            importlib.import_module(module)
    gc.freeze()
    with socket.socket(fileno=int(descriptor)) as requests:
        serve(requests, preload)


if __name__ == "__main__":
    main()
    os._exit(0)
