"""The messages of an export without weights, which then come from the checkpoint.

They cross the process boundary.
"""

from __future__ import annotations

import msgspec

from mnnprep.evidence.check import Check
from mnnprep.model.files import FileRef
from mnnprep.model.messages import OpsetRefused
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.model.signature import Signature
from mnnprep.weights.messages import ModelShapes


class Skeleton(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX graph whose weights are graph inputs without values.

    ``weights`` maps each to its name in the state dict.
    """

    file: FileRef
    opset: int
    signature: Signature
    weights: dict[str, str]
    shapes: ModelShapes
    parameters: int
    checks: list[Check]
    notes: list[str] = msgspec.field(default_factory=list)
    refused_opsets: list[OpsetRefused] = msgspec.field(default_factory=list)


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """A graph as in :class:`Skeleton`, at the path ``skeleton``, and the checkpoint that has its weights."""

    skeleton: ReadPath
    checkpoint: ReadPath
    weights: dict[str, str]
    shapes: ModelShapes


class AttachJob(msgspec.Struct, frozen=True, kw_only=True):
    """Write the filled model to ``directory``."""

    filling: Filling
    directory: WritePath


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """The model's files once the weights are in them, and notes for the record."""

    files: list[FileRef]
    notes: list[str]


class CompareJob(msgspec.Struct, frozen=True, kw_only=True):
    """Compare the weights in ``model`` with those of the checkpoint that the graph uses."""

    filling: Filling
    model: ReadPath
