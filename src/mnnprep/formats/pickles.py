"""The contents of a pickle of PyTorch objects.

They are names, dtypes and shapes of its tensors, and modules left in training mode.

It is replayed by :mod:`mnnprep.weights.safe_unpickler`: nothing that a pickle names is imported, and no
tensor's bytes are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.weights import safe_unpickler as inert
from mnnprep.weights.content import text
from mnnprep.weights.dtypes import byte_size
from mnnprep.weights.files import File
from mnnprep.weights.names import NameBudget
from mnnprep.weights.pickle_scan import DAMAGE, PickleError
from mnnprep.weights.plan import Tensor
from mnnprep.weights.safe_unpickler import Unpickled

_GROUPS = frozenset({"_parameters", "_buffers", "_modules"})  # torch.nn.Module keeps its members in these


@dataclass(frozen=True)
class PickledState:
    """The content of a pickle of PyTorch objects.

    ``elements`` counts every stored tensor (parameters and buffers), tied ones once; ``training`` are
    the modules whose ``training`` flag is set, of ``modules`` in all; ``storages`` the bytes of each storage
    by its key.
    """

    tensors: tuple[TensorInfo, ...]
    elements: int
    training: tuple[str, ...]
    modules: int
    storages: dict[str, int]


class _Unread(File):
    """A storage whose bytes nobody looks at."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size


def stored_tensors(file: BinaryIO) -> PickledState:
    """Replay the pickle at the file's position with inert stand-ins.

    Raises:
        PickleError: the pickle is damaged.
    """
    storages: dict[str, File] = {}

    def locate(key: str, element: str, count: int, view: tuple[str, int, int] | None) -> File:  # noqa: ARG001
        return storages.setdefault(key, _Unread(key, byte_size(element or "uint8", count)))

    try:
        root = inert.load(file, locate)
    except DAMAGE as error:
        raise PickleError(str(error)) from error
    tensors: list[TensorInfo] = []
    sizes: dict[object, int] = {}
    training: list[str] = []
    modules = 0
    seen: set[int] = set()
    written = NameBudget()
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        path, value = stack.pop()
        found = _tensor(value)
        if found is not None:
            dtype, shape, key = found
            tensors.append(TensorInfo(path, dtype, shape))
            sizes[key] = element_count(shape)
            continue
        if not isinstance(value, inert.Foreign | dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        members = _members(value)
        flag = members.get("training") if isinstance(value, inert.Foreign) else None
        if isinstance(flag, bool):
            modules += 1
            if flag:
                training.append(path)
        for key, member in reversed(members.items()):
            name = path if key in _GROUPS else f"{path}.{key}".lstrip(".")
            written.add(len(name))
            stack.append((name, member))
    return PickledState(
        tuple(tensors),
        sum(sizes.values()),
        tuple(training),
        modules,
        {key: storage.size for key, storage in storages.items()},
    )


def _tensor(value: Unpickled) -> tuple[str, tuple[int, ...], object] | None:
    """A tensor's dtype, shape and what is the same for tied ones; a quantized one has its integers'."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape, value.key()
    if (
        isinstance(value, inert.Foreign)
        and value.qualified == "torch._utils._rebuild_qtensor"
        and len(value.arguments) > 2
    ):
        storage, offset, size = value.arguments[:3]
        if isinstance(storage, inert.Storage):
            return storage.dtype, tuple(int(n) for n in size), (id(storage.file), offset, tuple(size))
    return None


def _members(value: Unpickled) -> dict[str, Unpickled]:
    if isinstance(value, inert.Foreign):
        state = value.state if isinstance(value.state, dict) else {}
        value = {**state, **value.mapping, **dict(enumerate(value.elements))}
    if isinstance(value, dict):
        return {str(text(key)): member for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(index): member for index, member in enumerate(value)}
    return {}
