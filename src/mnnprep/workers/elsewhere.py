"""The step from a guarded process of this Python to a worker in the Python of another machine."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from typing import NoReturn

from mnnprep.workers.confine import Confinement, confine

_PT_INTERP = 3
_NICE = 10  # an emulator takes what the stages beside it leave


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
    programs = (os.path.realpath(program), *loader_of(program))
    confine(Confinement(read=(*given["read"], "/proc"), write=tuple(given["write"]), programs=programs))
    os.execve(program, command, {**os.environ, "PYTHONPATH": packages})


def loader_of(program: str) -> tuple[str, ...]:
    """The dynamic loader that *program* names, which the kernel starts in its stead; none if it is static.

    It is the segment PT_INTERP of a 64-bit, little-endian ELF file (elf(5)).
    """
    with open(program, "rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return ()
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for number in range(count):
            file.seek(offset + number * size)
            segment = file.read(size)
            kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", segment)
            if kind == _PT_INTERP:
                file.seek(start)
                return (os.path.realpath(file.read(length).rstrip(b"\0").decode()),)
    return ()
