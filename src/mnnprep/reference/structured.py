"""Inputs with the structure of what nets are made for: images, sounds and ids.

Random numbers look like none of these, so that an output may not move on them.  Every generator uses sums,
products and comparisons of float64 alone: a seed gives the same bytes on every system.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mnnprep.model.signature import Range, TensorSpec

Floats = npt.NDArray[np.float64]
Kind = Literal["image", "sound", "ids"]

CHANNELS = (1, 3, 4)
SMALLEST_SIDE = 8
SHORTEST_SOUND = 256
OCTAVES = 6
VARIANTS = 3  # different structures of every kind


def kind_of(spec: TensorSpec, shape: tuple[int, ...]) -> Kind | None:
    """What an input is, by its dtype, rank and shape; None where they don't tell."""
    kind = np.dtype(spec.dtype).kind
    if channel_axis(shape) is not None and (kind == "f" or spec.dtype == "uint8"):
        return "image"
    if kind == "f" and 1 <= len(shape) <= 3 and shape[-1] >= SHORTEST_SOUND:
        return "sound"
    if kind in "iu" and 1 <= len(shape) <= 2 and spec.range is not None and "mask" not in spec.name.lower():
        return "ids"
    return None


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the channels of a batch of images, 1 or 3; None if *shape* is not that of one."""
    if len(shape) != 4:
        return None
    for axis, sides in ((1, shape[2:]), (3, shape[1:3])):
        if shape[axis] in CHANNELS and min(sides) >= SMALLEST_SIDE:
            return axis
    return None


def structured(spec: TensorSpec, shape: tuple[int, ...], seed: int, variant: int) -> npt.NDArray[Any] | None:
    """The values of one input, structured as its kind is; None if the kind is unknown.

    Floats and pixels fill the range of *spec*; without one, floats lie in -1 to 1 and pixels in 0 to 255.
    """
    random = np.random.Generator(np.random.PCG64([seed, variant]))
    kind = kind_of(spec, shape)
    if kind == "ids":
        assert spec.range is not None
        return _ids(shape, random, spec.range, variant).astype(spec.dtype)
    if kind == "image":
        values = _images(shape, random, variant)
    elif kind == "sound":
        values = _sounds(shape, random, variant)
    else:
        return None
    low, high = spec.range or ((-1.0, 1.0) if np.dtype(spec.dtype).kind == "f" else (0.0, 255.0))
    return np.clip(low + values * (high - low), low, high).astype(spec.dtype)


def _images(shape: tuple[int, ...], random: np.random.Generator, variant: int) -> Floats:
    """A batch of images of 0 to 1: octaves of noise, shapes on a gradient, or strokes like those of text."""
    axis = channel_axis(shape)
    assert axis is not None
    height, width = shape[2:] if axis == 1 else shape[1:3]
    make = (_natural, _shapes, _strokes)[variant % VARIANTS]
    planes = np.empty((shape[0], shape[axis], height, width))
    for image in planes:
        gray = make(height, width, random)
        for channel in image:
            channel[:] = gray * random.uniform(0.6, 1.0)
    return planes if axis == 1 else np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _natural(height: int, width: int, random: np.random.Generator) -> Floats:
    """Noise of OCTAVES grids, each twice as fine and half as strong: amplitudes fall as 1/f."""
    total = np.zeros((height, width))
    for octave in range(OCTAVES):
        cells = 1 << octave
        grid = random.uniform(0.0, 1.0, (cells + 1, cells + 1))
        y, x = np.arange(height) * (cells / height), np.arange(width) * (cells / width)
        rows, columns = y.astype(np.int64), x.astype(np.int64)
        down, right = (y - rows)[:, None], x - columns
        upper = grid[rows][:, columns] * (1 - right) + grid[rows][:, columns + 1] * right
        lower = grid[rows + 1][:, columns] * (1 - right) + grid[rows + 1][:, columns + 1] * right
        total += (upper * (1 - down) + lower * down) / (2 << octave)
    return total


def _shapes(height: int, width: int, random: np.random.Generator) -> Floats:
    """A gradient with rectangles and discs on it."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    plane = random.uniform(0.2, 0.8) * x + random.uniform(0.0, 0.2) * y
    for number in range(6):
        (top, left), size = random.uniform(0.0, 0.8, 2), random.uniform(0.1, 0.5)
        down, right = y - top, x - left
        square = (abs(down) < size / 2) & (abs(right) < size / 2)
        disc = down * down + right * right < size * size / 4
        plane = np.where(square if number % 2 else disc, random.uniform(0.0, 1.0), plane)
    return np.asarray(plane)


def _strokes(height: int, width: int, random: np.random.Generator) -> Floats:
    """Lines of dark glyphs on white: cells of five by three bits, with space between them."""
    unit = max(1, height // 32)
    rows, columns = -(-height // (7 * unit)), -(-width // (4 * unit))
    cells = np.zeros((rows, 7, columns, 4), bool)
    cells[:, 1:6, :, :3] = random.integers(0, 2, (rows, 5, columns, 3)) == 1
    ink = cells.reshape(7 * rows, 4 * columns).repeat(unit, 0).repeat(unit, 1)
    return np.where(ink[:height, :width], 0.05, 1.0)


def _sounds(shape: tuple[int, ...], random: np.random.Generator, variant: int) -> Floats:
    """Sounds of 0 to 1 about 0.5: a chirp, harmonic bursts with silence between, or impulses."""
    time = np.arange(shape[-1]) / shape[-1]
    loud = random.uniform(0.3, 1.0, (*shape[:-1], 1))
    pitch = random.uniform(8.0, 40.0, (*shape[:-1], 1))
    if variant % VARIANTS == 0:
        wave = _wave(pitch * time * (1 + 4 * time))
    elif variant % VARIANTS == 1:
        harmonics = _wave(pitch * time) + _wave(2 * pitch * time) / 2 + _wave(3 * pitch * time) / 4
        wave = harmonics / 1.75 * ((5 * time).astype(np.int64) % 2 == 0)
    else:
        places = random.uniform(0.0, 1.0, shape) < 0.01
        wave = np.where(places, 1.0, 0.0)
    return np.asarray(0.5 + wave * loud / 2)


def _wave(phase: Floats) -> Floats:
    """Two parabolas a period, close to a sine: 0 at whole and half phases, 1 and -1 between."""
    turn = 2 * (phase - np.floor(phase)) - 1
    return np.asarray(-4 * turn * (1 - abs(turn)))


def _ids(shape: tuple[int, ...], random: np.random.Generator, interval: Range, variant: int) -> Floats:
    """Ids by Zipf's law, the same with padding of the least at the end, or one id alone."""
    low, high = int(np.ceil(interval[0])), int(np.floor(interval[1]))
    drawn = low + np.floor(1 / (1 - random.uniform(0.0, 1.0, shape))) - 1
    ids = np.minimum(drawn, high)
    if variant % VARIANTS == 1:
        kept = random.integers((shape[-1] + 1) // 2, shape[-1] + 1, (*shape[:-1], 1))
        ids = np.where(np.arange(shape[-1]) < kept, ids, low)
    elif variant % VARIANTS == 2:
        ids = np.full(shape, float(random.integers(low, high, endpoint=True)))
    return np.asarray(ids)
