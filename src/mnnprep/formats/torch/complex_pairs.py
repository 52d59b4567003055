"""Complex tensors as two real ones while torch's TorchScript-based exporter runs, since ONNX has none.

What makes a complex tensor (``view_as_complex``, ``polar``, ``complex``) gives a :class:`Pair`; the
calls below take one, by the usual formulas; what takes none raises, and the export fails as it did before.
The reference is the source without any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types

if TYPE_CHECKING:
    from torch import Tensor

# Calls that move elements and compute none, or add them up: done to both parts.
_BOTH = frozenset(
    [
        "__getitem__",
        "cat",
        "chunk",
        "clone",
        "concat",
        "contiguous",
        "cpu",
        "detach",
        "expand",
        "expand_as",
        "flatten",
        "flip",
        "index_select",
        "mean",
        "movedim",
        "narrow",
        "permute",
        "repeat",
        "reshape",
        "roll",
        "select",
        "split",
        "squeeze",
        "stack",
        "sum",
        "swapaxes",
        "transpose",
        "unflatten",
        "unsqueeze",
        "view",
        "view_as",
    ]
)
_OF_THE_SHAPE = frozenset(["shape", "device", "ndim"])


@dataclass(frozen=True, eq=False)
class Pair:
    """A complex tensor: its real and its imaginary part, of one shape."""

    re: Tensor
    im: Tensor

    @classmethod
    def __torch_function__(
        cls, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
    ) -> object:
        return call(function, args, kwargs or {})

    def __getattr__(self, name: str) -> object:
        if name in _OF_THE_SHAPE:
            return getattr(self.re, name)
        if name in ("real", "imag"):
            return self.re if name == "real" else self.im
        if name == "dtype":
            torch = require("torch")
            return torch.complex128 if self.re.dtype == torch.float64 else torch.complex64
        if name == "mT":
            return Pair(self.re.mT, self.im.mT)
        method = getattr(require("torch").Tensor, name)
        return lambda *args, **kwargs: call(method, (self, *args), kwargs)


def _operator(name: str) -> Callable[..., object]:
    def operate(*args: object) -> object:
        return call(getattr(require("torch").Tensor, name), args, {})

    return operate


for _name in (
    "abs",
    "mul",
    "rmul",
    "add",
    "radd",
    "sub",
    "rsub",
    "truediv",
    "rtruediv",
    "neg",
    "getitem",
    "matmul",
):
    setattr(Pair, f"__{_name}__", _operator(f"__{_name}__"))


def holds_complex(args: Arguments, kwargs: Keywords) -> bool:
    """Whether a complex tensor, as torch's or as a pair, is among the arguments of a call."""
    return any(is_complex_number(leaf) for leaf in _leaves([args, list(kwargs.values())]))


def makers() -> dict[Function, Function]:
    """What makes pairs of real tensors, by the functions that torch hands to a mode."""
    torch = require("torch")
    return {
        torch.view_as_complex: lambda x: Pair(x[..., 0], x[..., 1]),
        torch.polar: lambda size, angle: Pair(size * torch.cos(angle), size * torch.sin(angle)),
        torch.complex: Pair,
    }


def call(function: Function, args: Arguments, kwargs: Keywords) -> object:
    """What *function* gives of complex arguments.

    Raises:
        NotImplementedError: it is not among those that take pairs.
    """
    name = getattr(function, "__name__", "")
    if name in _BOTH:
        return _both(function, args, kwargs)
    form = _FORMS.get(name.strip("_"))
    if form is None:
        raise NotImplementedError(f"{name} of complex numbers")
    return form(*args, **kwargs)


def _leaves(values: object) -> list[object]:
    if isinstance(values, (list, tuple)):
        return [leaf for value in values for leaf in _leaves(value)]
    return [values]


def is_complex_number(value: object) -> bool:
    """Whether *value* is a complex tensor, as torch's or as a pair."""
    return isinstance(value, Pair) or (isinstance(value, require("torch").Tensor) and value.is_complex())


def pair_of(value: Any) -> Pair:  # noqa: ANN401 - a tensor or a number of any kind
    """*value* as a pair; a complex tensor that the module holds becomes two constants."""
    torch = require("torch")
    if isinstance(value, Pair):
        return value
    if isinstance(value, torch.Tensor) and value.is_complex():
        held = value.detach().cpu().resolve_conj().numpy()
        return Pair(*(torch.from_numpy(part.copy()) for part in (held.real, held.imag)))
    if isinstance(value, torch.Tensor):
        return Pair(value, torch.zeros_like(value))
    number = complex(value)
    return Pair(torch.tensor(number.real), torch.tensor(number.imag))


def _both(function: Function, args: Arguments, kwargs: Keywords) -> object:
    """*function* of the real parts and of the imaginary ones, as a pair, or a tuple of pairs."""

    def parts(values: object, which: str) -> Any:  # noqa: ANN401 - arguments as they are
        if isinstance(values, (list, tuple)):
            found = [parts(value, which) for value in values]
            return found if isinstance(values, list) else tuple(found)
        joined = function.__name__ in ("cat", "concat", "stack") and hasattr(values, "dim")
        return getattr(pair_of(values), which) if joined or is_complex_number(values) else values

    real, imaginary = (function(*parts(args, which), **kwargs) for which in ("re", "im"))
    if isinstance(real, (list, tuple)):
        return tuple(Pair(re, im) for re, im in zip(real, imaginary, strict=True))
    return Pair(real, imaginary)


def _product(one: object, other: object) -> Pair:
    a, b = pair_of(one), pair_of(other)
    return Pair(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def _times(one: Any, other: Any) -> Pair:  # noqa: ANN401 - tensors, pairs and numbers
    """A product; of a pair and a real factor, part by part."""
    for pair, factor in ((one, other), (other, one)):
        if not is_complex_number(factor) and not isinstance(factor, complex):
            found = pair_of(pair)
            return Pair(found.re * factor, found.im * factor)
    return _product(one, other)


def _quotient(one: Any, other: Any) -> Pair:  # noqa: ANN401 - tensors, pairs and numbers
    if not is_complex_number(other) and not isinstance(other, complex):
        found = pair_of(one)
        return Pair(found.re / other, found.im / other)
    below = pair_of(other)
    above = _product(one, Pair(below.re, -below.im))
    size = below.re * below.re + below.im * below.im
    return Pair(above.re / size, above.im / size)


def _sum(one: object, other: object) -> Pair:
    a, b = pair_of(one), pair_of(other)
    return Pair(a.re + b.re, a.im + b.im)


def _difference(one: object, other: object) -> Pair:
    a, b = pair_of(one), pair_of(other)
    return Pair(a.re - b.re, a.im - b.im)


def _matmul(one: object, other: object) -> Pair:
    a, b = pair_of(one), pair_of(other)
    return Pair(a.re @ b.re - a.im @ b.im, a.re @ b.im + a.im @ b.re)


def _exponential(value: object) -> Pair:
    found = pair_of(value)
    size = found.re.exp()
    return Pair(size * found.im.cos(), size * found.im.sin())


def _absolute(value: object) -> Tensor:
    found = pair_of(value)
    return (found.re * found.re + found.im * found.im).sqrt()


def view_as_real(value: object) -> Tensor:
    """The parts of *value* as a last axis."""
    found = pair_of(value)
    stacked: Tensor = require("torch").stack([found.re, found.im], -1)
    return stacked


def _angle(value: object) -> Tensor:
    found = pair_of(value)
    angle: Tensor = require("torch").atan2(found.im, found.re)
    return angle


def _cast(value: object, *_: object, **__: object) -> Pair:
    """``to`` of a complex dtype or a device: the parts as they are."""
    return pair_of(value)


_FORMS: dict[str, Callable[..., object]] = {
    **dict.fromkeys(("mul", "rmul", "multiply"), _times),
    **dict.fromkeys(("add", "radd"), _sum),
    **dict.fromkeys(("sub", "subtract"), _difference),
    "rsub": lambda one, other: _difference(other, one),
    **dict.fromkeys(("div", "truediv", "true_divide"), _quotient),
    **dict.fromkeys(("rdiv", "rtruediv"), lambda one, other: _quotient(other, one)),
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("abs", "absolute"), _absolute),
    **dict.fromkeys(("conj", "conj_physical"), lambda z: Pair(pair_of(z).re, -pair_of(z).im)),
    **dict.fromkeys(("resolve_conj", "to", "type"), _cast),
    "neg": lambda z: Pair(-pair_of(z).re, -pair_of(z).im),
    "exp": _exponential,
    "angle": _angle,
    "view_as_real": view_as_real,
    "real": lambda z: pair_of(z).re,
    "imag": lambda z: pair_of(z).im,
    "is_complex": lambda _: True,
    "size": lambda z, *axis: pair_of(z).re.size(*axis),
    "dim": lambda z: pair_of(z).re.dim(),
}
