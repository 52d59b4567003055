"""Pickles, looked at without running what is in them.

:func:`scan_pickle` walks the opcodes (pickletools) and imports, calls and builds nothing.
:func:`stored_tensors` replays them with every class and function replaced by an inert stand-in, to
learn the names, dtypes and shapes of PyTorch tensors; nothing that a pickle names is imported.

Format facts: CPython's Lib/pickletools.py (opcodes), torch/_utils.py (``_rebuild_*``),
torch/serialization.py (persistent ids).
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, BinaryIO

from mnnprep.formats.tensor_info import MAX_ELEMENTS, TensorInfo, element_count

# Any of these is what reading a damaged pickle raises.
DAMAGE = (ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error, pickle.UnpicklingError, RecursionError)

COMPUTED = "(a name computed while unpickling)"


class PickleError(ValueError):
    """The bytes are not a whole pickle."""


@dataclass(frozen=True)
class PickleScan:
    """What a pickle would import, in order of appearance, and what its outermost object is.

    ``globals`` are dotted names; ``root`` is ``dict``, ``list``, ``value`` or the dotted name of the
    class or function that makes the object.
    """

    globals: tuple[str, ...]
    root: str


_ROOTS = {"EMPTY_DICT": "dict", "DICT": "dict", "EMPTY_LIST": "list", "LIST": "list", "EMPTY_SET": "value"}
_NEUTRAL = frozenset({"PROTO", "FRAME", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})  # before the outermost object is made
_STRINGS = frozenset(op.name for op in pickletools.opcodes if "UNICODE" in op.name or op.name in ("STRING", "BINSTRING", "SHORT_BINSTRING"))


class _Bounded:
    """A file that is never asked for more than it has: a length in a damaged pickle may be any number."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)
        self._file = file
        self.tell = file.tell
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))


def scan_pickle(file: BinaryIO) -> PickleScan:
    """Walk the pickle at the file's position, which is left behind its end. Raises PickleError."""
    names: dict[str, None] = {}
    memo: dict[int, object] = {}
    bounded: Any = _Bounded(file)
    pushed: list[object] = [None, None]  # what the last two pushes put on the stack; None where it is no string
    root = ""
    count = 0
    try:
        for opcode, raw, position in pickletools.genops(bounded):
            argument: Any = raw
            count += 1
            op = opcode.name
            name = ""
            if op in _STRINGS:
                pushed = [pushed[-1], argument]
            elif op in ("GET", "BINGET", "LONG_BINGET"):
                pushed = [pushed[-1], memo.get(int(argument))]
            elif op == "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            elif op in ("PUT", "BINPUT", "LONG_BINPUT"):
                if int(argument) > count:
                    raise PickleError(f"byte {position}: the memo index {argument} after {count} operations")
                memo[int(argument)] = pushed[-1]
            elif op in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".", 1)
                pushed = [pushed[-1], None]
            elif op == "STACK_GLOBAL":
                name = f"{pushed[0]}.{pushed[1]}" if all(isinstance(part, str) for part in pushed) else COMPUTED
                pushed = [None, None]
            elif op.startswith("EXT"):
                name = f"copyreg.extension_{argument}"
            elif op not in _NEUTRAL:
                pushed = [pushed[-1], None]
            if name:
                names[name] = None
            if not root and op not in _NEUTRAL and op not in _STRINGS and op != "STOP":
                root = name or _ROOTS.get(op, "value")
    except DAMAGE as error:
        raise PickleError(str(error)) from error
    return PickleScan(tuple(names), root or "value")


class _Inert:
    """Stands in for any object: takes whatever unpickling does to it and keeps its state."""

    inert_name = ""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        self = super().__new__(cls)
        self.state = None
        self.items = {}
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any
        self.items: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    def add(self, value: Any) -> None:
        self.append(value)


@dataclass(frozen=True)
class Storage:
    """A tensor's memory, as a persistent id names it: ``elements`` of ``dtype``."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    identity: tuple[str, int, tuple[int, ...]]  # storage, offset, shape: the same for tied weights


_STORAGE_DTYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "LongStorage": "int64",
    "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128", "QInt8Storage": "int8", "QUInt8Storage": "uint8",
    "QInt32Storage": "int32", "UntypedStorage": "uint8",
}  # fmt: skip


def _rebuild_tensor(storage: Any, offset: Any, size: Any, *_: Any) -> Any:
    shape = tuple(int(extent) for extent in size)
    if not isinstance(storage, Storage) or any(extent < 0 for extent in shape) or element_count(shape) > MAX_ELEMENTS:
        return _Inert()
    return _Tensor(storage.dtype, shape, (storage.key, int(offset), shape))


def _rebuild_tensor_of_dtype(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> Any:
    tensor = _rebuild_tensor(storage, offset, size)
    name = str(getattr(dtype, "inert_name", "")).removeprefix("torch.")
    return _Tensor(name, tensor.shape, tensor.identity) if isinstance(tensor, _Tensor) else tensor


def _same(data: Any, *_: Any) -> Any:
    return data


_SAFE = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_of_dtype,
    "torch._utils._rebuild_qtensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
}


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin-1")  # Python 2 byte strings
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return _SAFE.get(full) or type("Inert", (_Inert,), {"inert_name": full})

    def persistent_load(self, pid: Any) -> Any:
        # ("storage", type, key, location, elements[, view]); legacy also ("module", class, file, source)
        if not (isinstance(pid, tuple) and pid):
            return _Inert()
        if pid[0] == "module":
            return pid[1]
        name = str(getattr(pid[1], "inert_name", "")).rpartition(".")[2]
        storage = Storage(str(pid[2]), _STORAGE_DTYPES.get(name, ""), int(pid[4]))
        self.storages[storage.key] = storage
        return storage


@dataclass(frozen=True)
class PickledState:
    """What a pickle of PyTorch objects holds.

    ``elements`` counts every stored tensor (parameters and buffers), tied ones once; ``training`` are
    the modules whose ``training`` flag is set, of ``modules`` in all.
    """

    tensors: tuple[TensorInfo, ...]
    elements: int
    training: tuple[str, ...]
    modules: int
    storages: dict[str, Storage]


_GROUPS = frozenset({"_parameters", "_buffers", "_modules"})  # torch.nn.Module keeps its members in these


def stored_tensors(file: BinaryIO) -> PickledState:
    """Replay the pickle at the file's position with inert stand-ins. Raises PickleError."""
    start = file.tell()
    scan_pickle(file)  # refuses what would make the unpickler reserve memory
    file.seek(start)
    unpickler = _InertUnpickler(file)
    try:
        root = unpickler.load()
    except DAMAGE as error:
        raise PickleError(str(error)) from error
    tensors: list[TensorInfo] = []
    sizes: dict[tuple[str, int, tuple[int, ...]], int] = {}
    training: list[str] = []
    modules = 0
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, _Tensor):
            info = TensorInfo(path, value.dtype, value.shape)
            tensors.append(info)
            sizes[value.identity] = element_count(value.shape)
            continue
        members = _members(value)
        if not members or id(value) in seen:
            continue
        seen.add(id(value))
        flag = members.get("training") if isinstance(value, _Inert) else None
        if isinstance(flag, bool):
            modules += 1
            if flag:
                training.append(path)
        stack += [(path if key in _GROUPS else f"{path}.{key}".lstrip("."), member) for key, member in reversed(members.items())]
    return PickledState(tuple(tensors), sum(sizes.values()), tuple(training), modules, unpickler.storages)


def _members(value: Any) -> dict[str, Any]:
    if isinstance(value, _Inert):
        state = value.state if isinstance(value.state, dict) else {}
        value = {**state, **value.items}
    if isinstance(value, dict):
        return {str(key): member for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(index): member for index, member in enumerate(value)}
    return {}
