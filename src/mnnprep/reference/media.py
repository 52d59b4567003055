"""Images and sounds on their way into cases: which input a file fills, batches, what stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.errors import UsageError
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs
from mnnprep.model.preprocess import EXAMPLE, ImageRecipe, Recipe, SoundRecipe
from mnnprep.model.signature import TensorSpec, named, names_in
from mnnprep.reference.inputs import sizes_of, synthesize
from mnnprep.reference.pictures import read_picture
from mnnprep.reference.sounds import read_sound
from mnnprep.text import listed

IMAGES, SOUNDS = (".jpg", ".jpeg", ".png"), (".wav",)
DEFAULT_SOUND_LAYOUTS = {1: "t", 2: "nt", 3: "nct"}
SHOWN_NAMES = 4


class Media:
    """Collects files into cases: an image or a sound fills one input, a fixed batch of N takes N files."""

    def __init__(self, wants: InputSpecs, specs: tuple[TensorSpec, ...]) -> None:
        self.wants, self.specs = wants, specs
        self.first: dict[str, list[tuple[str, npt.NDArray[Any]]]] = {}
        self.pending: dict[str, list[tuple[str, npt.NDArray[Any]]]] = {}

    def add(self, name: str, file: Path, index: int) -> list[tuple[str, Arrays]]:
        """Read a file; the case that it completes, if it does."""
        recipe = _recipe_for(name, file, self.wants.preprocess)
        spec = input_of(recipe, self.specs)
        values = (
            _image(file, name, recipe, spec)
            if isinstance(recipe, ImageRecipe)
            else _sound(file, name, recipe, spec)
        )
        waiting = self.pending.setdefault(spec.name, [])
        waiting.append((name, values))
        first = self.first.setdefault(spec.name, [])
        batch = _batch(recipe, spec)
        if len(first) < batch:
            first.append((name, values))
        if len(waiting) < batch:
            return []
        del self.pending[spec.name]
        return [self._case(spec, waiting, index, batched="n" in _layout(recipe, spec))]

    def rest(self, index: int) -> list[tuple[str, Arrays]]:
        """The batches that are not full, filled up from the first files."""
        cases: list[tuple[str, Arrays]] = []
        for name, waiting in self.pending.items():
            spec = next(s for s in self.specs if s.name == name)
            size, first = int(spec.shape[0]), self.first[name]
            filled = waiting + [first[i % len(first)] for i in range(size - len(waiting))]
            cases.append(self._case(spec, filled, index + len(cases), batched=True))
        return cases

    def _case(
        self, spec: TensorSpec, files: list[tuple[str, npt.NDArray[Any]]], index: int, *, batched: bool
    ) -> tuple[str, Arrays]:
        names = list(dict.fromkeys(name for name, _ in files))
        label = listed(names, SHOWN_NAMES)
        shapes = {values.shape for _, values in files}
        if len(shapes) > 1:
            raise UsageError(
                "the samples of one batch have different sizes",
                seen=f"{label}: {' and '.join(str(list(s)) for s in sorted(shapes))}",
                next="give them one size with size= and crop= in --preprocess",
            )
        values = np.stack([values for _, values in files]) if batched else files[0][1]
        return label, {spec.name: values} | self._others(spec, values, label, index)

    def _others(self, spec: TensorSpec, values: npt.NDArray[Any], label: str, index: int) -> Arrays:
        others = tuple(s for s in self.specs if s.name != spec.name)
        dims = sizes_of({spec.name: values}, (spec,), label)
        loose = [f"{n} of {s.name}" for s in others for e in s.shape for n in names_in(e) if n not in dims]
        if loose:
            raise UsageError(
                "an image or a sound does not determine the size of another input",
                seen=f"{label}: {', '.join(loose)}",
                next="fix it with --input, or give all inputs in an .npz per sample",
            )
        return synthesize(others, dims, self.wants.seed + index, self.wants.ranges)


def recipe_of(suffix: str) -> type[ImageRecipe] | type[SoundRecipe] | tuple[()]:
    """The recipes for files of this (lower-case) suffix; none for arrays."""
    return ImageRecipe if suffix in IMAGES else SoundRecipe if suffix in SOUNDS else ()


def _recipe_for(name: str, file: Path, recipes: tuple[Recipe, ...]) -> Recipe:
    kind = recipe_of(file.suffix.lower())
    for recipe in recipes:
        if isinstance(recipe, kind):
            return recipe
    what = "an image" if kind is ImageRecipe else "a sound"
    raise UsageError(
        f"no --preprocess says how {what} becomes an input",
        seen=name,
        next=f"give the net's own preprocessing, for example {EXAMPLE}",
    )


def _layout(recipe: Recipe, spec: TensorSpec) -> str:
    return recipe.layout or DEFAULT_SOUND_LAYOUTS.get(len(spec.shape), "")


def _batch(recipe: Recipe, spec: TensorSpec) -> int:
    extent = spec.shape[0] if "n" in _layout(recipe, spec) else 1
    return extent if isinstance(extent, int) else 1


def input_of(recipe: Recipe, specs: tuple[TensorSpec, ...]) -> TensorSpec:
    """The input that the recipe fills: the one it names, else the only one of its rank and dtype."""
    image = isinstance(recipe, ImageRecipe)
    if recipe.input:
        named("input", recipe.input, [s.name for s in specs], "--preprocess")
    fitting = [s for s in specs if (not recipe.input or s.name == recipe.input) and _fits(recipe, s, image)]
    if len(fitting) == 1:
        return fitting[0]
    wanted = (
        f"layout {recipe.layout or '/'.join(DEFAULT_SOUND_LAYOUTS.values())},"
        f" {'floating or uint8' if image else 'floating'}"
    )
    problem = "several inputs fit" if fitting else "no input fits"
    raise UsageError(
        f"{problem} the --preprocess",
        seen=f"{wanted} among {', '.join(map(str, specs))}",
        next=(
            "name the input, as in --preprocess NAME:size=224"
            if fitting
            else "give the layout (and dtype) of the input"
        ),
    )


def _fits(recipe: Recipe, spec: TensorSpec, image: bool) -> bool:
    dtype = np.dtype(spec.dtype)
    if isinstance(recipe, ImageRecipe) and (
        recipe.dtype not in ("", spec.dtype) or (spec.dtype == "uint8" and not recipe.plain)
    ):
        return False
    return len(_layout(recipe, spec)) == len(spec.shape) > 0 and (
        dtype.kind == "f" or (image and spec.dtype == "uint8")
    )


def _image(file: Path, name: str, recipe: ImageRecipe, spec: TensorSpec) -> npt.NDArray[Any]:
    values = read_picture(file, name, recipe, spec.dtype)
    _check_shape(name, values, spec, recipe.layout, "change size, crop, channels or layout in --preprocess")
    return values


def _sound(file: Path, name: str, recipe: SoundRecipe, spec: TensorSpec) -> npt.NDArray[Any]:
    layout = _layout(recipe, spec)
    extent = spec.shape[layout.index("t")]
    if isinstance(extent, int) and recipe.length not in (0, extent):
        raise UsageError(
            "length in --preprocess differs from the input's",
            seen=f"{recipe.length}, and {spec}",
            next="leave it out",
        )
    values = read_sound(file, name, recipe, extent if isinstance(extent, int) else recipe.length, spec.dtype)
    if "c" not in layout:
        if len(values) > 1:
            raise UsageError(
                "a sound has several channels and the input none",
                seen=f"{name}: {len(values)} channels",
                next="add channels=mono to --preprocess",
            )
        values = values[0]
    elif layout.index("c") > layout.index("t"):
        values = np.ascontiguousarray(values.T)
    _check_shape(name, values, spec, layout, "change channels, length or layout in --preprocess")
    return values


def _check_shape(name: str, values: npt.NDArray[Any], spec: TensorSpec, layout: str, remedy: str) -> None:
    """One sample's values against the input's fixed sizes, its batch left out."""
    shape = spec.shape[1:] if "n" in layout else spec.shape
    if any(isinstance(e, int) and e != n for e, n in zip(shape, values.shape, strict=True)):
        axes = layout.replace("n", "")
        raise UsageError(
            f"--preprocess does not give the shape of {spec.name}",
            seen=f"{name} becomes {list(values.shape)} ({', '.join(axes)}), the input is {spec}",
            next=remedy,
        )
