"""Unpickling that executes nothing, and without torch.

A pickle is a program whose ``GLOBAL`` instruction fetches any importable object and whose ``REDUCE``
calls it.  Here a global is never imported.  The few that rebuild tensors and plain containers resolve
to a builder of ours; every other one resolves to an inert class (:class:`Foreign`) that takes any
argument, state, item or call and does nothing with them, so that configuration objects, optimizers
and numpy scalars beside the weights are read past.  A tensor becomes a :class:`~mnnprep.weights.plan.Tensor`
that says where its bytes are.

Even the allowed objects are never put on the pickle's stack themselves (a ``BUILD`` instruction could
change them for the whole process): each is wrapped in a sealed class made for this one file.

Format facts: the globals are those of ``torch._weights_only_unpickler._get_allowed_globals`` and of
``Tensor.__reduce_ex__``; the persistent ids those of ``torch.serialization._save`` and ``_legacy_save``.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, SupportsInt

from mnnprep.weights import dtypes
from mnnprep.weights.files import File
from mnnprep.weights.pickle_scan import scan_pickle
from mnnprep.weights.plan import Tensor, packed, stored

ENCODING = "bytes"  # Python 2 strings stay bytes: they may be text or binary data
MOST_REPEATED = 1 << 30  # bytes of an expanded tensor (a stride of 0) when it is written out
MAX_ELEMENTS = 1 << 48  # no tensor is larger: beyond, a shape is damage

# Types that configuration objects refer to; inert as all others, but not worth telling a user of.
_PLAIN_TYPES = frozenset(
    {"bool", "bytes", "float", "frozenset", "int", "list", "long", "object", "set", "str", "tuple", "unicode"}
)


@dataclass(frozen=True, eq=False)
class Storage:
    """A tensor's memory, ``count`` elements of ``dtype`` from the start of ``file``.

    An empty dtype stands for untyped bytes.
    """

    dtype: str
    count: int
    file: File

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return dtypes.byte_size(self.dtype or "uint8", self.count)


Unpickled = Any  # what a pickle holds: a plain value or container, a Tensor, a Storage, a Foreign
Extents = Iterable[SupportsInt]

# (key, element type or empty, elements, view of a larger storage as (key, offset, elements) or None) -> its
# bytes
Locate = Callable[[str, str, int, tuple[str, int, int] | None], File]


class _Sealed(type):
    """A class whose attributes a pickle can't change."""

    def __setattr__(cls, name: str, value: object) -> None:
        return None


class Foreign(metaclass=_Sealed):
    """A stand-in for an object of a class that is not imported; ``qualified`` is its full name.

    ``arguments`` are those it was made with, ``state`` what was restored into it, ``mapping`` the items
    it was given (a subclass of dict) and ``elements`` what was appended or added (of list or set).
    """

    qualified: ClassVar[str] = ""
    __slots__ = ("arguments", "elements", "mapping", "state")
    arguments: tuple[Unpickled, ...]
    elements: list[Unpickled]
    mapping: dict[Unpickled, Unpickled]
    state: Unpickled

    def __new__(cls, *args: object, **kwargs: object) -> Foreign:
        """Keep the arguments; nothing of the named class is run."""
        self = object.__new__(cls)
        self.arguments = args
        self.state = None
        self.mapping = {}
        self.elements = []
        return self

    def __init__(self, *args: object, **kwargs: object) -> None:
        return None

    def __call__(self, *args: object, **kwargs: object) -> Foreign:
        """Stand for the result of calling the object, as another of this kind."""
        return type(self)(*args)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.mapping[key] = value

    def append(self, element: object) -> None:
        """Keep an element that the pickle appends, as a list does."""
        self.elements.append(element)

    def extend(self, elements: Iterable[Unpickled]) -> None:
        """Keep elements that the pickle appends, as a list does."""
        self.elements.extend(elements)

    add = append


def load(stream: BinaryIO, locate: Locate | None = None, foreign: set[str] | None = None) -> Unpickled:
    """The object that the pickle at the stream's position describes; the stream is left behind it.

    *locate* gives the bytes of a storage.  The full names of the globals that were not resolved are
    added to *foreign*.  It is walked first, for what would make the unpickler reserve memory.  Raises
    ``pickle.UnpicklingError``, and what a damaged pickle makes the unpickler raise (ValueError, EOFError,
    KeyError and others).
    """
    start = stream.tell()
    scan_pickle(stream)
    stream.seek(start)
    return _Unpickler(stream, locate, set() if foreign is None else foreign).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, locate: Locate | None, foreign: set[str]) -> None:
        super().__init__(stream, encoding=ENCODING)
        self._locate = locate
        self._foreign = foreign
        self._resolved: dict[str, type] = {}

    def find_class(self, module: str, name: str, /) -> type:
        qualified = f"{module}.{name}"
        if qualified not in self._resolved:
            self._resolved[qualified] = self._resolve(module, name, qualified)
        return self._resolved[qualified]

    def _resolve(self, module: str, name: str, qualified: str) -> type:
        if qualified in BUILDERS:
            return _wrapped(name, BUILDERS[qualified])
        if module in ("torch", "torch.cuda", "torch.storage") and (
            name in dtypes.STORAGES or name in ("UntypedStorage", "TypedStorage")
        ):
            return _Sealed(name, (), {"__slots__": (), "element": dtypes.STORAGES.get(name, "")})
        if module == "torch" and dtypes.known(name):
            return _Sealed(name, (), {"__slots__": (), "element": name})
        if not (module in ("builtins", "__builtin__") and name in _PLAIN_TYPES):
            self._foreign.add(qualified)
        return _Sealed(name, (Foreign,), {"__slots__": (), "qualified": qualified})

    def persistent_load(self, identity: object) -> Unpickled:
        """Return a storage, or the class of a pickled module.

        The source of the class stands beside it, and is not looked at.
        """
        if not isinstance(identity, tuple) or not identity:
            raise pickle.UnpicklingError(f"a persistent id that is not a tuple: {identity!r:.80}")
        kind = identity[0]
        if kind in ("module", b"module"):
            return identity[1]
        if kind not in ("storage", b"storage") or self._locate is None:
            raise pickle.UnpicklingError(f"a persistent id of an unknown kind: {kind!r:.80}")
        _, storage, key, _location, count, *rest = identity
        element = getattr(storage, "element", None)
        if not isinstance(element, str) or not isinstance(count, int) or not 0 <= count <= MAX_ELEMENTS:
            raise pickle.UnpicklingError(
                f"a storage of an unknown type: {getattr(storage, 'qualified', storage)!s:.80}, {count!r:.20}"
                " elements"
            )
        view = (_text(rest[0][0]), int(rest[0][1]), int(rest[0][2])) if rest and rest[0] is not None else None
        return Storage(element, count, self._locate(_text(key), element, count, view))


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _wrapped(name: str, build: Callable[..., Unpickled]) -> type:
    """A sealed class whose call, or creation by ``NEWOBJ``, is ``build(*arguments)``."""
    return _Sealed(name, (), {"__slots__": (), "__new__": lambda cls, *args: build(*args)})


def _tensor(storage: object, offset: SupportsInt, size: Extents, stride: Extents, dtype: str = "") -> Tensor:
    """A tensor in *storage*; raises unless it lies inside."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    element = dtype or storage.dtype
    shape, strides = tuple(int(n) for n in size), tuple(int(n) for n in stride)
    offset = int(offset)
    if not element or offset < 0 or len(shape) != len(strides) or min((*shape, *strides), default=0) < 0:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} with strides {strides} at {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and dtypes.byte_size(element, last + 1) > storage.nbytes:
        raise pickle.UnpicklingError(
            f"a tensor of shape {shape} reaches beyond its storage of {storage.nbytes} bytes"
        )
    if max(shape, default=0) > MAX_ELEMENTS or dtypes.byte_size(element, math.prod(shape)) > max(
        storage.nbytes, MOST_REPEATED
    ):
        raise pickle.UnpicklingError(
            f"a tensor of shape {shape} that repeats the {storage.nbytes} bytes of its storage"
        )
    return stored(
        element,
        shape,
        storage.file,
        dtypes.byte_size(element, offset),
        None if packed(shape, strides) else strides,
    )


def _tensor_v2(storage: object, offset: SupportsInt, size: Extents, stride: Extents, *_: object) -> Tensor:
    return _tensor(storage, offset, size, stride)


def _tensor_v3(
    storage: object,
    offset: SupportsInt,
    size: Extents,
    stride: Extents,
    gradient: object,
    hooks: object,
    dtype: object,
    *_: object,
) -> Tensor:
    return _tensor(storage, offset, size, stride, getattr(dtype, "element", ""))


def _first(data: Unpickled = None, *_: object) -> Unpickled:
    return data


def _from_type(
    function: Callable[..., Unpickled], new_type: object, args: Iterable[Unpickled], state: object = None
) -> Unpickled:
    return function(*args)


def _encode(text: str, encoding: object = "latin1", *_: object) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes in an unexpected encoding: {encoding!r:.80}")
    return text.encode("latin1")


def _mapping(*args: object) -> dict[Unpickled, Unpickled]:
    return dict(*(a for a in args[-1:] if isinstance(a, (dict, list, tuple))))


def _ordered(*args: Unpickled) -> OrderedDict[Unpickled, Unpickled]:
    return OrderedDict(*args)


def _size(extents: Extents = ()) -> tuple[int, ...]:
    return tuple(int(n) for n in extents)


# What the allowed globals do, by full name. Parameters become plain tensors; gradients and hooks are dropped.
BUILDERS: dict[str, Callable[..., Unpickled]] = {
    "_codecs.encode": _encode,
    "builtins.dict": _mapping,
    "__builtin__.dict": _mapping,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _mapping,
    "collections.defaultdict": _mapping,
    "torch.Size": _size,
    "torch.device": lambda *args: None,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.tensor._rebuild_from_type": _from_type,
    "torch.tensor._rebuild_from_type_v2": _from_type,
}
