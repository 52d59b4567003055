"""Reading a file from a stranger in a worker, within limits.

No file can keep this process busy, or fill its memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.sniff import identify
from mnnprep.model.reach import ReadPath
from mnnprep.model.request import DEFAULT_TIMEOUT, Limits
from mnnprep.safety.damage import AGAIN
from mnnprep.safety.leftovers import Scratch
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Host, memory_limit
from mnnprep.workers.step import J, R, Step, reader

SECONDS = 60.0


class PathJob(msgspec.Struct, frozen=True):
    """A file or directory to read, by its absolute path.

    With it comes the directory that holds the files it refers to.
    """

    path: ReadPath
    directory: ReadPath

    @classmethod
    def of(cls, path: Path) -> PathJob:
        """The job for the absolute *path*."""
        return cls(str(path), str(path.parent))


class Kind(msgspec.Struct, frozen=True):
    """The kind that :func:`mnnprep.formats.sniff.identify` found."""

    kind: str


def kind(job: PathJob) -> Kind:
    """The step of :func:`kind_aside`."""
    return Kind(identify(Path(job.path)))


KIND = Step.of(kind, reader(__name__))


def read_aside(step: Step[J, R], job: J, path: Path, limits: Limits) -> R:
    """The reply of *step*, which reads *path* and does nothing else.

    Raises:
        RefusedError: it took longer or more memory than *limits* give (three quarters of what is free, if
        they give none),
            or ended the worker; and as the step raises it.
        UsageError: as the step raises it.
    """
    with Scratch() as scratch, Host(step.worker, scratch=scratch) as host:
        return run_bounded(host, step, job, path, limits)


def run_bounded(host: Host, step: Step[J, R], job: J, path: Path, limits: Limits) -> R:
    """:func:`read_aside` in a worker that is there."""
    memory = memory_limit(limits.memory)
    try:
        return host.run(step, job, timeout=limits.timeout, memory=memory).value
    except StepFailed as failure:
        if isinstance(failure.error, RefusedError | UsageError):
            raise failure.error from failure
        if failure.fate == "time":
            more = f"if the file is complete, give it more time: --timeout {limits.timeout * 10:g}"
            raise RefusedError(
                f"reading the file took longer than {limits.timeout:g} s", seen=path.name, next=more
            ) from failure
        if failure.fate == "memory":
            more = "if the file is complete, give it more: --memory"
            raise RefusedError(
                f"reading the file took more than {memory / 2**20:.0f} MiB", seen=path.name, next=more
            ) from failure
        if failure.fate == "crash":
            raise RefusedError(f"reading the file {failure.reason}", seen=path.name, next=AGAIN) from failure
        raise internal(failure, "the file could not be read") from failure


def kind_aside(path: Path, limits: Limits) -> str:
    """:func:`mnnprep.formats.sniff.identify` of *path*, within *limits*.

    Raises as that, and as :func:`read_aside`.
    """
    absolute = Path(os.path.abspath(path))
    return read_aside(KIND, PathJob.of(absolute), absolute, for_reading(limits)).kind


def for_reading(limits: Limits) -> Limits:
    """Return the limits of reading a source, from those of the steps that run it.

    A minute, more if those have more than their default.
    """
    share = limits.timeout * SECONDS / DEFAULT_TIMEOUT
    return Limits(timeout=min(limits.timeout, max(SECONDS, share)), memory=limits.memory)


def require_text(path: Path) -> None:
    """Frameworks take no path that is not valid UTF-8.

    Raises:
        UsageError: the path is not valid UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "the path of the source is not valid UTF-8", seen=str(path), next="give the file another name"
        ) from error
