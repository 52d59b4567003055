"""Real inputs: the files that ``--samples`` names, as cases.

Decoding happens where the source is surveyed, in a worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure
from mnnprep.model.files import Arrays, load_arrays, read_array
from mnnprep.model.messages import ORIGIN, InputSpecs
from mnnprep.model.preprocess import ImageRecipe
from mnnprep.model.signature import TensorSpec
from mnnprep.reference.media import IMAGES, SOUNDS, Media, input_of, recipe_of
from mnnprep.safety.damage import DEFECTS

ARRAYS = (".npz", ".npy")
SUFFIXES = (*ARRAYS, *IMAGES, *SOUNDS)


@dataclass(frozen=True)
class SampleFiles:
    """The files to take, with their names, out of ``found`` samples of the kinds ``suffixes``.

    ``ignored`` are of other kinds.
    """

    taken: list[tuple[str, Path]]
    found: int
    ignored: int
    suffixes: frozenset[str]


def sample_files(path: str, limit: int) -> SampleFiles:
    """Return the sample files at *path*.

    They are itself, or those below it in the order of their names, hidden ones left out.

    Of more than *limit* files, *limit* are taken, evenly spaced in that order: the ``i * found // limit``-th.

    Raises:
        UsageError: there is nothing, or nothing that is a sample.
    """
    root = Path(path)
    if not root.exists():
        raise UsageError(
            "there are no samples at this path",
            seen=path,
            next="give an .npz, .npy, .jpg, .png or .wav file or a directory to --samples",
        )
    if not root.is_dir():
        if root.suffix.lower() not in SUFFIXES:
            raise UsageError(
                "samples are .npz, .npy, .jpg, .png or .wav files",
                seen=root.name,
                next="save the arrays with numpy.savez",
            )
        return SampleFiles([(root.name, root)], 1, 0, frozenset({root.suffix.lower()}))
    below = sorted((file.relative_to(root).as_posix(), file) for file in _walk(root))
    files = [(name, file) for name, file in below if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(
            "this directory does not contain .npz, .npy, .jpg, .png or .wav file",
            seen=path,
            next="write one .npz per sample, with an array per input name",
        )
    suffixes = frozenset(file.suffix.lower() for _, file in files)
    return SampleFiles(
        [files[i] for i in spread(len(files), limit)], len(files), len(below) - len(files), suffixes
    )


def spread(count: int, limit: int) -> list[int]:
    """The places of at most *limit* of *count* things, evenly spaced from the first on."""
    return [i * count // limit for i in range(limit)] if count > limit else list(range(count))


def _walk(root: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(root):
        named_as_samples = [
            f for f in folders if Path(f).suffix.lower() in SUFFIXES
        ]  # to be refused when read, not passed over
        folders[:] = [f for f in folders if not f.startswith(".") and f not in named_as_samples]
        yield from (Path(folder, name) for name in [*names, *named_as_samples] if not name.startswith("."))


def read_samples(wants: InputSpecs, specs: tuple[TensorSpec, ...]) -> list[tuple[str, Arrays]]:
    """Return the samples that *wants* names as cases, each with the name of its file.

    They are an ``.npz`` by input names, an ``.npy`` for a net with one input, an image or a ``.wav`` by its
    ``--preprocess``.

    An image or a sound fills one input; a fixed batch of N takes N files a case, the last one filled up from
    the first files. The other inputs are synthesized, with a seed of their own for every case.

    Raises:
        UsageError: nothing there, an unknown name, a shape or dtype that doesn't fit, no recipe for what is
        there.
        RefusedError: a file that can't be read.
    """
    files = sample_files(wants.samples, wants.sample_limit)
    media = Media(wants, specs)
    for recipe in wants.preprocess:
        if not any(isinstance(recipe, recipe_of(suffix)) for suffix in files.suffixes):
            kind = "images" if isinstance(recipe, ImageRecipe) else "sounds"
            raise UsageError(
                f"--preprocess is for {kind}, and no sample is one",
                seen=files.taken[0][0],
                next="leave it out, or give other --samples",
            )
    cases: list[tuple[str, Arrays]] = []
    for name, file in files.taken:
        if file.suffix.lower() in ARRAYS:
            cases.append((name, _fit(name, _read_arrays(file, name, specs), specs)))
        else:
            cases += media.add(name, file, len(cases))
    return cases + media.rest(len(cases))


def first_alone(wants: InputSpecs) -> InputSpecs:
    """Return *wants* with the first sample alone, for uses to which one is enough.

    Decoding a photograph takes a fifth of a second.
    """
    return msgspec.structs.replace(wants, sample_limit=1)


def real_inputs(wants: InputSpecs, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return the inputs whose values come from files in every sample.

    They are all, unless images or sounds fill one and the rest is synthesized.
    """
    if not wants.preprocess:
        return specs
    filled = {input_of(recipe, specs).name for recipe in wants.preprocess}
    return tuple(s for s in specs if s.name in filled)


def sample_checks(
    wants: InputSpecs, specs: tuple[TensorSpec, ...], samples: list[tuple[str, Arrays]]
) -> list[Check]:
    """Make the ``samples`` check, for people to read.

    It says which files were taken, and the values that each input has in them.
    """
    if not wants.samples:
        return []
    files = sample_files(wants.samples, wants.sample_limit)
    real = [arrays for origin, arrays in samples if origin.startswith(ORIGIN)]
    numbers: dict[str, Figure] = {"files": files.found, "taken": len(files.taken), "cases": len(real)}
    if files.ignored:
        numbers["other_files"] = files.ignored
    for spec in real_inputs(wants, specs):
        values = [a[spec.name] for a in real if a[spec.name].size]
        if values and np.dtype(spec.dtype).kind != "b":
            numbers[f"range:{spec.name}"] = (
                f"{min(float(v.min()) for v in values):.6g} to {max(float(v.max()) for v in values):.6g}"
            )
    some = len(files.taken) < files.found
    reason = (
        f"{len(files.taken)} of {files.found} files were taken, evenly spaced in the order of their names;"
        " --sample-limit takes more"
    )
    return [catalog.SAMPLES.passed(numbers=numbers, reason=reason if some else "")]


def _read_arrays(file: Path, name: str, specs: tuple[TensorSpec, ...]) -> Arrays:
    try:
        if file.suffix.lower() == ".npz":
            arrays = load_arrays(file)
            return {
                entry.removeprefix("inputs/"): array
                for entry, array in arrays.items()
                if not entry.startswith("outputs/")
            }
        with file.open("rb") as stream:
            if stream.read(4) == b"PK\x03\x04":
                raise ValueError("it holds several arrays; name it .npz")
            stream.seek(0)
            array = read_array(stream, file.stat().st_size)
    except (MnnprepError, *DEFECTS):
        raise
    except Exception as error:  # NumPy reads a header as Python, with whatever that raises
        raise RefusedError(
            "a sample could not be read as arrays",
            seen=f"{name}: {error}",
            next="write it again with numpy.savez",
        ) from error
    if len(specs) != 1:
        raise UsageError(
            "an .npy sample fits only a net with one input",
            seen=f"{name}, and {len(specs)} inputs",
            next="save an .npz with the arrays " + ", ".join(s.name for s in specs),
        )
    return {specs[0].name: array}


def _fit(name: str, arrays: Arrays, specs: tuple[TensorSpec, ...]) -> Arrays:
    names = [s.name for s in specs]
    if set(arrays) != set(names):
        raise UsageError(
            "a sample's arrays are not the model's inputs",
            seen=f"{name}: {', '.join(arrays)}",
            next="name them " + ", ".join(names),
        )
    fitted: Arrays = {}
    for spec in specs:
        array = arrays[spec.name]
        if array.ndim != len(spec.shape) or any(
            isinstance(e, int) and e != n for e, n in zip(spec.shape, array.shape, strict=False)
        ):
            raise UsageError(
                f"a sample's {spec.name} has another shape than the model takes",
                seen=f"{name}: {list(array.shape)}",
                next=f"give {spec}",
            )
        if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
            raise UsageError(
                f"a sample's {spec.name} has another dtype than the model takes",
                seen=f"{name}: {array.dtype}",
                next=f"give {spec}",
            )
        with np.errstate(over="ignore"):
            fitted[spec.name] = array.astype(spec.dtype)
        if (
            array.dtype.kind in "iu"
            and np.dtype(spec.dtype).kind in "iu"
            and not np.array_equal(fitted[spec.name], array)
        ):
            raise UsageError(
                f"a sample's {spec.name} holds values that its dtype can't hold",
                seen=f"{name}: {array.min()} to {array.max()}",
                next=f"give {spec}",
            )
    return fitted
