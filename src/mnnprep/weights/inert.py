"""Unpickling that executes nothing: what ``torch.load(pickle_module=...)`` takes in place of ``pickle``.

A pickle is a program whose ``GLOBAL`` instruction fetches any importable object and whose ``REDUCE``
calls it.  Here a global is never imported.  The few that rebuild tensors and plain containers resolve
to a builder of ours; every other one resolves to an inert class (:class:`Foreign`) that takes any
argument, state, item or call and does nothing with them, so that configuration objects, optimizers
and numpy scalars beside the weights are read past.

Even the allowed objects are never put on the pickle's stack themselves (a ``BUILD`` instruction could
change them for the whole process): each is wrapped in a sealed class made for this one file.

Format facts: the globals are those of ``torch._weights_only_unpickler._get_allowed_globals`` and of
``Tensor.__reduce_ex__``; the persistent ids those of ``torch.serialization._save`` and ``_legacy_save``.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import IO, Any, ClassVar

from mnnprep import deps

ENCODING = "bytes"  # Python 2 strings stay bytes: they may be text or binary data

# Types that configuration objects refer to; inert as all others, but not worth telling a user of.
_PLAIN_TYPES = frozenset({"bool", "bytes", "float", "frozenset", "int", "list", "long", "object", "set", "str", "tuple", "unicode"})


class _Sealed(type):
    """A class whose attributes a pickle can't change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        return None


class Foreign(metaclass=_Sealed):
    """What stands in for an object of a class that is not imported; ``qualified`` is its full name.

    ``arguments`` are those it was made with, ``state`` what was restored into it, ``mapping`` the items
    it was given (a subclass of dict) and ``elements`` what was appended or added (of list or set).
    """

    qualified: ClassVar[str] = ""
    __slots__ = ("arguments", "elements", "mapping", "state")
    arguments: tuple[Any, ...]
    elements: list[Any]
    mapping: dict[Any, Any]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Foreign:
        self = object.__new__(cls)
        self.arguments = args
        self.state = None
        self.mapping = {}
        self.elements = []
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Foreign:
        return type(self)(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.mapping[key] = value

    def append(self, element: Any) -> None:
        self.elements.append(element)

    def extend(self, elements: Any) -> None:
        self.elements.extend(elements)

    add = append


def pickle_module(foreign: set[str], record_bytes: Mapping[str, int] | None = None) -> Any:
    """A stand-in for the ``pickle`` module, for one call of ``torch.load(encoding=ENCODING)``.

    The full names of the globals that were not resolved are added to *foreign*.  For a zip checkpoint
    *record_bytes* gives the size of every storage record, by key: an id that claims another size raises
    ``pickle.UnpicklingError`` (mapped into memory, it would read its neighbour's bytes).
    """
    builders = _builders()
    dtypes = _dtypes()
    # torch's unpickler resolves the storages that have an element type; of the others it only asks for one.
    untyped = _Sealed("UntypedStorage", (), {"__slots__": (), "dtype": dtypes["torch.uint8"]})
    resolved = dtypes | {"torch.UntypedStorage": untyped, "torch.storage.UntypedStorage": untyped}

    class Unpickler(pickle.Unpickler):
        def __init__(self, file: IO[bytes], **options: Any) -> None:
            super().__init__(file, **options)
            self._resolved = dict(resolved)

        def find_class(self, module: str, name: str, /) -> Any:
            qualified = f"{module}.{name}"
            if qualified not in self._resolved:
                build = builders.get(qualified)
                if build is None:
                    if not (module in ("builtins", "__builtin__") and name in _PLAIN_TYPES):
                        foreign.add(qualified)
                    self._resolved[qualified] = _Sealed(name, (Foreign,), {"__slots__": (), "qualified": qualified})
                else:
                    self._resolved[qualified] = _wrapped(name, build)
            return self._resolved[qualified]

        def load(self) -> Any:
            torch_load = getattr(self, "persistent_load", None)
            if torch_load is not None:
                setattr(self, "persistent_load", lambda identity: _persistent(identity, torch_load, record_bytes))  # noqa: B010
            return super().load()

    def load(file: IO[bytes], **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(__name__="mnnprep.weights.inert", Unpickler=Unpickler, load=load)


def _wrapped(name: str, build: Callable[..., Any]) -> type:
    """A sealed class whose call, or creation by ``NEWOBJ``, is ``build(*arguments)``."""
    return _Sealed(name, (), {"__slots__": (), "__new__": lambda cls, *args: build(*args)})


def _persistent(identity: Any, torch_load: Callable[[Any], Any], record_bytes: Mapping[str, int] | None) -> Any:
    """Resolve a persistent id: a storage by torch's own function, the source of a class by nothing."""
    if not isinstance(identity, tuple) or not identity:
        raise pickle.UnpicklingError(f"a persistent id that is not a tuple: {identity!r:.80}")
    kind = identity[0]
    if kind in ("module", b"module"):  # (module, class, source file, source): torch would compare, and could write, files
        return identity[1]
    if kind not in ("storage", b"storage"):
        raise pickle.UnpicklingError(f"a persistent id of an unknown kind: {kind!r:.80}")
    _, storage, key, location, count, *view = identity
    size = count * storage.dtype.itemsize
    if record_bytes is not None and record_bytes.get(str(key)) != size:
        raise pickle.UnpicklingError(f"storage {key} claims {size} bytes; its record holds {record_bytes.get(str(key))}")
    return torch_load((kind, storage, key, location, count, *view))


def _check_within(storage: Any, dtype: Any, offset: int, size: Any, stride: Any) -> None:
    """Raise unless the tensor lies in its storage: torch would enlarge the storage by bytes that nothing set."""
    if offset < 0 or len(size) != len(stride) or min((*size, *stride), default=0) < 0:
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} with strides {tuple(stride)} at {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    available = storage._untyped_storage.nbytes()
    if 0 not in size and (last + 1) * dtype.itemsize > available:
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} reaches beyond its storage of {available} bytes")


def _dtypes() -> dict[str, Any]:
    """Torch's element types, by full name."""
    torch = deps.require("torch")
    return {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


def _builders() -> dict[str, Callable[..., Any]]:
    """What the allowed globals do, by full name. Parameters become plain tensors; gradients and hooks are dropped."""
    torch = deps.require("torch")

    def tensor(storage: Any, offset: int, size: Any, stride: Any) -> Any:
        return tensor_v2(storage, offset, size, stride)

    def tensor_v2(storage: Any, offset: int, size: Any, stride: Any, gradient: Any = False, hooks: Any = None, metadata: Any = None) -> Any:
        _check_within(storage, storage.dtype, offset, size, stride)
        return torch._utils._rebuild_tensor_v2(storage, offset, tuple(size), tuple(stride), False, OrderedDict(), metadata)

    def tensor_v3(storage: Any, offset: int, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, metadata: Any = None) -> Any:
        _check_within(storage, dtype, offset, size, stride)
        return torch._utils._rebuild_tensor_v3(storage, offset, tuple(size), tuple(stride), False, OrderedDict(), dtype, metadata)

    def first(data: Any = None, *_: Any) -> Any:
        return data

    def from_type(function: Callable[..., Any], new_type: Any, args: Any, state: Any = None) -> Any:
        return function(*args)

    def encode(text: str, encoding: str = "latin1", *_: Any) -> bytes:  # how protocol 2 writes bytes
        if encoding not in ("latin1", "latin-1", b"latin1"):
            raise pickle.UnpicklingError(f"bytes in an unexpected encoding: {encoding!r:.80}")
        return text.encode("latin1")

    def mapping(*args: Any) -> dict[Any, Any]:
        return dict(*(a for a in args[-1:] if isinstance(a, (dict, list, tuple))))

    table: dict[str, Callable[..., Any]] = {
        "_codecs.encode": encode,
        "builtins.dict": dict,
        "__builtin__.dict": dict,
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": mapping,
        "collections.defaultdict": mapping,
        "torch.Size": lambda *args: torch.Size(*args),
        "torch.device": lambda *args: torch.device(*args),
        "torch.nn.parameter.Parameter": first,
        "torch.nn.parameter.Buffer": first,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor_v2,
        "torch._utils._rebuild_tensor_v3": tensor_v3,
        "torch._utils._rebuild_parameter": first,
        "torch._utils._rebuild_parameter_with_state": first,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda data, dtype, *_: data.to(dtype),
    }
    for module in ("torch._tensor", "torch.tensor"):
        table[f"{module}._rebuild_from_type"] = from_type
        table[f"{module}._rebuild_from_type_v2"] = from_type
    return table
