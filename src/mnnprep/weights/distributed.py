"""torch.distributed.checkpoint directories as plans.

They are of FSDP or tensor parallelism, and of any number of ranks. No process group, no torch.

Format facts (torch/distributed/checkpoint/metadata.py, filesystem.py, default_planner.py): ``.metadata`` is a
pickled ``Metadata``: ``state_dict_metadata`` says dtype, size and chunks by name, ``storage_data`` maps
``MetadataIndex(fqn, offset)`` to ``_StorageInfo(relative_path, offset, length)``, ``planner_data`` maps a
flattened name to its path in the nested dictionary.  The bytes there are one ``torch.save`` of one tensor, or
a safetensors file.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

from mnnprep.errors import MnnprepError, RefusedError
from mnnprep.text import listed
from mnnprep.weights import safe_unpickler as inert
from mnnprep.weights import safetensors
from mnnprep.weights.content import Content, damaged
from mnnprep.weights.dtypes import byte_size
from mnnprep.weights.files import File, Window
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Piece, Shape, Tensor, check_tiling
from mnnprep.weights.safe_unpickler import Unpickled
from mnnprep.weights.shards import inside
from mnnprep.weights.torchfile import Archive, read_legacy

METADATA = ".metadata"
METADATA_LIMIT = 1 << 30
DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class _Item(File):
    """The values of one saved chunk in row-major order.

    Its own small archive is opened when they are asked for.
    """

    def __init__(self, window: Window, name: str, dtype: str, shape: Shape) -> None:
        self._window = window
        self.name = name
        self.size = byte_size(dtype, Tensor(dtype, shape, ()).elements)
        self._expected = (dtype, shape)
        self._tensor: Tensor | None = None
        self._bytes: bytes | None = None

    def _opened(self) -> Tensor:
        if self._tensor is None:
            try:
                head = self._window.read(0, min(9, self._window.size))
                if head[:4] == b"PK\x03\x04":
                    value = Archive(self._window).load(set())
                elif safetensors.looks_like_it(head):
                    value = next(iter(safetensors.read(self._window).tree.values()), None)
                else:
                    value = read_legacy(self._window).tree
            except MnnprepError:
                raise
            except DAMAGE as error:
                raise damaged(f"{self._window.name}, {self.name}", self._window.size, error) from error
            if not isinstance(value, Tensor) or (value.dtype, value.shape) != self._expected:
                found = (
                    f"{value.dtype} {list(value.shape)}"
                    if isinstance(value, Tensor)
                    else type(value).__name__
                )
                raise damaged(
                    self._window.name,
                    self._window.size,
                    f"{self.name} holds {found} where {self._expected} is described",
                )
            self._tensor = value
        return self._tensor

    def locate(self, offset: int) -> tuple[File, int]:
        piece = self._opened().pieces[0]
        return piece.file.locate(piece.offset + offset) if piece.contiguous() else (self, offset)

    def _read(self, offset: int, count: int) -> bytes:
        file, at = self.locate(offset)
        if file is not self:
            return file.read(at, count)
        if self._bytes is None:
            self._bytes = self._opened().array().tobytes()
        return self._bytes[offset : offset + count]

    def read_into(self, offset: int, view: memoryview) -> None:
        file, at = self.locate(offset)
        if file is self:
            super().read_into(offset, view)
        else:
            file.read_into(at, view)

    def release(self) -> None:
        self._bytes = None


def read(directory: Place) -> Content:
    """The nested dictionary that was saved.

    Raises:
        RefusedError: files are missing, or the pieces don't add up.
    """
    place = directory.join(METADATA)
    foreign: set[str] = set()
    try:
        data = place.open()
        if data.size > METADATA_LIMIT:
            raise ValueError("too large")
        state = _state(inert.load(data.stream(), None, foreign))
        chunks = {
            (_text(_state(index)["fqn"]), tuple(_state(index).get("offset") or ())): _state(info)
            for index, info in state["storage_data"].items()
        }
        described = {_text(name): _state(value) for name, value in state["state_dict_metadata"].items()}
        planned = state.get("planner_data")
        paths = {_text(name): path for name, path in planned.items()} if isinstance(planned, dict) else {}
        tree: dict[Unpickled, Unpickled] = {}
        missing: dict[str, None] = {}
        for name, about in described.items():
            if "chunks" in about:
                _put(tree, paths.get(name) or (name,), _tensor(directory, name, about, chunks, missing))
    except DAMAGE as error:
        raise damaged(METADATA, place.open().size, error) from error
    if missing:
        raise RefusedError(
            f"{len(missing)} files of the checkpoint are missing",
            seen=listed(list(missing)),
            next="put them beside the .metadata file",
        )
    objects = [name for name, about in described.items() if "chunks" not in about]
    flat = [name for name in described if name.endswith("_flat_param")]
    if flat:
        raise RefusedError(
            "this checkpoint holds FSDP's flat parameters, which say nothing of the shapes in them",
            seen=listed(flat),
            next=(
                "save it with torch.distributed.checkpoint.state_dict.get_model_state_dict, or"
                " StateDictType.SHARDED_STATE_DICT"
            ),
        )
    files = {str(info["relative_path"]) for info in chunks.values()}
    left = tuple((name, "an object, not a tensor") for name in objects)
    return Content(
        tree, "torch.distributed.checkpoint", notes=(f"saved in {len(files)} files",), left_out=left
    )


def _tensor(
    directory: Place,
    name: str,
    about: dict[str, Any],
    chunks: dict[Any, dict[str, Any]],
    missing: dict[str, None],
) -> Tensor:
    shape = _extents(about["size"])
    dtype = str(about["properties"].state[0].element)
    pieces = []
    for chunk in about["chunks"]:
        offsets, sizes = _extents(_state(chunk)["offsets"]), _extents(_state(chunk)["sizes"])
        info = chunks.get((name, offsets)) or (chunks.get((name, ())) if not any(offsets) else None)
        if info is None:
            raise ValueError(f"no bytes are said to hold {name} at {offsets}")
        relative = inside(_text(info["relative_path"]), METADATA)
        place = directory.join(relative)
        if relative in missing or not place.exists():
            missing[relative] = None
            continue
        file = place.open()
        begin, length = int(info["offset"]), int(info["length"])
        if begin < 0 or length < 0 or begin + length > file.size:
            raise ValueError(
                f"{name} at {offsets} is said to be bytes {begin} to {begin + length} of {relative}, which"
                f" has {file.size}"
            )
        pieces.append(Piece(_Item(Window(file, begin, length), name, dtype, sizes), 0, sizes, offsets))
    if not missing:
        check_tiling(name, shape, tuple(pieces))
    return Tensor(dtype, shape, tuple(pieces))


def _state(value: Unpickled) -> dict[str, Unpickled]:
    """The attributes of an object that was read past."""
    state = value.state if isinstance(value, inert.Foreign) else None
    return {str(_text(key)): item for key, item in state.items()} if isinstance(state, dict) else {}


def _extents(value: Unpickled) -> Shape:
    return tuple(int(n) for n in value)


def _text(value: Unpickled) -> Unpickled:
    return value.decode() if isinstance(value, bytes) else value


def _put(tree: dict[Unpickled, Unpickled], path: Sequence[Unpickled], tensor: Tensor) -> None:
    for key in path[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ValueError(f"the path {path} goes through a tensor")
        tree = below
    tree[path[-1]] = tensor
