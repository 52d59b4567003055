"""An image file as an array.

Runs where a source is surveyed, never in the command-line process: a decoder may crash.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.model.preprocess import ImageRecipe

if TYPE_CHECKING:
    from types import ModuleType

    from PIL import Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
LARGEST = 2**26  # pixels, decoded or resized
PNG_DEPTH = 24  # the byte of a PNG's IHDR that is its bit depth (PNG specification, 11.2.1)


def read_picture(file: Path, name: str, recipe: ImageRecipe, dtype: str) -> npt.NDArray[Any]:
    """The image, prepared by *recipe* to *dtype* (floating, or uint8), in its layout without the batch.

    Raises:
        RefusedError: it can't be decoded, is not what its suffix says, is too large, or has pixels
        (transparent ones, 16 bits,
            CMYK, several frames) that there is more than one way to read; Pillow is not installed.
        UsageError: the crop is larger than the image.
    """
    require("PIL")
    pillow, ops = import_module("PIL.Image"), import_module("PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
            with pillow.open(file, formats=("JPEG", "PNG")) as opened:
                _admit(opened, file, name)
                image = ops.exif_transpose(opened)
                image = _opaque(image, name, recipe, pillow).convert(
                    "L" if recipe.channels == "gray" else "RGB"
                )
    except MnnprepError:
        raise
    except pillow.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # a decoder raises what it likes on foreign bytes
        seen = f"{name}: {type(error).__name__}: {error}".replace(str(file), file.name)
        raise RefusedError(
            "an image could not be decoded", seen=seen, next="write it again as JPEG or PNG, or remove it"
        ) from error
    image = _cropped(_resized(image, name, recipe, pillow), name, recipe)
    return _arranged(np.asarray(image), recipe, dtype)


def _admit(image: Image.Image, file: Path, name: str) -> None:
    """Refuse, before a pixel is decoded, what is too large or ambiguous."""
    kind = (
        "JPEG" if image.format == "MPO" else image.format
    )  # a camera's JPEG with previews behind the first image
    if kind != FORMATS[file.suffix.lower()]:
        raise RefusedError(
            "an image's content does not match its suffix",
            seen=f"{name} holds {kind}",
            next=f"name it .{str(kind).lower()}",
        )
    if image.width * image.height > LARGEST:
        raise _too_large(name, f"{image.width}x{image.height}")
    if kind == "PNG":
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise RefusedError(
                "an image has several frames",
                seen=f"{name}: {frames}",
                next="write one PNG per frame",
            )
        with file.open("rb") as head:
            depth = head.read(PNG_DEPTH + 1)[PNG_DEPTH]
        if depth > 8:
            raise RefusedError(
                "an image has more than 8 bits per channel",
                seen=f"{name}: {depth} bits",
                next="write it with 8 bits, or save the input as .npy",
            )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise RefusedError(
            "an image has an unsupported colour mode",
            seen=f"{name}: {image.mode}",
            next="convert it to RGB or gray",
        )


def _too_large(name: str, size: str) -> RefusedError:
    return RefusedError(
        f"an image has more than {LARGEST >> 20} x 2^20 pixels",
        seen=f"{name}: {size}",
        next="make it smaller",
    )


def _opaque(image: Image.Image, name: str, recipe: ImageRecipe, pillow: ModuleType) -> Image.Image:
    """The image without transparency, as the recipe says where it has any."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255) or recipe.alpha == "drop":
        return image.convert("RGB")
    if not recipe.alpha:
        raise RefusedError(
            "an image has transparent pixels",
            seen=name,
            next="choose how to treat them with alpha=black, alpha=white or alpha=drop in --preprocess",
        )
    laid: Image.Image = pillow.alpha_composite(pillow.new("RGBA", image.size, recipe.alpha), image)
    return laid


def _resized(image: Image.Image, name: str, recipe: ImageRecipe, pillow: ModuleType) -> Image.Image:
    if not recipe.size:
        return image
    if len(recipe.size) == 2:
        height, width = recipe.size
    else:
        short = min(image.size)
        width, height = (
            int(recipe.size[0] * side / short) if side != short else recipe.size[0] for side in image.size
        )
    if width * height > LARGEST:
        raise _too_large(name, f"resized to {width}x{height}")
    return image.resize((width, height), resample=pillow.Resampling[recipe.filter.upper()])


def _cropped(image: Image.Image, name: str, recipe: ImageRecipe) -> Image.Image:
    if not recipe.crop:
        return image
    height, width = recipe.crop
    if height > image.height or width > image.width:
        raise UsageError(
            "the crop is larger than an image",
            seen=f"{name}: {height}x{width} out of {image.height}x{image.width} (height x width)",
            next="resize it first, for example size=256,crop=224",
        )
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _arranged(pixels: npt.NDArray[Any], recipe: ImageRecipe, dtype: str) -> npt.NDArray[Any]:
    """Pixels [height, width(, 3)] of uint8 as values in the recipe's layout, without its batch."""
    values = pixels[..., None] if pixels.ndim == 2 else pixels
    if recipe.channels == "bgr":
        values = values[..., ::-1]
    if dtype != "uint8":
        values = ((values / recipe.scale - np.array(recipe.mean)) / np.array(recipe.std)).astype(dtype)
    order = recipe.layout.replace("n", "")
    if "c" not in order:
        return np.ascontiguousarray(values[..., 0])
    return np.ascontiguousarray(values.transpose(["hwc".index(axis) for axis in order]))
