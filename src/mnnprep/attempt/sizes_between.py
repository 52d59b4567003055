"""Sizes between those that were compared, for MNN chooses the algorithm of a convolution by the size.

The artifact, which is compared with the source at the other sizes, is the reference there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from mnnprep.attempt.results import Artifact
from mnnprep.model.files import file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, RunJob, Survey
from mnnprep.model.running import case_inputs
from mnnprep.model.signature import TensorSpec, names_in
from mnnprep.reference.inputs import fitted
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

MOST = 12  # combinations of sizes
STEPS = (8, 4, 2, 1)  # sizes are multiples of the largest that gives a choice
CHOICE = 3
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def cases_between(workers: Workers, survey: Survey, artifact: Artifact) -> list[CaseFile]:
    """Cases at further sizes, with the outputs of *artifact*; none if it is known to have no convolution.

    None of them is larger than the largest case of *survey*; what the artifact does not run is left out.
    """
    if artifact.format.by_rules and not artifact.operators & CONVOLUTIONS:
        return []
    directory = workers.directory("between")
    given = [_case(survey, directory, number, sizes) for number, sizes in enumerate(sizes_between(survey))]
    if not given:
        return []
    outputs = workers.directory("between")
    job = RunJob(model=artifact.model, cases=given, signature=survey.signature, directory=str(outputs))
    try:
        ran = workers.run(artifact.format.run, job)
    except StepFailed:
        return []
    return [
        _with_outputs(case, ran.outputs[key].path)
        for case in given
        if (key := str(case.index)) in ran.outputs
    ]


def sizes_between(survey: Survey) -> list[dict[str, int]]:
    """At most MOST combinations of sizes of the dimensions that are open, batches left as they are.

    They are spread over the range that was declared, or that was compared.
    """
    cases = survey.cases
    inner = {n for spec in survey.signature.inputs for e in spec.shape[1:] for n in names_in(e)}
    choices = {name: _choices(survey, name) for name in cases[0].dims if name in inner}
    if not any(len(sizes) > 1 for sizes in choices.values()):
        return []
    largest = max(_elements(survey.signature.inputs, case.dims) for case in cases)
    known = [case.dims for case in cases]
    found: list[dict[str, int]] = []
    for picked in _spread(list(choices.values())):
        sizes = {**cases[0].dims, **dict(zip(choices, picked, strict=True))}
        if sizes not in (*known, *found) and _elements(survey.signature.inputs, sizes) <= largest:
            found.append(sizes)
    return [found[i * len(found) // MOST] for i in range(MOST)] if len(found) > MOST else found


def _choices(survey: Survey, name: str) -> list[int]:
    """Sizes of one dimension: multiples of the largest step that leaves a choice."""
    dim = survey.signature.dim(name)
    compared = [case.dims[name] for case in survey.cases if name in case.dims]
    least = dim.min if dim.min is not None else min(compared)
    most = dim.max if dim.max is not None else max(compared)
    for step in STEPS:
        sizes = list(range(math.ceil(least / step) * step, most + 1, step))
        if len(sizes) >= CHOICE:
            break
    return sizes[:: math.ceil(len(sizes) / MOST)] or [compared[0]]


def _spread(choices: list[list[int]]) -> Iterator[tuple[int, ...]]:
    """Combinations of *choices*, each size with different others; of two dimensions all there are."""
    first, *others = choices
    for shift in range(max(map(len, choices))):
        for number, size in enumerate(first):
            rest = [sizes[(number + shift * (axis + 1)) % len(sizes)] for axis, sizes in enumerate(others)]
            yield (size, *rest)
        if not others:
            return


def _elements(inputs: tuple[TensorSpec, ...], dims: dict[str, int]) -> int:
    return sum(math.prod(spec.sizes(dims)) for spec in inputs)


def _case(survey: Survey, directory: Path, number: int, sizes: dict[str, int]) -> CaseFile:
    """The inputs of a case of *survey*, repeated or cut to *sizes*."""
    source = survey.cases[number % len(survey.cases)]
    made = fitted(case_inputs(source.file.path), survey.signature.inputs, sizes, shift=number)
    path = directory / f"{number}.npz"
    save_arrays(path, {f"inputs/{name}": array for name, array in made.items()})
    return CaseFile(index=number, origin=f"{source.origin} at other sizes", dims=sizes, file=file_ref(path))


def _with_outputs(case: CaseFile, outputs: str) -> CaseFile:
    """*case* with the *outputs* as its references."""
    inputs = load_arrays(case.file.path)
    references = {f"outputs/{name}": array for name, array in load_arrays(outputs).items()}
    path = Path(case.file.path)
    save_arrays(path, inputs | references)
    return CaseFile(index=case.index, origin=case.origin, dims=case.dims, file=file_ref(path))
