"""The second wall.

A worker that computes with a stranger's model is kept from everything else on the machine.

The first wall is that a model which names code or operators with side effects is refused before anything
runs.  This one holds where that list has a hole.  A confined process reads what it was given, the Python
installation and the libraries; it writes in its scratch alone; it opens no socket, starts no program and
sends no signal.  The kernel does it (Landlock, seccomp), so that native code is kept to it as well.  Nothing
but the standard library is imported here.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mnnprep.errors import ConfinedError, MnnprepError, UsageError
from mnnprep.safety import faults
from mnnprep.workers import landlock, seccomp
from mnnprep.workers.libc import prctl

_PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>

# What the C library and the frameworks read of a system, beside the Python installation.
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/alternatives",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
)
SETTINGS = ("~/.keras/keras.json",)  # of the user's, for a framework
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Confinement:
    """The reach of a process: files to ``read``, places to ``write``, ``network``, ``execute``.

    It may read the files and directories of ``read``, and write (and read) below those of ``write``.
    ``network`` says whether it may open sockets, ``execute`` whether it may start programs: it may then read
    every file, for nobody knows what a program needs. It may start each of ``programs`` in any case.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    execute: bool = False
    programs: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: dict[str, object]) -> Confinement:
        """The confinement whose fields are *parts*, as JSON has them."""
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in parts.items()}
        return cls(**fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Walls:
    """The means of this system: ``landlock`` is its ABI (0: none), ``seccomp`` says if calls can be filtered.

    ``reason`` says why one is not there.
    """

    landlock: int
    seccomp: bool
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether files, sockets, programs and signals are all kept from a worker."""
        return self.landlock >= 6 and self.seccomp

    def __str__(self) -> str:
        parts = [f"Landlock ABI {self.landlock}"] if self.landlock else []
        return " and ".join([*parts, *(["seccomp"] if self.seccomp else [])]) or "none"


@functools.cache
def supported() -> Walls:
    """Return the walls that this system can confine a process with; raises nothing."""
    reasons = [reason] if (reason := seccomp.missing()) else []
    try:
        version = landlock.abi()
    except OSError as error:
        version = 0
        reasons.append(f"this kernel has no Landlock, or has it switched off ({error.strerror or error})")
    else:
        if version < 6:
            reasons.append(f"the Landlock of this kernel (ABI {version}) does not keep {_lacking(version)}")
    return Walls(version, not seccomp.missing(), "; ".join(reasons))


def _lacking(version: int) -> str:
    added = ((2, "links across directories"), (3, "truncation"), (5, "commands to devices"), (6, "signals"))
    return ", ".join(what for since, what in added if version < since)


_confinement: Confinement | None = None  # this process's own


def confine(confinement: Confinement) -> Walls:
    """Confine the calling thread, and all threads and processes that it starts from now on.

    There is no way back.

    Call it while the process has one thread. What the system does not have (see :func:`supported`) is left
    out. Files that are open stay open.

    Raises:
        OSError: the kernel refuses what it said it has.
    """
    global _confinement
    walls = supported()
    if walls.landlock or walls.seccomp:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if walls.landlock:
        landlock.restrict(walls.landlock, _rules(confinement), network=confinement.network)
    if walls.seccomp:
        start = confinement.execute or bool(confinement.programs)
        seccomp.refuse(network=confinement.network, execute=start)
    if walls.landlock or walls.seccomp:
        _confinement = confinement
        faults.stopped = explained
    return walls


def _rules(confinement: Confinement) -> Iterator[tuple[str, int]]:
    if confinement.execute:
        yield "/", landlock.READ | landlock.EXECUTE
    for path in (*SYSTEM, *map(os.path.expanduser, SETTINGS), *installation(), *confinement.read):
        yield path, landlock.READ
    for path in confinement.write:
        yield path, landlock.WRITE
    for path in confinement.programs:
        yield path, landlock.READ | landlock.EXECUTE
    for path in DEVICES:
        yield path, landlock.DEVICE


@functools.cache
def installation() -> tuple[str, ...]:
    """Return the places of Python, its packages, mnnprep and the libraries that they load.

    A directory that the user's home is in is left out.
    """
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *sys.path]
    places += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    places.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
    found = dict.fromkeys(os.path.realpath(place) for place in places if place and os.path.isabs(place))
    home = os.path.realpath(os.path.expanduser("~"))
    return tuple(_outermost(place for place in found if not _below(home, [place])))


def _outermost(places: Iterable[str]) -> list[str]:
    """*places* without those below another of them."""
    kept: list[str] = []
    for place in sorted(places):
        if not kept or not _below(place, kept[-1:]):
            kept.append(place)
    return kept


def _below(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


# How Python, C libraries and the frameworks say it: "PATH; Permission denied", "[Errno 13] Permission denied:
# 'PATH'".
_NO_FILE = re.compile(r"Permission denied|PermissionDenied")
_NO_CALL = re.compile(r"Operation not permitted")
_PATH = re.compile(r"(?<![\w.])/[^\s'\";:,()\[\]<>]+")


def explained(error: BaseException) -> ConfinedError | None:
    """Return *error*, or its cause, as the refusal of a confined process that ran into the wall.

    None if it is another's.

    A file that the confinement allows, and that the system refuses all the same, is the user's to mend, and
    says so on its own; so does a wrong call.
    """
    if _confinement is None or isinstance(error, UsageError):
        return None
    found = [
        (tried, text)
        for cause in _causes(error)
        if (tried := _tried(cause, text := _said(cause), _confinement))
    ]
    if not found:
        return None
    tried, text = max(found, key=lambda pair: "/" in pair[0])  # the one that names a file, where one does
    return _stopped(tried, text)


def crashed(log: str, confinement: Confinement) -> ConfinedError | None:
    """Do the same for a process under *confinement* that died and left *log*.

    None if that tells of no wall.
    """
    tried = _tried(RuntimeError(log), log, confinement)
    return _stopped(tried, log) if tried else None


def _stopped(tried: str, text: str) -> ConfinedError:
    return ConfinedError(
        f"running the model tried to {tried}, which its confinement refuses",
        seen=" ".join(text.split())[:500],
        next=(
            "a model does not need this; pass --trust, which lifts the confinement, if you trust where the"
            " model comes from"
        ),
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error*, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _said(error: BaseException) -> str:
    return (
        f"{error.what}\n{error.seen}"
        if isinstance(error, MnnprepError)
        else f"{type(error).__name__}: {error}"
    )


def _tried(error: BaseException, text: str, confinement: Confinement) -> str:
    """Return what was tried that *confinement* refused.

    Empty if *error*, which says *text*, is of another kind.
    """
    if _NO_CALL.search(text):
        return "open a socket, start a program or change what a file is outside its scratch"
    if not _NO_FILE.search(text):
        return ""
    paths = (
        [error.filename]
        if isinstance(error, PermissionError) and isinstance(error.filename, str)
        else _PATH.findall(text)
    )
    outside = [path for path in paths if not _below(os.path.realpath(path), _allowed(confinement))]
    if paths and not outside:
        return ""
    return f"reach {outside[0]}" if outside else "reach a file outside its scratch"


def _allowed(confinement: Confinement) -> list[str]:
    given = (*confinement.read, *confinement.write)
    return [*(os.path.realpath(path) for path in given), *given]
