"""The findings of a format's reader in a file, with no framework and no part of it executed."""

from __future__ import annotations

from typing import Any

import msgspec

from mnnprep.formats.tensor_info import TensorInfo


class Ports(msgspec.Struct, frozen=True):
    """The inputs and outputs, as far as the file states them."""

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one file.

    ``ops`` counts operators as written in the file (``domain::Type`` outside ONNX's own domain);
    ``parameters`` the elements of all stored tensors (with buffers and constants), None if the file was
    not read so far; ``leftovers`` name what would behave as in training; ``warnings`` what will stand in the
    way; ``details`` hold what only this format has.
    """

    signature: Ports = Ports()
    ops: dict[str, int] = msgspec.field(default_factory=dict)
    parameters: int | None = None
    opset: int | None = None
    leftovers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = msgspec.field(default_factory=dict)
