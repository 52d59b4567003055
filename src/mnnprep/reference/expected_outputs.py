"""Outputs that samples bring along.

They are a reference from elsewhere, which the source must compute before anything else is asked of it.
"""

from __future__ import annotations

from pathlib import Path

from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.model.files import Arrays, load_arrays
from mnnprep.model.messages import ORIGIN


def given_outputs(path: str, names: list[str]) -> dict[str, Arrays]:
    """Return the outputs that the samples *names* at *path* bring along, by the sample's name.

    They are ``outputs/NAME`` in an ``.npz``.
    """
    root = Path(path)
    found = {}
    for name in names:
        file = root / name if root.is_dir() else root
        if file.suffix.lower() == ".npz" and file.is_file():
            arrays = {
                n.removeprefix("outputs/"): a
                for n, a in load_arrays(file).items()
                if n.startswith("outputs/")
            }
            if arrays:
                found[name] = arrays
    return found


def compare_given(path: str, computed: list[tuple[str, Arrays]]) -> list[Check]:
    """Make the ``given_outputs`` check if the samples at *path* have outputs.

    *computed* are the source's, by origin (``samples NAME``).

    Raises:
        RefusedError: they differ: the source is then not the model that they were computed with, and nothing
            is worth preparing.
    """
    samples = [origin.removeprefix(ORIGIN) for origin, _ in computed if origin.startswith(ORIGIN)]
    given = given_outputs(path, samples) if path else {}
    for index, (origin, ours) in enumerate(computed):
        name = origin.removeprefix(ORIGIN)
        outputs = given.get(name, {})
        references = {n: a for n, a in outputs.items() if n in ours}
        errors = compare_outputs(index, references, {n: ours[n] for n in references}, Tolerance())
        problems = [f"{e.output} {e.problem}" for e in errors if e.problem] + [
            f"the source has no output {n}" for n in outputs if n not in ours
        ]
        if problems:
            raise RefusedError(
                "the source does not compute the outputs that a sample holds",
                seen=f"{name}: {problems[0]}",
                next="give the weights that the sample was computed with, or leave the sample's outputs out",
            )
    return [catalog.GIVEN_OUTPUTS.passed(numbers={"samples": len(given)})] if given else []
