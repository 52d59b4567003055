"""Complex tensors as two real ones while torch's TorchScript-based exporter runs, since ONNX has none.

What makes a complex tensor (``view_as_complex``, ``polar``, ``complex``, ``stft``) gives a :class:`Pair`; the
calls below take one, by the usual formulas; what takes none raises, and the export fails as it did before.
The reference is the source without any of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]
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
    return any(_is_complex(leaf) for leaf in _leaves([args, list(kwargs.values())]))


def makers() -> dict[Function, Function]:
    """What makes pairs of real tensors, by the functions that torch hands to a mode."""
    torch = require("torch")
    return {
        torch.view_as_complex: lambda x: Pair(x[..., 0], x[..., 1]),
        torch.polar: lambda size, angle: Pair(size * torch.cos(angle), size * torch.sin(angle)),
        torch.complex: Pair,
        torch.stft: _stft,
        torch.Tensor.stft: _stft,
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


def _is_complex(value: object) -> bool:
    return isinstance(value, Pair) or (isinstance(value, require("torch").Tensor) and value.is_complex())


def _pair(value: Any) -> Pair:  # noqa: ANN401 - a tensor or a number of any kind
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
        return getattr(_pair(values), which) if joined or _is_complex(values) else values

    real, imaginary = (function(*parts(args, which), **kwargs) for which in ("re", "im"))
    if isinstance(real, (list, tuple)):
        return tuple(Pair(re, im) for re, im in zip(real, imaginary, strict=True))
    return Pair(real, imaginary)


def _product(one: object, other: object) -> Pair:
    a, b = _pair(one), _pair(other)
    return Pair(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def _times(one: Any, other: Any) -> Pair:  # noqa: ANN401 - tensors, pairs and numbers
    """A product; of a pair and a real factor, part by part."""
    for pair, factor in ((one, other), (other, one)):
        if not _is_complex(factor) and not isinstance(factor, complex):
            found = _pair(pair)
            return Pair(found.re * factor, found.im * factor)
    return _product(one, other)


def _quotient(one: Any, other: Any) -> Pair:  # noqa: ANN401 - tensors, pairs and numbers
    if not _is_complex(other) and not isinstance(other, complex):
        found = _pair(one)
        return Pair(found.re / other, found.im / other)
    below = _pair(other)
    above = _product(one, Pair(below.re, -below.im))
    size = below.re * below.re + below.im * below.im
    return Pair(above.re / size, above.im / size)


def _sum(one: object, other: object) -> Pair:
    a, b = _pair(one), _pair(other)
    return Pair(a.re + b.re, a.im + b.im)


def _difference(one: object, other: object) -> Pair:
    a, b = _pair(one), _pair(other)
    return Pair(a.re - b.re, a.im - b.im)


def _matmul(one: object, other: object) -> Pair:
    a, b = _pair(one), _pair(other)
    return Pair(a.re @ b.re - a.im @ b.im, a.re @ b.im + a.im @ b.re)


def _exponential(value: object) -> Pair:
    found = _pair(value)
    size = found.re.exp()
    return Pair(size * found.im.cos(), size * found.im.sin())


def _absolute(value: object) -> Tensor:
    found = _pair(value)
    return (found.re * found.re + found.im * found.im).sqrt()


def _view_as_real(value: object) -> Tensor:
    found = _pair(value)
    stacked: Tensor = require("torch").stack([found.re, found.im], -1)
    return stacked


def _angle(value: object) -> Tensor:
    found = _pair(value)
    angle: Tensor = require("torch").atan2(found.im, found.re)
    return angle


def _cast(value: object, *_: object, **__: object) -> Pair:
    """``to`` of a complex dtype or a device: the parts as they are."""
    return _pair(value)


def _kernels(window: Tensor | None, length: int, size: int, bins: int) -> tuple[Array, Array, Array]:
    """Cosine and sine of 2 pi k n / *size*, [bins, size], and the window in the middle of *size* zeros.

    They are arrays, and so constants of a trace: the window is one that the module holds.
    """
    held = np.ones(length) if window is None else window.detach().cpu().numpy().astype(np.float64)
    before = (size - length) // 2
    turns = np.outer(np.arange(bins), np.arange(size)) % size
    angles = turns * (2 * math.pi / size)
    sine = np.where(2 * turns % size == 0, 0.0, np.sin(angles))  # the ends of a spectrum are real
    return np.cos(angles), sine, np.pad(held, (before, size - length - before))


def _constant(value: Array, like: Tensor) -> Tensor:
    """*value* as a constant of a trace, in the dtype of *like*."""
    torch = require("torch")
    found: Tensor = torch.from_numpy(value.astype(np.float64 if like.dtype == torch.float64 else np.float32))
    return found


def _stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Pair | Tensor:
    """torch.stft of a real signal, [.., frequency, frame]: a convolution with the waves, windowed."""
    torch = require("torch")
    if align_to_window:
        raise NotImplementedError("stft with align_to_window")
    bins = n_fft // 2 + 1 if onesided in (None, True) else n_fft
    cosine, sine, held = _kernels(window, win_length or n_fft, n_fft, bins)
    scale = n_fft**-0.5 if normalized else 1.0
    waves = np.concatenate([cosine, 0.0 - sine]) * held * scale
    kernel = _constant(waves[:, None], like=input)
    signal = input.unsqueeze(0) if input.dim() == 1 else input
    signal = signal.unsqueeze(1)
    if center:
        signal = torch.nn.functional.pad(signal, (n_fft // 2, n_fft // 2), mode=pad_mode)
    found = torch.nn.functional.conv1d(signal, kernel, stride=hop_length or n_fft // 4)
    found = found[0] if input.dim() == 1 else found
    pair = Pair(found[..., :bins, :], found[..., bins:, :])
    return pair if return_complex else _view_as_real(pair)


def _istft(
    input: object,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """torch.istft to a real signal: a transposed convolution, over the sum of the squared windows."""
    torch = require("torch")
    if return_complex or onesided is False:
        raise NotImplementedError("istft to complex numbers")
    pair, hop = _pair(input), hop_length or n_fft // 4
    bins = n_fft // 2 + 1
    cosine, sine, held = _kernels(window, win_length or n_fft, n_fft, bins)
    each = np.full((bins, 1), 2.0 / n_fft)  # a bin and its conjugate
    each[[0, -1] if n_fft % 2 == 0 else [0]] = 1.0 / n_fft
    scale = n_fft**0.5 if normalized else 1.0
    kernel = _constant((np.concatenate([cosine * each, -sine * each]) * held * scale)[:, None], like=pair.re)
    squares = _constant((held * held).reshape(1, 1, n_fft), like=pair.re)
    frames = torch.cat([pair.re, pair.im], -2)
    single = frames.dim() == 2
    frames = frames.unsqueeze(0) if single else frames
    added = torch.nn.functional.conv_transpose1d(frames, kernel, stride=hop)
    envelope = torch.nn.functional.conv_transpose1d(torch.ones_like(frames[:1, :1]), squares, stride=hop)
    start = n_fft // 2 if center else 0
    if length is not None:
        end = start + length
        kept = slice(start, end)
    else:
        kept = slice(start, -start if center else None)
    signal: Tensor = (added[..., kept] / envelope[..., kept]).squeeze(1)
    return signal[0] if single else signal


_FORMS: dict[str, Callable[..., object]] = {
    **dict.fromkeys(("mul", "rmul", "multiply"), _times),
    **dict.fromkeys(("add", "radd"), _sum),
    **dict.fromkeys(("sub", "subtract"), _difference),
    "rsub": lambda one, other: _difference(other, one),
    **dict.fromkeys(("div", "truediv", "true_divide"), _quotient),
    **dict.fromkeys(("rdiv", "rtruediv"), lambda one, other: _quotient(other, one)),
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("abs", "absolute"), _absolute),
    **dict.fromkeys(("conj", "conj_physical"), lambda z: Pair(_pair(z).re, -_pair(z).im)),
    **dict.fromkeys(("resolve_conj", "to", "type"), _cast),
    "neg": lambda z: Pair(-_pair(z).re, -_pair(z).im),
    "exp": _exponential,
    "angle": _angle,
    "view_as_real": _view_as_real,
    "real": lambda z: _pair(z).re,
    "imag": lambda z: _pair(z).im,
    "is_complex": lambda _: True,
    "size": lambda z, *axis: _pair(z).re.size(*axis),
    "dim": lambda z: _pair(z).re.dim(),
    "istft": _istft,
}
