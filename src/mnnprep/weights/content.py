"""The result of a layout's reader: the tree of objects in a checkpoint, with its tensors as plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mnnprep.errors import RefusedError
from mnnprep.safety.error_text import cause, message
from mnnprep.weights.safe_unpickler import Unpickled


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint; ``tree`` is of dictionaries, lists and leaves.

    The leaves are :class:`~mnnprep.weights.plan.Tensor` and :class:`~mnnprep.weights.safe_unpickler.Foreign`.

    ``layout`` names what was read; ``foreign`` are the full names of the classes that were read past;
    ``notes`` what a user should know; ``aliases`` the other names of tensors that the file keeps once;
    ``left_out`` what the layout itself holds beside tensors, with the reason.
    """

    tree: Unpickled
    layout: str
    foreign: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()


def text(key: object) -> Any:
    """Byte strings of Python 2 as text; any other key as it is."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key


def damaged(name: str, size: int, error: Exception | str) -> RefusedError:
    """The error for a file that is not what its first bytes say."""
    said = cause(error) if isinstance(error, Exception) else message(error)
    return RefusedError(
        "the checkpoint can't be read: it is truncated, damaged, or of another format than its first bytes"
        " say",
        seen=f"{name} ({size} bytes): {said}",
        next=(
            "compare its size and hash with the original's and download or copy it again; a checkpoint must"
            " be written by torch.save or safetensors"
        ),
    )
