"""Fourier transforms of PyTorch sources as products and convolutions with constant waves, for an export.

They give pairs of real tensors (complex_pairs), or take them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.formats.torch.complex_pairs import Pair, is_complex_number, pair_of, view_as_real
from mnnprep.formats.torch.types import Function

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]


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
    return pair if return_complex else view_as_real(pair)


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
    pair, hop = pair_of(input), hop_length or n_fft // 4
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


def _turned(input: object, dim: int, sign: float, norm: str | None) -> Pair:
    """The discrete Fourier transform along *dim*, as a product with the matrix of its waves, of any size."""
    torch = require("torch")
    pair, real = pair_of(input), not is_complex_number(input)
    size = pair.re.shape[dim]
    place = torch.arange(size)
    turns = (place.unsqueeze(1) * place) % size
    angles = turns.to(pair.re.dtype) * (2 * math.pi / size)
    cosine, sine = angles.cos(), angles.sin() * sign
    scale = {"ortho": 0.5, "forward": 1.0}.get(norm or "", 0.0)
    scale = scale if sign < 0 or norm == "ortho" else 1.0 - scale
    if scale:
        cosine, sine = (wave * (1.0 / size) ** scale for wave in (cosine, sine))
    re, im = (part.transpose(dim, -1) for part in (pair.re, pair.im))
    if real:
        made = Pair(re @ cosine, re @ sine)
    else:
        made = Pair(re @ cosine - im @ sine, re @ sine + im @ cosine)
    return Pair(made.re.transpose(dim, -1), made.im.transpose(dim, -1))


def _along(input: object, n: int | None, dim: int, norm: str | None, sign: float) -> Pair:
    """The transform along *dim*, whose length is *n* if that is given."""
    if n is not None and int(n) != int(pair_of(input).re.shape[dim]):
        raise NotImplementedError("a Fourier transform of another length than the input's")
    return _turned(input, dim, sign, norm)


def _fft(input: object, n: int | None = None, dim: int = -1, norm: str | None = None) -> Pair:
    return _along(input, n, dim, norm, -1.0)


def _ifft(input: object, n: int | None = None, dim: int = -1, norm: str | None = None) -> Pair:
    return _along(input, n, dim, norm, 1.0)


def _fftn(
    input: object, s: object = None, dim: int | Sequence[int] | None = None, norm: str | None = None
) -> Pair:
    """A transform along each of *dim*, all axes if it is None."""
    if s is not None:
        raise NotImplementedError("fftn of other lengths than the input's")
    found = input
    axes = [dim] if isinstance(dim, int) else range(pair_of(input).re.dim()) if dim is None else dim
    for axis in axes:
        found = _turned(found, axis, -1.0, norm)
    return pair_of(found)


def _fft2(input: object, s: object = None, dim: tuple[int, ...] = (-2, -1), norm: str | None = None) -> Pair:
    return _fftn(input, s, dim, norm)


def _rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Pair:
    whole = _fft(input, n, dim, norm)
    kept = input.shape[dim] // 2 + 1
    return Pair(*(part.narrow(dim, 0, kept) for part in (whole.re, whole.im)))


def fourier_forms() -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode."""
    torch = require("torch")
    forms: dict[Function, Function] = {getattr(torch.fft, name): form for name, form in _TRANSFORMS.items()}
    for name, form in {"stft": _stft, "istft": _istft}.items():
        forms |= {getattr(torch, name): form, getattr(torch.Tensor, name): form}
    return forms


_TRANSFORMS: dict[str, Function] = {
    "fft": _fft,
    "ifft": _ifft,
    "fftn": _fftn,
    "fft2": _fft2,
    "rfft": _rfft,
}
