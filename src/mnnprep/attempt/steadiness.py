"""Whether a source is steady at some inputs, or answers otherwise where they move in their last digits.

At a tie, a threshold, a half, a row without variance, the last digit of a number decides, and every kernel
has other last digits.  There an error says nothing, however large it is: the source's own answer to inputs
that differ in their last digits is as far off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.attempt.results import Artifact
from mnnprep.evidence.check import OutputError
from mnnprep.formats.onnx.decisions import DECISIONS
from mnnprep.model.files import Arrays, file_ref, save_arrays
from mnnprep.model.messages import CaseFile, Survey
from mnnprep.model.running import case_inputs, case_outputs
from mnnprep.model.searching import DecisionsJob
from mnnprep.model.signature import TensorSpec
from mnnprep.workers.pool import Workers

DIGITS = (1e-7, 1e-6, 1e-5)  # by how much inputs are changed, of each number; the last of sums in float32
SEEDS = 3
SHARE = 0.5  # of an error: a source that moves by as much is not steady

Array = npt.NDArray[Any]
Replay = Callable[[list[CaseFile]], list[tuple[CaseFile, Arrays]]]


class Steady(Enum):
    """What becomes of a source's answer where its inputs move in their digits.

    DECIDED: it is another one, but all that makes it so are decisions on the inputs' own numbers, which no
    kernel rounds: what is decided for exactly these numbers is certain.
    """

    YES = "yes"
    DECIDED = "decided"
    NO = "no"


class Steadiness:
    """Judges cases of *survey* by the source, which *replay* runs, and by the decisions of *artifact*."""

    def __init__(self, workers: Workers, survey: Survey, artifact: Artifact, replay: Replay) -> None:
        self._workers = workers
        self._survey = survey
        self._artifact = artifact
        self._replay = replay

    def of(self, case: CaseFile, errors: Sequence[OutputError]) -> Steady:
        """Whether the source moves much less than *errors* where the inputs of *case* move in their digits.

        A case that did not run has no errors: it is no matter of digits.

        Raises:
            StepFailed: a step for it failed.
        """
        numbers = [e for e in errors if e.max_abs is not None]
        if len(numbers) < len(errors) or not errors:
            return Steady.YES
        moved = self._moved(case)
        if not moved or not any(far(e, case, outputs) for _, outputs in self._replay(moved) for e in numbers):
            return Steady.YES
        if not self._artifact.format.by_rules:
            return Steady.NO
        job = DecisionsJob(
            model=self._artifact.model,
            case=case,
            moved=moved,
            directory=str(self._workers.directory("decisions")),
        )
        found = self._workers.run(DECISIONS, job)
        return Steady.DECIDED if found.exact and not found.rounded else Steady.NO

    def _moved(self, case: CaseFile) -> list[CaseFile]:
        """The inputs of *case* changed in their digits; none if no input is floating."""
        inputs = case_inputs(case.file.path)
        specs = [s for s in self._survey.signature.inputs if np.dtype(s.dtype).kind == "f"]
        if not specs:
            return []
        directory = self._workers.directory("moved")
        made = []
        for number in range(len(DIGITS) * SEEDS):
            random = np.random.Generator(np.random.PCG64([number, 11]))
            arrays = inputs | {
                s.name: moved(s, inputs[s.name], DIGITS[number % len(DIGITS)], random) for s in specs
            }
            path = directory / f"{number}.npz"
            save_arrays(path, {f"inputs/{name}": array for name, array in arrays.items()})
            made.append(CaseFile(index=number, origin="moved", dims=case.dims, file=file_ref(path)))
        return made


def moved(spec: TensorSpec, array: Array, by: float, random: np.random.Generator) -> Array:
    """Every number of *array* changed by a share *by* of itself, or of 1 or its bound where it is zero."""
    values = array.astype(np.float64)
    whole = max(abs(spec.range[0]), abs(spec.range[1])) if spec.range else 1.0
    signs = np.where(random.random(array.shape) < 0.5, -1.0, 1.0)
    changed = values + signs * by * np.where(values == 0, whole, np.abs(values))
    return np.asarray(np.clip(changed, *spec.range) if spec.range else changed).astype(array.dtype)


def far(error: OutputError, case: CaseFile, outputs: Arrays) -> bool:
    """Whether the source's *outputs* at moved inputs are as far from those of *case* as *error* is."""
    name = error.output
    reference, again = case_outputs(case.file.path).get(name), outputs.get(name)
    if reference is None or again is None or reference.shape != again.shape:
        return True
    if reference.dtype.kind != "f":
        return bool((reference != again).any())
    gap = np.abs(reference.astype(np.float64) - again.astype(np.float64))
    return not float(gap.max(initial=0.0)) < SHARE * (error.max_abs or 0.0)
