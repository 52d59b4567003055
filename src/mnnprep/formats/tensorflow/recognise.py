"""Whether a file or a directory is one of TensorFlow's or Keras's.

Format facts: tensorflow/core/framework (GraphDef, NodeDef), tensorflow/core/protobuf/meta_graph.proto,
keras/src/saving/saving_lib.py, HDF5 file format specification (the signature).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.content import HDF5, Content, Message
from mnnprep.formats.torch_files import record_names
from mnnprep.safety.beside import require_beside
from mnnprep.wire.protobuf import LENGTH, VARINT

TITLES = {"frozen-graph": "TensorFlow graph (GraphDef)", "tf-checkpoint": "TensorFlow 1 checkpoint"}


def sniff(content: Content) -> str:
    """The kind of a file.

    Raises:
        RefusedError: a graph that is truncated, or a SavedModel's one file.
    """
    if content.head.startswith(HDF5):
        return "keras-h5"
    if content.is_zip:
        return "keras" if {"config.json", "metadata.json"} <= set(record_names(content.path)) else ""
    message = content.message
    if message is None:
        return ""
    kind = _graph_kind(message)
    if kind:
        content.require_whole(TITLES[kind], message.cut)
    elif content.path.name == "saved_model.pb" and {(1, VARINT), (2, LENGTH)} <= message.found:
        raise RefusedError(
            "saved_model.pb is one file of a SavedModel",
            seen=str(content.path),
            next="give the directory it is in",
        )
    return kind


def sniff_directory(path: Path, names: Sequence[str]) -> str:
    """``savedmodel`` for a directory with one.

    Raises:
        RefusedError: a file of it lies elsewhere.
    """
    if "saved_model.pb" not in names and "saved_model.pbtxt" not in names:
        return ""
    require_beside(path / "saved_model.pb", path.rglob("*"))
    return "savedmodel"


def _graph_kind(message: Message) -> str:
    found, first = message.found, message.first
    if found and found <= {(1, LENGTH), (2, LENGTH), (3, VARINT), (4, LENGTH)} and 1 in first:
        return "frozen-graph" if {(1, LENGTH), (2, LENGTH)} <= message.fields_at(first[1]) else ""
    if (
        {(1, LENGTH), (2, LENGTH), (3, LENGTH)} <= found
        and (1, LENGTH) in message.fields_at(first[2])
        and (9, LENGTH) not in found
    ):
        return "tf-checkpoint"  # MetaGraphDef: meta_info_def = 1, graph_def = 2, saver_def = 3
    return ""


def checkpoint_files(path: Path) -> list[str]:
    """The files of the checkpoint of the meta graph at *path*.

    They are named NAME.meta, NAME.index, NAME.data-00000-of-00001.
    """
    return [str(file) for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}.")]
