"""The parts of the output: stretches that are copied, and tensors whose bytes have to be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mnnprep.weights.files import File
from mnnprep.weights.plan import Tensor

CHUNK = 32 << 20  # bytes copied in the kernel at once: what an interrupted run repeats at most
Blocks = Callable[[], Iterator[npt.NDArray[Any]]]


@dataclass(frozen=True)
class Copy:
    """``length`` bytes at ``source`` of ``file`` go to ``at``."""

    at: int
    length: int
    file: File
    source: int


@dataclass(frozen=True)
class Make:
    """``length`` bytes at ``at`` are what ``blocks`` gives, in order; then ``release`` is called."""

    at: int
    length: int
    blocks: Blocks
    release: Callable[[], None]


Segment = Copy | Make


def of_tensor(tensor: Tensor, at: int) -> list[Segment]:
    """The segments of a tensor whose dtype stays."""
    runs = tensor.runs()
    if runs is None:
        return [Make(at, tensor.nbytes, tensor.blocks, tensor.release)]
    segments: list[Segment] = []
    for run in runs:
        segments.append(Copy(at, run.length, run.file, run.offset))
        at += run.length
    return segments


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Copies that go on where the last ended, in the source and in the output, as one; empty ones dropped."""
    result: list[Segment] = []
    for segment in segments:
        last = result[-1] if result else None
        if (
            isinstance(segment, Copy)
            and isinstance(last, Copy)
            and last.file is segment.file
            and last.at + last.length == segment.at
            and last.source + last.length == segment.source
        ):
            result[-1] = Copy(last.at, last.length + segment.length, last.file, last.source)
        elif segment.length:
            result.append(segment)
    return result


def remaining(segments: Iterable[Segment], start: int, chunk: int = CHUNK) -> Iterator[Segment]:
    """Return what is not yet in the first *start* bytes, copies cut into chunks.

    A tensor that has to be made is made again from its beginning.
    """
    for segment in segments:
        if isinstance(segment, Make):
            if segment.at + segment.length > start:
                yield segment
            continue
        done = max(0, start - segment.at)
        while done < segment.length:
            size = min(chunk, segment.length - done)
            yield Copy(segment.at + done, size, segment.file, segment.source + done)
            done += size


def resume_point(segments: Iterable[Segment], watermark: int) -> int:
    """The last byte at or before *watermark* from which writing can go on."""
    for segment in segments:
        if isinstance(segment, Make) and segment.at < watermark < segment.at + segment.length:
            return segment.at
    return watermark
