"""The step from a guarded process of this Python to a worker in the Python of another machine."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from mnnprep.workers.confine import Confinement, confine

_PT_INTERP = 3
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_NICE = 5  # an emulator takes what the stages beside it leave


def become(command: list[str], packages: str, places: str) -> NoReturn:
    """Confine this process to *places* (JSON: ``read`` and ``write``), then run *command* in its stead.

    *packages* is where the Python that comes finds its packages. Ends the process with status 127 if there
    is no such program.
    """
    os.nice(_NICE)
    given = json.loads(places)
    program = shutil.which(command[0])
    if program is None:
        sys.exit(127)
    read = (*given["read"], "/proc")
    confine(Confinement(read=read, write=tuple(given["write"]), programs=started_with(program)))
    os.execve(program, command, {**os.environ, "PYTHONPATH": packages})


def started_with(program: str) -> tuple[str, ...]:
    """What the kernel starts to run *program*: itself, the interpreter of a script, a dynamic loader."""
    found = [os.path.realpath(program)]
    with open(program, "rb") as file:
        head = file.read(4096)
        if head.startswith(b"#!"):
            interpreter = head[2:].split(b"\n", 1)[0].split()[0].decode()
            return (*found, *started_with(interpreter))
        if head.startswith(_ELF_64_LITTLE):
            found += [os.path.realpath(path) for path in _loader(file, head)]
    return tuple(found)


def _loader(file: BinaryIO, head: bytes) -> Iterator[str]:
    """The dynamic loader that an ELF *file* names in PT_INTERP (elf(5)); a static one names none."""
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for number in range(count):
        file.seek(offset + number * size)
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", file.read(size))
        if kind == _PT_INTERP:
            file.seek(start)
            yield file.read(length).rstrip(b"\0").decode()
