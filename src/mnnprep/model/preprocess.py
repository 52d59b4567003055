"""The recipes that make an input of an image or a sound file, validated once.

They stand in the manifest so that an app can do the same.

The text form is that of ``--preprocess``: ``[INPUT:]KEY=VALUE,...``; several values of one key are joined by
colons::

    size=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225
    mel:rate=16000,channels=mono
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from mnnprep.errors import UsageError

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
ALPHAS = ("drop", "black", "white")
IMAGE_LAYOUTS = ("nchw", "nhwc", "chw", "hwc", "nhw", "hw")
SOUND_LAYOUTS = ("t", "nt", "nct", "ntc", "ct", "tc")
DTYPES = ("float32", "uint8")
LARGEST_SIDE = 2**14
LARGEST_RATE = 10**7
EXAMPLE = (
    "--preprocess 'size=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw' for"
    " images, 'rate=16000' for wav"
)


class ImageRecipe(msgspec.Struct, frozen=True, kw_only=True, tag="image", tag_field="kind"):
    """An image as an input: turned, resized, cropped and normalized.

    It is turned as its EXIF says, resized, cropped about its centre, then ``(pixel / scale - mean) / std``.

    ``input`` is the input's name, empty for the only one it fits. ``size`` is empty (as it is), ``(n,)`` (the
    shorter side; the longer one keeps the proportion, rounded down) or ``(height, width)``; ``crop`` is empty
    or ``(height, width)``. ``mean`` and ``std`` have a value per channel, in the order of ``channels``.
    ``alpha`` says what becomes of transparent pixels (empty: they are refused). ``dtype`` is empty if the
    input's own is meant.
    """

    input: str = ""
    size: tuple[int, ...] = ()
    filter: str = "bilinear"
    crop: tuple[int, ...] = ()
    channels: str = "rgb"
    alpha: str = ""
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: str = "nchw"
    dtype: str = ""

    @property
    def mnn_mean(self) -> list[float]:
        """``mean`` of MNN's ImageProcess, which computes (pixel - mean) * normal for every channel."""
        return [m * self.scale for m in self.mean]

    @property
    def mnn_normal(self) -> list[float]:
        """``normal`` of MNN's ImageProcess."""
        return [1 / (self.scale * s) for s in self.std]

    @property
    def plain(self) -> bool:
        """Whether the pixels stay as they are, 0 to 255."""
        return self.scale == 1 and not any(self.mean) and all(s == 1 for s in self.std)


class SoundRecipe(msgspec.Struct, frozen=True, kw_only=True, tag="sound", tag_field="kind"):
    """PCM of ``rate`` samples a second as an input, -1 to 1.

    It is cut after, or padded with zeros to, ``length`` samples (0: the input's fixed size, else the whole
    file). ``channels``: ``mono`` averages them, ``all`` keeps them. ``layout`` is empty for t, nt or nct by
    rank.
    """

    input: str = ""
    rate: int
    channels: str = "all"
    length: int = 0
    layout: str = ""


Recipe = ImageRecipe | SoundRecipe


def parse_preprocess(text: str) -> Recipe:
    """A ``--preprocess`` text.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    name, pairs = _pairs(text)
    sound = (
        bool({"rate", "length"} & set(pairs))
        or pairs.get("layout") in SOUND_LAYOUTS
        or pairs.get("channels") in ("mono", "all")
    )
    known = _SOUND if sound else _IMAGE
    for key in pairs:
        if key not in known:
            kind = "a sound's" if sound else "an image's"
            raise UsageError(
                f"a --preprocess has {key}, which is not a key of {kind}",
                seen=text,
                next="it has " + ", ".join(known),
            )
    values = {key: known[key](key, value) for key, value in pairs.items()}
    if sound:
        if "rate" not in values:
            raise UsageError(
                "a --preprocess of sounds does not say their rate",
                seen=text,
                next="add the net's sample rate, for example rate=16000",
            )
        return SoundRecipe(input=name, **values)
    return _image(name, values, text)


def _pairs(text: str) -> tuple[str, dict[str, str]]:
    """The input's name (it may hold colons) and the pairs as texts."""
    head, equals, _ = text.partition("=")
    name, colon, _ = head.rpartition(":")
    pairs: dict[str, str] = {}
    for part in text[len(name) + len(colon) :].split(","):
        key, equal, value = (p.strip() for p in part.partition("="))
        if not (equals and equal and key and value) or (colon and not name.strip()):
            raise UsageError(
                "a --preprocess could not be read",
                seen=text,
                next=f"write KEY=VALUE,KEY=VALUE, for example {EXAMPLE}",
            )
        if key in pairs:
            raise UsageError(f"a --preprocess gives {key} twice", seen=text, next="give it once")
        pairs[key] = value
    return name.strip(), pairs


def _image(name: str, values: dict[str, Any], text: str) -> ImageRecipe:
    recipe = ImageRecipe(input=name, **values)
    count = CHANNELS[recipe.channels]
    for key, default in (("mean", 0.0), ("std", 1.0)):
        given = values.get(key, (default,))
        if len(given) not in (1, count):
            raise UsageError(
                f"a --preprocess has {len(given)} values of {key} for {count} channel{'s' * (count > 1)}",
                seen=text,
                next="give one, or one per channel",
            )
        recipe = msgspec.structs.replace(recipe, **{key: given if len(given) == count else given * count})
    if "c" not in recipe.layout and recipe.channels != "gray":
        raise UsageError(
            f"a --preprocess has a layout without channels for {recipe.channels}",
            seen=text,
            next="add channels=gray, or use a layout with c",
        )
    if recipe.dtype == "uint8" and not recipe.plain:
        raise UsageError(
            "a --preprocess scales an input that stays uint8",
            seen=text,
            next="leave out scale, mean and std: the pixels go in as they are",
        )
    return recipe


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(key: str, value: str) -> str:
        if value.lower() not in words:
            raise UsageError(
                f"a --preprocess has an unknown {key}", seen=value, next="it is one of " + ", ".join(words)
            )
        return value.lower()

    return read


def _whole(most: int) -> Callable[[str, str], int]:
    def read(key: str, value: str) -> int:
        if not (value.isascii() and value.isdecimal() and len(value) < 20 and 1 <= int(value) <= most):
            raise UsageError(
                f"a --preprocess has an invalid {key}",
                seen=value,
                next=f"give a whole number from 1 to {most}",
            )
        return int(value)

    return read


def _sides(key: str, value: str) -> tuple[int, ...]:
    sides = tuple(_whole(LARGEST_SIDE)(key, part) for part in value.lower().split("x"))
    if len(sides) > 2:
        raise UsageError(
            f"a --preprocess has a {key} of {len(sides)} sides",
            seen=value,
            next=f"write {key}=224 or {key}=HEIGHTxWIDTH",
        )
    return sides if key == "size" or len(sides) == 2 else sides * 2


def _figures(key: str, value: str) -> tuple[float, ...]:
    try:
        figures = tuple(float(part) for part in value.split(":"))
    except ValueError as error:
        raise UsageError(
            f"a --preprocess has a {key} that is not a number",
            seen=value,
            next=f"write {key}=0.5 or {key}=0.485:0.456:0.406",
        ) from error
    if not all(map(math.isfinite, figures)) or (key != "mean" and not all(f >= 1e-9 for f in figures)):
        limits = "finite" if key == "mean" else "finite and above 0"
        raise UsageError(
            f"a --preprocess has a {key} that is not {limits}",
            seen=value,
            next="it computes (pixel / scale - mean) / std",
        )
    return figures


def _figure(key: str, value: str) -> float:
    figures = _figures(key, value)
    if len(figures) != 1:
        raise UsageError(
            f"a --preprocess has several values of {key}",
            seen=value,
            next="give one: all channels are divided by it",
        )
    return figures[0]


_IMAGE: dict[str, Callable[[str, str], Any]] = {
    "size": _sides,
    "filter": _one_of(*FILTERS),
    "crop": _sides,
    "channels": _one_of(*CHANNELS),
    "alpha": _one_of(*ALPHAS),
    "scale": _figure,
    "mean": _figures,
    "std": _figures,
    "layout": _one_of(*IMAGE_LAYOUTS),
    "dtype": _one_of(*DTYPES),
}
_SOUND: dict[str, Callable[[str, str], Any]] = {
    "rate": _whole(LARGEST_RATE),
    "channels": _one_of("all", "mono"),
    "length": _whole(2**31 - 1),
    "layout": _one_of(*SOUND_LAYOUTS),
}


def preprocess_text(recipe: Recipe) -> str:
    """The ``--preprocess`` text that :func:`parse_preprocess` reads as *recipe*."""
    if isinstance(recipe, SoundRecipe):
        values = {
            "rate": recipe.rate,
            "channels": recipe.channels,
            "length": recipe.length,
            "layout": recipe.layout,
        }
    else:
        default = ImageRecipe()
        values = {
            "size": "x".join(map(str, recipe.size)),
            "filter": recipe.filter,
            "crop": "x".join(map(str, recipe.crop)),
            "channels": recipe.channels,
            "alpha": recipe.alpha,
            "scale": "" if recipe.scale == default.scale else repr(recipe.scale),
            "mean": ":".join(map(repr, recipe.mean)) if any(recipe.mean) else "",
            "std": ":".join(map(repr, recipe.std)) if any(s != 1 for s in recipe.std) else "",
            "layout": recipe.layout,
            "dtype": recipe.dtype,
        }
    text = ",".join(f"{key}={value}" for key, value in values.items() if value)
    return f"{recipe.input}:{text}" if recipe.input else text
