"""Signatures: the inputs and outputs of a net, with named dynamic dimensions.

The text forms are those of the command line::

    x=float32[batch,3,224,224]     an input: name, dtype, shape; a name in the shape is a dynamic dimension
    mask=int64[batch,past+new]     a sum of dimensions, as the keys of a decoder with a cache have
    batch=1:8                      a dimension's range, both ends included
    x=0:1                          the values an input takes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mnnprep.errors import UsageError

Range = tuple[float, float]  # the least and the largest value of an input
DTYPES = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)

Extent = int | str  # a fixed size, the name of a Dim, or a sum of these (past+new)
LARGEST_SIZE = 2**31 - 1  # sizes are int32 in MNN


class Dim(msgspec.Struct, frozen=True):
    """A dynamic dimension; ``min`` and ``max`` (both included) are None if nobody declared them."""

    name: str
    min: int | None = None
    max: int | None = None

    @property
    def declared(self) -> bool:
        """Whether both ends of the range are given."""
        return self.min is not None and self.max is not None

    def admits(self, size: int) -> bool:
        """Whether *size* lies within the ends that are given."""
        return (self.min is None or size >= self.min) and (self.max is None or size <= self.max)


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output. ``range`` is the closed interval of the values an input takes, if known."""

    name: str
    dtype: str
    shape: tuple[Extent, ...]
    range: tuple[float, float] | None = None

    def sizes(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape at the given dimension sizes (KeyError when one is missing)."""
        return tuple(extent_size(e, dims) for e in self.shape)

    def __str__(self) -> str:
        return f"{self.name}={self.dtype}[{','.join(map(str, self.shape))}]"


class Signature(msgspec.Struct, frozen=True):
    """A model's inputs and outputs, and the dimensions that are named in their shapes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    dims: tuple[Dim, ...] = ()

    def dim(self, name: str) -> Dim:
        """Return the dimension of this *name*, one without a range if none was declared."""
        return next((d for d in self.dims if d.name == name), Dim(name))


def dim_names(inputs: Iterable[TensorSpec]) -> tuple[str, ...]:
    """The dynamic dimensions of *inputs*, in order of first appearance."""
    return tuple(dict.fromkeys(name for spec in inputs for e in spec.shape for name in names_in(e)))


_TERM = r"(?:[A-Za-z_][A-Za-z0-9_.]*|[0-9]+)"
_SUM = re.compile(rf"\s*{_TERM}(?:\s*\+\s*{_TERM})+\s*")


def terms(extent: Extent) -> tuple[Extent, ...]:
    """The sizes and names that *extent* is the sum of; itself if it is no sum."""
    if isinstance(extent, int) or not _SUM.fullmatch(extent):
        return (extent,)
    parts = (part.strip() for part in extent.split("+"))
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def names_in(extent: Extent) -> tuple[str, ...]:
    """The dimensions that *extent* follows from."""
    return tuple(dict.fromkeys(term for term in terms(extent) if isinstance(term, str)))


def extent_size(extent: Extent, dims: Mapping[str, int]) -> int:
    """The size of *extent* at the given dimension sizes (KeyError when one is missing)."""
    return sum(term if isinstance(term, int) else dims[term] for term in terms(extent))


# What exporters and people write for a size that nobody knows; tf2onnx numbers them (unk__12), each one a
# size of its own.
_NOT_KNOWN = re.compile(
    r"[\W_]*|-?\d+|unk(__\d+)?|unknown|unnamed|undefined|none|null|nil|nan|any|dyn(amic)?|dynamic_ax[ie]s",
    re.IGNORECASE,
)


def is_named(label: str) -> bool:
    """Whether a dynamic axis's *label* names its dimension.

    ``?``, ``None``, ``-1``, ``unk__12`` and the like say only that it is open.
    """
    return not _NOT_KNOWN.fullmatch(label.strip())


def dynamic_specs(
    inputs: Iterable[tuple[str, str, Sequence[int | str | None]]], *, batch: str = ""
) -> tuple[TensorSpec, ...]:
    """The specifications of *inputs*, each its name, dtype and shape as its file states it.

    Axes of one name are one dimension.  An axis without a name (None, a size below 1, what :func:`is_named`
    is false of) is one of its own, named ``INPUT_AXIS``; or *batch* if that is given, the axis is the
    first, and the first of no other input has no name.
    """
    stated = [(name, dtype, [_stated(extent) for extent in shape]) for name, dtype, shape in inputs]
    taken = {extent for _, _, shape in stated for extent in shape if isinstance(extent, str)}
    lone = batch not in taken and sum(shape[:1] == [None] for _, _, shape in stated) == 1

    def own(name: str, axis: int) -> str:
        made = batch if batch and lone and axis == 0 else f"{name}_{axis}"
        while made in taken:
            made += "_"
        taken.add(made)
        return made

    return tuple(
        TensorSpec(
            name,
            dtype,
            tuple(own(name, axis) if extent is None else extent for axis, extent in enumerate(shape)),
        )
        for name, dtype, shape in stated
    )


def _stated(extent: int | str | None) -> Extent | None:
    """Return a file's statement about an axis: a size, a name, or nothing."""
    if isinstance(extent, str):
        return "+".join(map(str, terms(extent.strip()))) if is_named(extent) else None
    return extent if extent is not None and extent > 0 else None


_INPUT = re.compile(r"(?P<name>.+?)=(?P<dtype>[a-z]+[0-9]*)\[(?P<shape>[^\[\]]*)\]$")
_OPEN = ("?", "*", "-1")
_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*$")


def parse_input(text: str) -> TensorSpec:
    """Parse ``NAME=DTYPE[D0,D1,...]``.

    An empty shape is a scalar, a ``?`` (or ``None``, ``-1``) a dimension of its own.

    Raises:
        UsageError: the text is of another form.
    """
    example = "write NAME=DTYPE[SHAPE], for example --input 'x=float32[batch,3,224,224]'"
    match = _INPUT.match(text.strip())
    if match is None:
        raise UsageError("an --input could not be read", seen=text, next=example)
    if match["dtype"] not in DTYPES:
        raise UsageError(
            f"an --input has the unknown dtype {match['dtype']}",
            seen=text,
            next="use one of " + ", ".join(DTYPES),
        )
    shape: list[Extent | None] = []
    for part in (p.strip() for p in match["shape"].split(",")) if match["shape"].strip() else ():
        if part.isdecimal():
            shape.append(_size(part, text, "an --input"))
        elif part in _OPEN or _IDENT.match(part) or (_SUM.fullmatch(part) and names_in(part)):
            shape.append(part)
        else:
            raise UsageError(
                f"an --input has the dimension {part!r}, neither a size nor a name", seen=text, next=example
            )
    return dynamic_specs([(match["name"].strip(), match["dtype"], shape)])[0]


def _size(part: str, text: str, option: str) -> int:
    if len(part) > len(str(LARGEST_SIZE)) or not 1 <= int(part) <= LARGEST_SIZE:
        raise UsageError(
            f"{option} has a dimension of size {part}",
            seen=text,
            next=f"give every dimension a size from 1 to {LARGEST_SIZE}",
        )
    return int(part)


def _parse_pair(text: str, option: str, example: str) -> tuple[str, str, str]:
    name, _, interval = text.rpartition("=")
    low, colon, high = interval.partition(":")
    if not name.strip() or not colon:
        raise UsageError(f"a {option} could not be read", seen=text, next=example)
    return name.strip(), low.strip(), high.strip()


def parse_dim(text: str) -> Dim:
    """``NAME=MIN:MAX``, both included, 1 <= MIN <= MAX.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    example = "write NAME=MIN:MAX, for example --dim batch=1:8"
    name, low, high = _parse_pair(text, "--dim", example)
    if not (low.isdecimal() and high.isdecimal()):
        raise UsageError("a --dim could not be read", seen=text, next=example)
    least, most = _size(low, text, "a --dim"), _size(high, text, "a --dim")
    if least > most:
        raise UsageError("a --dim has an empty range", seen=text, next=example)
    return Dim(name, least, most)


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """``NAME=LOW:HIGH``, the closed interval of an input's values.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    example = "write NAME=LOW:HIGH, for example --range x=0:1"
    name, low, high = _parse_pair(text, "--range", example)
    try:
        interval = float(low), float(high)
    except ValueError as error:
        raise UsageError("a --range could not be read", seen=text, next=example) from error
    if not (
        interval[0] <= interval[1] and abs(interval[0]) != float("inf") and abs(interval[1]) != float("inf")
    ):
        raise UsageError("a --range is empty or not finite", seen=text, next=example)
    return name, interval


def named(kind: str, name: str, known: Sequence[str], option: str) -> None:
    """Raise the UsageError of an unknown *name*, listing the *known* ones."""
    if name not in known:
        raise UsageError(
            f"{option} names {kind} {name!r}, which the model does not have",
            seen=name,
            next=f"{kind}s of this model: " + (", ".join(known) or "none"),
        )
