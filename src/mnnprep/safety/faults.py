"""Faults of the system, told from those of a model and of ours: from an exception to one clear refusal.

An :class:`OSError` says by its number what happened.  Native libraries raise exceptions of their own, which
at most quote the system's message, or write a file that was cut short and say nothing: so the text, the room
on the disk and the descriptors left are looked at, too.
"""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mnnprep.errors import MnnprepError, SystemFault

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_SPENT = frozenset({errno.EAGAIN, errno.ENOMEM})
_BROKEN = frozenset({errno.EIO, errno.ESTALE})
# Whoever meets one of these can't go on; the others are also met by programs that then try something else.
PLAIN = FULL | _DESCRIPTORS | _BROKEN | {errno.EFBIG, errno.EROFS}
ALL = PLAIN | _DENIED | _SPENT
_QUOTED = {os.strerror(number): number for number in sorted(PLAIN)} | {"can't start new thread": errno.EAGAIN}
# In a confined process: what tells whether an error is of its confinement.
stopped: Callable[[BaseException], MnnprepError | None] = lambda error: None  # noqa: E731
ROOM = 1 << 16  # bytes
SPARE_DESCRIPTORS = 4  # what a library may have had open and closed again as it failed


def fault_in(error: BaseException, place: str = "") -> SystemFault | None:
    """Return the fault of the system that *error* is, or that it or what it came from tells of.

    None for any other error.

    *place* is named where the error names no file: the directory that was being written to.
    """
    if isinstance(error, SystemFault):
        return error
    if isinstance(error, OSError) and error.errno in ALL:
        return fault(error.errno, _file_of(error) or place)
    if isinstance(error, MemoryError):
        return fault(errno.ENOMEM, place)
    for link in _chain(error):
        if isinstance(link, SystemFault):
            return link
        if isinstance(link, OSError) and link.errno in PLAIN:
            return fault(link.errno, _file_of(link) or place)
        if not isinstance(link, MnnprepError) and (number := quoted(str(link))):
            return fault(number, place)
    return None


def fault(number: int, place: str) -> SystemFault:
    """The refusal for the errno *number* met at *place*."""
    return SystemFault(
        _what(number),
        seen=f"{place}: {os.strerror(number)}" if place else os.strerror(number),
        next=_next(number),
    )


def quoted(text: str) -> int:
    """The errno whose message *text* quotes; 0 if it quotes none."""
    return next((number for message, number in _QUOTED.items() if message in text), 0)


def no_room(directory: str | os.PathLike[str]) -> int:
    """Return the errno of why nothing more can be written to *directory*.

    0 if something can, or there is no such directory.

    Asked by writing: no figure of a file system says what a quota or a limit leaves to this process.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(ROOM))
    except OSError as error:
        return error.errno if error.errno in PLAIN else 0
    return 0


def exhausted(directory: str | os.PathLike[str]) -> int:
    """The errno of what has run out: room in *directory*, descriptors; else 0.

    Asked after a failure whose own message says nothing.
    """
    opened = []
    try:
        for _ in range(SPARE_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno if error.errno in _DESCRIPTORS else 0
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return no_room(directory)


def fault_behind(error: BaseException, directory: str) -> SystemFault | None:
    """:func:`fault_in`, or what has run out if *error* itself does not tell.

    A library that got no file sees a damaged one.
    """
    if (found := fault_in(error, directory)) is not None:
        return found
    number = exhausted(directory)
    return fault(number, directory) if number else None


def refuse_fault(error: BaseException, directory: str) -> None:
    """Raise SystemFault if *error*, of a step that writes to *directory*, comes from one.

    The error says nothing of the model then.

    Likewise ConfinedError, if the step's confinement was in the way.
    """
    if (wall := stopped(error)) is not None:
        raise wall from error
    if (found := fault_behind(error, directory)) is not None:
        raise found from error


def as_large_as_allowed(path: str) -> bool:
    """Whether the file at *path* has the size that the system allows at most: it may lack its end."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return limit != resource.RLIM_INFINITY and os.path.getsize(path) >= limit


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within, an OSError that names no file (a failed write names none) names *path*."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def _file_of(error: OSError) -> str:
    name = error.filename2 or error.filename  # of a copy, the file that was written
    if name is None or isinstance(name, int):
        return ""
    return os.fsdecode(name)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and the errors it came from, the latest first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _what(number: int) -> str:
    if number in FULL:
        return "the disk is full" if number == errno.ENOSPC else "the disk quota is used up"
    if number in _DESCRIPTORS:
        return "no more files can be opened: too many are open"
    if number in _DENIED:
        return "the system does not allow this"
    if number in _SPENT:
        return "the system has no memory or no process to spare"
    return (
        "a file would be larger than the system allows"
        if number == errno.EFBIG
        else "the disk can't be read or written"
    )


def _next(number: int) -> str:
    if number in FULL:
        return (
            "free some room there; TMPDIR=DIR names another directory for temporary files, -o another output"
        )
    if number in _DESCRIPTORS:
        return "raise the limit with `ulimit -n 4096`, and run it again"
    if number in _DENIED:
        return (
            "check its permissions, or use another place: TMPDIR=DIR for temporary files, -o for the output"
        )
    if number in _SPENT:
        return "end other programs, or raise the limits that `ulimit -a` shows, and run it again"
    if number == errno.EFBIG:
        return "raise the limit with `ulimit -f unlimited`, or use a file system that takes larger files"
    return (
        "see the system's messages about the disk (dmesg), and use another: TMPDIR=DIR for the scratch, -o"
        " for"
        " the output"
    )
