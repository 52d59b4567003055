"""What a hostile file is, the canaries it aims at, and the list of all of them.

Every file has a sandbox of its own: the directory of the model, of secrets, a HOME, a working directory, a
TMPDIR, a place for what commands write, and a place that only code or an operator of the file would write to.
"""

from __future__ import annotations

import marshal
import os
import random
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = ("inspect", "check", "prepare", "compare")
CHECKPOINT = ("inspect", "check", "consolidate", "compare")
BUNDLE = ("inspect", "verify", "report", "bisect", "compare")
EVERY = ("inspect", "check", "consolidate", "verify", "report", "json", "prepare", "compare", "bisect")


@dataclass(frozen=True)
class Canary:
    """The sandbox of one file.

    The token is 64 bytes: 16 float32 in [0.1, 0.9), written raw, as text, and as arrays of several formats.
    """

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def executed(self) -> str:
        """The file that code makes when it runs."""
        return str(self.root / "fired" / "executed")

    @property
    def written(self) -> str:
        """The file that an operator makes when it writes."""
        return str(self.root / "fired" / "written")

    @property
    def secret(self) -> str:
        return str(self.secrets / "secret.bin")

    @property
    def secret_text(self) -> str:
        return str(self.secrets / "secret.txt")

    @property
    def token(self) -> bytes:
        return token_of(self.root)

    @property
    def shell(self) -> str:
        return f"touch {self.executed}"

    def code(self, body: str = "x") -> bytes:
        """Marshalled bytecode of ``lambda x: body`` that makes the executed file first."""
        made = eval(
            compile(f"lambda x, **k: (__import__('os').system({self.shell!r}), {body})[1]", "x", "eval")
        )
        return marshal.dumps(made.__code__)

    def make(self) -> None:
        for name in ("model", "secrets", "home", "cwd", "tmp", "out", "fired"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        Path(self.secret).write_bytes(self.token)
        Path(self.secret_text).write_text(self.token.hex() + "\n")


def token_of(root: Path) -> bytes:
    """The same for one root in every process."""
    numbers = random.Random(str(root))
    return struct.pack("<16f", *(0.1 + 0.8 * numbers.random() for _ in range(16)))


@dataclass(frozen=True)
class Hostile:
    """One file: ``make`` writes it into a canary's model directory and returns the path to give to the
    commands; ``control`` names the loader (a key of ``controls.LOADERS``) that, unguarded, does what
    the file tries; ``extra`` are arguments of ``prepare`` and ``compare``.
    """

    format: str
    family: str
    name: str
    tries: str
    make: Callable[[Canary], Path]
    commands: tuple[str, ...]
    control: str
    extra: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.format}/{self.family}/{self.name}"

    @property
    def module(self) -> str:
        return self.make.__module__


ALL: dict[str, Hostile] = {}


def hostile(
    form: str,
    family: str,
    name: str,
    tries: str,
    *,
    commands: tuple[str, ...] = MODEL,
    control: str = "",
    extra: tuple[str, ...] = (),
) -> Callable[[Callable[[Canary], Path]], Callable[[Canary], Path]]:
    """Enter the decorated function in the list."""

    def enter(make: Callable[[Canary], Path]) -> Callable[[Canary], Path]:
        one = Hostile(form, family, name, tries, make, commands, control, extra)
        assert one.id not in ALL, one.id
        ALL[one.id] = one
        return make

    return enter


# --- protobuf, by hand: no framework is needed to write a message of any of them
# ----------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, value: Any) -> bytes:
    """One field: an int as a varint, a float as fixed32, bytes, text or a list of fields as
    length-delimited.
    """
    if isinstance(value, bool | int):
        return varint(number << 3) + varint(int(value))
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple):
        value = b"".join(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def relative(target: str, start: Path) -> str:
    """The path to *target* by way of ``..``."""
    return os.path.relpath(target, start)


def shared_library(canary: Canary, name: str = "evil.so") -> Path:
    """A library whose constructor makes the executed file."""
    source = canary.root / "evil.c"
    body = f'open("{canary.executed}", O_CREAT | O_WRONLY, 0644);'
    source.write_text(f"#include <fcntl.h>\n__attribute__((constructor)) static void f(void) {{ {body} }}\n")
    path = canary.model / name
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return path
