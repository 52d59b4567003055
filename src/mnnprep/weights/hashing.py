"""Copying and hashing at once: every byte is read, hashed for its input and for the output, and written.

A reader fills buffers in the output's order; a writer and one hasher for each side take them.  An input whose
bytes don't come in its own order (or not all) is hashed from front to back beside the copy, while its pages
are in memory.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mnnprep.weights.copy_ranges import Copy, Segment, remaining
from mnnprep.weights.copying import BUFFER, BytesDone, write_all
from mnnprep.weights.files import File
from mnnprep.weights.plan import bytes_of
from mnnprep.weights.resumable_output import Part

BUFFERS = 10
GAP = 1 << 20  # bytes between two tensors (headers, padding) that are read along
REMOTE_REST = 1 << 22  # bytes of a remote file that are fetched for its hash alone


@dataclass
class _Chunk:
    """``view`` goes to ``at``; it came from ``source`` of ``file``, if from one file.

    ``written``: it is in the output already.
    """

    view: memoryview
    at: int
    file: File | None
    source: int
    written: bool
    users: int = 0


class _Stage(threading.Thread):
    """A thread that hands every chunk of its queue to a function; what that raises is kept."""

    def __init__(self, work: Callable[[_Chunk], None], done: Callable[[_Chunk], None]) -> None:
        super().__init__(daemon=True)
        self.inbox: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self._work, self._done = work, done
        self.start()

    def run(self) -> None:
        while (chunk := self.inbox.get()) is not None:
            try:
                if self.error is None:
                    self._work(chunk)
            except BaseException as error:
                self.error = error
            self._done(chunk)

    def close(self) -> None:
        self.inbox.put(None)
        self.join()


class _InputHashes:
    """The sha256 of inputs whose bytes come in order."""

    def __init__(self, files: Sequence[File]) -> None:
        self._states = {id(file): (file, hashlib.sha256()) for file in files}
        self._at = dict.fromkeys(self._states, 0)

    def feed(self, chunk: _Chunk) -> None:
        if chunk.file is None or (key := id(chunk.file)) not in self._states:
            return
        file, state = self._states[key]
        at = self._at[key]
        if at < chunk.source <= at + GAP:
            state.update(file.read(at, chunk.source - at))
            at = chunk.source
        if chunk.source <= at < chunk.source + len(chunk.view):
            state.update(chunk.view[at - chunk.source :])
            at = chunk.source + len(chunk.view)
        self._at[key] = at

    def finish(self) -> dict[int, str]:
        """The digests by ``id(file)``; a remote file of which much was not read has none."""
        digests = {}
        for key, (file, state) in self._states.items():
            at = self._at[key]
            if file.fileno() is None and file.size - at > REMOTE_REST:
                continue
            while at < file.size:
                size = min(BUFFER, file.size - at)
                state.update(file.read(at, size))
                at += size
            digests[key] = state.hexdigest()
        return digests


class _Aside(threading.Thread):
    """Hashes *files* from front to back beside the copy; ``digests`` has theirs by ``id(file)``."""

    def __init__(self, files: Sequence[File], stop: threading.Event, failures: list[BaseException]) -> None:
        super().__init__(daemon=True)
        self.digests: dict[int, str] = {}
        self._files, self._stop_event, self._failures = files, stop, failures
        self.start()

    def run(self) -> None:
        view = memoryview(bytearray(BUFFER))
        try:
            for file in self._files:
                state = hashlib.sha256()
                at = 0
                while at < file.size and not self._stop_event.is_set():
                    size = min(BUFFER, file.size - at)
                    file.read_into(at, view[:size])
                    state.update(view[:size])
                    at += size
                self.digests[id(file)] = state.hexdigest()
        except BaseException as error:
            self._failures.append(error)


class _Buffers:
    """The buffers that chunks lie in; one whose last user is done with it is free again."""

    def __init__(self) -> None:
        self.free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self.free.put(bytearray(BUFFER))
        self._lock = threading.Lock()

    def used(self, chunk: _Chunk) -> None:
        with self._lock:
            chunk.users -= 1
            last = chunk.users == 0
        if last and isinstance(chunk.view.obj, bytearray):
            buffer = chunk.view.obj
            chunk.view.release()
            self.free.put(buffer)


class _Output:
    """The part as it is written: its hash, how far it is, and how far it is on the disk."""

    def __init__(self, part: Part, start: int, failures: list[BaseException]) -> None:
        self.state = hashlib.sha256()
        self.written = start
        self._part, self._synced, self._failures = part, start, failures
        self._flusher: threading.Thread | None = None

    def write(self, chunk: _Chunk) -> None:
        if not chunk.written:
            write_all(self._part.descriptor, chunk.view, chunk.at)
            self.written = chunk.at + len(chunk.view)

    def hash(self, chunk: _Chunk) -> None:
        self.state.update(chunk.view)

    def flush(self, done: int) -> None:
        """Have the first *done* bytes put on the disk, if that is a step further and nothing else is."""
        if done - self._synced >= self._part.step and (self._flusher is None or not self._flusher.is_alive()):
            self._flusher = threading.Thread(target=self._sync, args=(done,), daemon=True)
            self._flusher.start()
            self._synced = done

    def _sync(self, done: int) -> None:
        try:
            self._part.sync(done)
        except BaseException as error:
            self._failures.append(error)

    def join(self) -> None:
        if self._flusher is not None:
            self._flusher.join()


def copy_and_hash(
    segments: Sequence[Segment],
    header: int,
    part: Part,
    start: int,
    inputs: Sequence[File],
    progress: BytesDone,
) -> tuple[str, dict[int, str]]:
    """Fill the part from *start* on; the header, its first *header* bytes, is written already.

    Gives the output's sha256 and the inputs', by ``id(file)``; a remote input of which only parts are read
    has none.
    """
    apart = [file for file in inputs if file.fileno() is not None and not _in_order(file, segments, start)]
    hashes = _InputHashes([file for file in inputs if file not in apart])
    failures: list[BaseException] = []
    stop = threading.Event()
    aside = _Aside(apart, stop, failures)
    buffers = _Buffers()
    output = _Output(part, start, failures)
    progress(start)
    stages = [_Stage(work, buffers.used) for work in (output.write, output.hash, hashes.feed)]
    try:
        for chunk in _chunks(segments, header, part.descriptor, start, buffers.free):
            chunk.users = len(stages)
            for stage in stages:
                stage.inbox.put(chunk)
            if any(stage.error for stage in stages) or failures:
                break
            done = output.written
            progress(done)
            output.flush(done)
    except BaseException:
        stop.set()
        raise
    finally:
        for stage in stages:
            stage.close()
        if any(stage.error for stage in stages) or failures:
            stop.set()
        output.join()
        if stop.is_set():
            aside.join()
    for error in [*(stage.error for stage in stages), *failures]:
        if error is not None:
            raise error
    progress(output.written)
    digests = hashes.finish()
    aside.join()
    if failures:
        raise failures[0]
    return output.state.hexdigest(), digests | aside.digests


def _in_order(file: File, segments: Sequence[Segment], start: int) -> bool:
    """Whether copying from *start* reads nearly all of *file* from front to back."""
    at = covered = 0
    for segment in remaining(segments, start, BUFFER):
        if isinstance(segment, Copy) and segment.file is file:
            if not at <= segment.source <= at + GAP:
                return False
            at = segment.source + segment.length
            covered += segment.length
    return file.size - covered <= max(GAP, file.size // 8)


def _chunks(
    segments: Sequence[Segment], header: int, output: int, start: int, free: queue.SimpleQueue[bytearray]
) -> Iterator[_Chunk]:
    """Everything in the output's order: first what is written already, then what the segments give."""
    at = 0
    while at < max(start, header):
        view = memoryview(free.get())[: min(BUFFER, max(start, header) - at)]
        count = os.preadv(output, [view], at)
        if count <= 0:
            raise OSError("the part became shorter while it was read")
        yield _Chunk(view[:count], at, None, 0, True)
        at += count
    for segment in remaining(segments, start, BUFFER):
        if isinstance(segment, Copy):
            buffer = free.get()
            view = memoryview(buffer)[: segment.length]
            segment.file.read_into(segment.source, view)
            yield _Chunk(view, segment.at, segment.file, segment.source, False)
        else:
            at = segment.at
            for block in segment.blocks():
                whole = bytes_of(block)
                for begin in range(0, len(whole), BUFFER):
                    piece = whole[begin : begin + BUFFER]
                    buffer = free.get()
                    view = memoryview(buffer)[: len(piece)]
                    view[:] = piece
                    yield _Chunk(view, at, None, 0, False)
                    at += len(piece)
            segment.release()
