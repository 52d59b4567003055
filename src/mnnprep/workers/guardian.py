"""The guardian of a worker.

Nothing that a worker started outlives it, and no worker outlives the process that asked for it.

    the process that asked -> guardian -> worker -> a child for every job -> whatever a step starts

The guardian imports nothing heavy, does nothing but wait, and is the reaper of all below it: a process that
is orphaned there becomes its child, also one that has a session of its own.  So it finds them all, whatever
killed those between. A parent-death signal alone would not do: it reaches only one generation, and it comes
as the *thread* ends that started the process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys

import psutil

from mnnprep.workers.libc import prctl

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
# how often the parent is looked for where the kernel has no descriptor of a process (before Linux 5.3)
PATROL_MILLISECONDS = 200


def guard(parent: int) -> None:
    """Fork; the child returns, and is the worker.

    This process ends when the worker does, and in the same way.

    When the worker ends, when the process *parent* (this one's) is gone, or on SIGTERM, everything below is
    ended first.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what an interrupt ends
    if sys.platform == "linux":
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    guardian, worker = os.getpid(), os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.close(woken)
        os.close(wake)
        die_with_parent(guardian)
        return
    null = os.open(os.devnull, os.O_RDWR)  # the worker alone holds the channel: the parent sees its end
    os.dup2(null, 0)
    os.dup2(null, 1)
    code = _watch(parent, worker, woken)
    _end_all_below()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(guardian, -code)
    os._exit(max(code, 0))


def die_with_parent(parent: int) -> None:
    """Have this process killed when the process *parent* ends.

    *parent* has just forked it from its main thread.
    """
    if sys.platform == "linux":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _watch(parent: int, worker: int, woken: int) -> int:
    """Wait for the end of *worker*, of *parent*, or for SIGTERM (0).

    For a worker gives its exit code, or its signal below 0.
    """
    events = select.poll()
    events.register(woken, select.POLLIN)
    patrol: int | None = PATROL_MILLISECONDS
    with contextlib.suppress(OSError, AttributeError):
        events.register(
            os.pidfd_open(parent), select.POLLIN
        )  # of another process, if it is gone: getppid tells
        patrol = None
    while os.getppid() == parent:
        ready = [descriptor for descriptor, _ in events.poll(patrol)]
        if woken in ready and signal.SIGTERM in os.read(woken, 1 << 10):
            return 0
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    return os.waitstatus_to_exitcode(ended[1])
    return 0


def _end_all_below() -> None:
    """Kill every descendant; an orphan that shows up meanwhile is one of the next round."""
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            with contextlib.suppress(psutil.Error, OSError):
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            os.waitpid(-1, 0)
