"""Bytes from files to the output without passing through Python: copy_file_range, several in flight.

If the kernel can't (another file system, a remote file) they go through buffers of bounded size.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from mnnprep.weights.copy_ranges import Copy, Make, Segment, remaining
from mnnprep.weights.files import File
from mnnprep.weights.plan import bytes_of
from mnnprep.weights.resumable_output import Part

WORKERS = 3
BUFFER = 4 << 20
UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)

BytesDone = Callable[[int], None]  # takes the bytes done so far


@dataclass(frozen=True)
class Sink:
    """A file to be filled by :func:`copy_all` that no later run goes on with."""

    descriptor: int
    step: int = 1 << 62

    def sync(self, written: int) -> None:
        """Have the first *written* bytes on the disk."""
        os.fdatasync(self.descriptor)


def copy_all(segments: Sequence[Segment], part: Part | Sink, start: int, progress: BytesDone) -> None:
    """Fill the part from *start* on. *progress* is told how many bytes are done."""
    making = threading.Lock()  # one tensor at a time in memory
    finished: dict[int, int] = {}
    done = synced = start
    flushing: Future[None] | None = None
    progress(start)

    def run(segment: Segment) -> Segment:
        if isinstance(segment, Copy):
            _copy(segment, part.descriptor)
        else:
            with making:
                _make(segment, part.descriptor)
        return segment

    with ThreadPoolExecutor(WORKERS) as pool, ThreadPoolExecutor(1) as flusher:
        pending: set[Future[Segment]] = set()
        todo = remaining(segments, start)
        try:
            more = True
            while more or pending:
                while more and len(pending) < 2 * WORKERS:
                    segment = next(todo, None)
                    more = segment is not None
                    if segment is not None:
                        pending.add(pool.submit(run, segment))
                if not pending:
                    break
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    finished[future.result().at] = future.result().length
                while done in finished:
                    done += finished.pop(done)
                progress(done)
                if done - synced >= part.step and (flushing is None or flushing.done()):
                    if flushing is not None:
                        flushing.result()
                    flushing, synced = flusher.submit(part.sync, done), done
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    if flushing is not None:
        flushing.result()


def _copy(segment: Copy, output: int) -> None:
    descriptor = segment.file.fileno()
    done = 0
    while descriptor is not None and done < segment.length:
        try:
            count = os.copy_file_range(
                descriptor, output, segment.length - done, segment.source + done, segment.at + done
            )
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            break
        if count == 0:
            break  # a short file, or a file system that copies nothing: reading tells which
        done += count
    while done < segment.length:
        size = min(BUFFER, segment.length - done)
        write_all(output, memoryview(segment.file.read(segment.source + done, size)), segment.at + done)
        done += size


def _make(segment: Make, output: int) -> None:
    at = segment.at
    for block in segment.blocks():
        view = bytes_of(block)
        write_all(output, view, at)
        at += len(view)
    segment.release()


def write_all(output: int, view: memoryview, at: int) -> None:
    """Write all of *view* to the descriptor *output* from the byte *at* on."""
    while len(view):
        count = os.pwrite(output, view, at)
        view, at = view[count:], at + count


def advise(file: File) -> None:
    """Tell the kernel that *file* is read from front to back."""
    descriptor = file.fileno()
    if descriptor is not None:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
