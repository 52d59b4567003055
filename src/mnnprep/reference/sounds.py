"""A wav file as an array: PCM of 8, 16, 24 or 32 bits."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.preprocess import SoundRecipe


def read_sound(file: Path, name: str, recipe: SoundRecipe, length: int, dtype: str) -> npt.NDArray[Any]:
    """Return the samples as [channels, length] of *dtype*, -1 to 1.

    A full-scale negative is -1. They are the first *length*, with zeros after the file's end; all of them if
    *length* is 0.

    Raises:
        RefusedError: it is not a PCM wav, or holds fewer samples than it says.
        UsageError: it has another rate than the recipe.
    """
    try:
        with wave.open(str(file), "rb") as sound:
            rate, count, width, frames = (
                sound.getframerate(),
                sound.getnchannels(),
                sound.getsampwidth(),
                sound.getnframes(),
            )
            wanted = min(frames, length) if length else frames
            data = sound.readframes(wanted)
    except (wave.Error, EOFError, OSError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        seen = f"{name}: {type(error).__name__}: {error}" if str(error) else f"{name}: {type(error).__name__}"
        raise RefusedError(
            "a sound could not be read", seen=seen, next="write it as a wav file of 16-bit PCM"
        ) from error
    if rate != recipe.rate:
        raise UsageError(
            "a sound has another rate than --preprocess says",
            seen=f"{name}: {rate} Hz, not {recipe.rate} Hz",
            next="resample it the way the net's own pipeline does",
        )
    if not 1 <= width <= 4:
        raise RefusedError(
            "a sound has samples of an unknown width",
            seen=f"{name}: {8 * width} bits",
            next="write it as 16-bit PCM",
        )
    if len(data) != wanted * count * width or not frames:
        raise RefusedError(
            "a sound is cut off",
            seen=f"{name}: {len(data) // (count * width)} of {wanted} samples",
            next="write it again, or remove it",
        )
    values = _decoded(data, width).reshape(-1, count).T
    if recipe.channels == "mono":
        values = values.mean(axis=0, keepdims=True)
    values = np.pad(values, ((0, 0), (0, max(0, length - values.shape[1]))))
    return np.ascontiguousarray(values.astype(dtype))


def _decoded(data: bytes, width: int) -> npt.NDArray[Any]:
    """Decode little-endian PCM of *width* bytes as float64 in [-1, 1).

    One byte is unsigned, more are two's complement (Multimedia Programming Interface and Data Specifications
    1.0, "WAVE").
    """
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 4 - width :] = raw
    return np.asarray(wide.view("<i4")[:, 0] / 2.0**31)
