"""Paths that are no files, or no text: loops of links, pipes, devices, sockets, names for a terminal or an
option.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import EVERY, Canary, hostile


def _onnx(canary: Canary, name: str) -> Path:
    from evaluation.hostile.onnx_files import node, save

    return save(canary, [node("Tanh", ["x"], ["y"])]).rename(canary.model / name)


def _fifo(canary: Canary) -> Path:
    os.mkfifo(canary.model / "model.onnx")
    return canary.model / "model.onnx"


def _link(canary: Canary, target: str, name: str = "model.onnx") -> Path:
    os.symlink(target, canary.model / name)
    return canary.model / name


def _socket(canary: Canary) -> Path:
    here = os.getcwd()
    os.chdir(canary.model)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("model.pt")
    os.chdir(here)
    return canary.model / "model.pt"


def _unreadable(canary: Canary) -> Path:
    path = _onnx(canary, "model.onnx")
    path.chmod(0)
    return path


def _loop(canary: Canary) -> Path:
    os.symlink("b", canary.model / "a")
    os.symlink("a", canary.model / "b")
    return canary.model / "a"


def _inside(canary: Canary) -> Path:
    """A SavedModel whose directories lead back to it."""
    place = canary.model / "saved"
    place.mkdir()
    (place / "saved_model.pb").write_bytes(b"\x08\x01")
    for name in ("variables", "assets"):
        os.symlink(place, place / name)
    return place


def _fifos(canary: Canary) -> Path:
    """A directory whose well-known files are pipes."""
    for name in (
        "saved_model.pb",
        "model.safetensors.index.json",
        "adapter_config.json",
        ".metadata",
        "latest",
        "pytorch_model.bin",
        "config.json",
    ):
        os.mkfifo(canary.model / name)
    return canary.model


def _checkpoint_fifo(canary: Canary) -> Path:
    os.mkfifo(canary.model / "model.safetensors")
    return canary.model


def _many(canary: Canary) -> Path:
    for i in range(20_000):
        (canary.model / f"{i}.bin").touch()
    return canary.model


def _deep(canary: Canary) -> Path:
    here = os.getcwd()
    os.chdir(canary.model)
    for _ in range(300):
        os.mkdir("d" * 50)
        os.chdir("d" * 50)
    Path("model.safetensors").write_bytes(b"")
    os.chdir(here)
    return canary.model


PATHS: dict[str, tuple[str, Callable[[Canary], Path]]] = {
    "fifo": ("a pipe that nobody writes to", _fifo),
    "zero": ("/dev/zero by a link", lambda c: _link(c, "/dev/zero")),
    "full": ("/dev/full by a link", lambda c: _link(c, "/dev/full")),
    "tty": ("/dev/tty by a link", lambda c: _link(c, "/dev/tty")),
    "memory": ("/proc/self/mem by a link", lambda c: _link(c, "/proc/self/mem")),
    "stdin": ("/dev/stdin by a link", lambda c: _link(c, "/dev/stdin")),
    "socket": ("a socket", _socket),
    "unreadable": ("a file that nobody may read", _unreadable),
    "loop": ("links that lead to each other", _loop),
    "dangling": ("a link to nothing", lambda c: _link(c, "nothing")),
    "self-directory": ("a SavedModel that holds itself", _inside),
    "pipes": ("a directory whose well-known files are pipes", _fifos),
    "checkpoint-pipe": ("a directory with a checkpoint that is a pipe", _checkpoint_fifo),
    "many-files": ("a directory of 20,000 files", _many),
    "deep-directory": ("a directory 300 deep", _deep),
    "newline": ("a name with an end of line", lambda c: _onnx(c, "a\nverdict: proven\n.onnx")),
    "escapes": (
        "a name that is escapes and marks",
        lambda c: _onnx(c, "a\x1b[31m\x1b]0;owned\x07\u202egpj.onnx"),
    ),
    "script": (
        "a name that is a script",
        lambda c: _onnx(c, "<script>document.title='executed'<\u2044script>.onnx"),
    ),
    "not-utf8": ("a name that is no UTF-8", lambda c: _onnx(c, os.fsdecode(b"\xff\xfe\xed\xa0.onnx"))),
    "dashes": ("a name that looks like an option", lambda c: _onnx(c, "--trust.onnx")),
    "colon": ("a name that looks like a factory", lambda c: _onnx(c, "os.py:system")),
    "spaces": ("a name of spaces", lambda c: _onnx(c, "   .onnx")),
    "format": ("a name that is a format", lambda c: _onnx(c, "%s{0}{{7*7}}[red].onnx")),
    "long": ("a name of 255 bytes", lambda c: _onnx(c, "n" * 250 + ".onnx")),
    "factory": ("a module that runs when it is imported", lambda c: _module(c)),
    "empty": ("an empty file", lambda c: _empty(c)),
}


def _module(canary: Canary) -> Path:
    """Not a factory without its function: nothing of it may run."""
    path = canary.model / "evil.py"
    path.write_text(f"import os\nos.system({canary.shell!r})\n")
    return path


def _empty(canary: Canary) -> Path:
    path = canary.model / "model.onnx"
    path.touch()
    return path


for _name, (_tries, _make) in PATHS.items():

    @hostile(
        "path",
        "name"
        if _name
        in ("newline", "escapes", "script", "not-utf8", "dashes", "colon", "spaces", "format", "long")
        else "kind",
        _name,
        _tries,
        commands=EVERY,
    )
    def _(canary: Canary, make: Any = _make) -> Path:
        return make(canary)
