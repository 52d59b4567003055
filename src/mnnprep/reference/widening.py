"""The search for inputs on which the values inside a net go further than they went before.

A fault that shows for some values alone sits in one node: beyond a bound, past a threshold, at a size that no
case reached.  What takes the values inside to their extremes finds it wherever it sits.  So the search keeps,
of every watched value, the inputs that made it largest, least and closest to zero, and changes these inputs
to get further; as a fuzzer keeps what reaches new code.

How many runs it has follows from the work of one run, counted in the graph: a model always has as many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.model.files import Arrays, file_ref, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.running import case_inputs
from mnnprep.model.searching import ORIGIN_SEARCHED, Searched, SearchJob
from mnnprep.reference.evolution import Evolution
from mnnprep.reference.proposals import Field, bounds_of, proposals

Run = Callable[[Arrays], Mapping[str, npt.NDArray[Any]]]  # the watched values by name; it raises Refused

WORK = 1 << 30  # multiplications, or elements times ELEMENT, of the runs of one search
ELEMENT = 64  # multiplications that take as long as reading one value
MOST_RUNS, MOST_CASES, LEAST_CASES = 512, 64, 4
MOST_VALUES = 192  # that are watched
PROPOSED = 2 / 3  # of the cases at most; of the others one half is evolved, and one half lies between


def budget(work: int) -> tuple[int, int]:
    """How many runs the search of a model has whose run takes this *work*, and how many cases it gives."""
    runs = min(MOST_RUNS, WORK // max(work, 1))
    return runs, max(LEAST_CASES, min(MOST_CASES, WORK // (4 * max(work, 1))))


def search(job: SearchJob, work: int, near: Sequence[float], watch: Callable[[], Run | None]) -> Searched:
    """Search from proposals on by evolution, and write the inputs that are worth a comparison.

    One run takes *work* multiplications; *near* are constants that values may be compared with; *watch* opens
    the model with its values in sight, or gives None if that can't be. It is called if there is room for more
    than the proposals.
    """
    sizes = job.cases[0].dims
    runs, count = budget(work)
    found = list(proposals(job.signature.inputs, sizes, job.seed, near))
    run = watch() if runs > count else None
    if run is None:
        return _written(job, found[:count])
    fields = [Field(spec, spec.sizes(sizes), *bounds_of(spec), tuple(near)) for spec in job.signature.inputs]
    evolution = Evolution(run, fields, np.random.Generator(np.random.PCG64([job.seed, 3])))
    evolution.start([case_inputs(case.file.path) for case in job.cases])
    kept = [idea for idea in found[: runs // 2] if evolution.add(*idea)][: round(count * PROPOSED)]
    while evolution.tried < runs:
        evolution.climb()
    kept += evolution.best((count - len(kept)) // 2, [arrays for _, arrays in kept])
    kept += evolution.between(count - len(kept), [arrays for _, arrays in kept])
    return _written(job, kept, evolution)


def _written(
    job: SearchJob, found: Sequence[tuple[str, Arrays]], evolution: Evolution | None = None
) -> Searched:
    origin = f"{ORIGIN_SEARCHED}{job.seed}: "
    directory, sizes = Path(job.directory), job.cases[0].dims
    cases = [
        written_case(directory, number, origin + name, sizes, arrays)
        for number, (name, arrays) in enumerate(found)
    ]
    if evolution is None:
        return Searched(cases=cases)
    return Searched(cases=cases, values=evolution.values, widened=evolution.widened, tried=evolution.tried)


def written_case(
    directory: Path, number: int, origin: str, dims: Mapping[str, int], inputs: Arrays
) -> CaseFile:
    """A case of *inputs* alone, written to *directory*."""
    path = directory / f"{number}.npz"
    save_arrays(path, {f"inputs/{name}": array for name, array in inputs.items()})
    return CaseFile(index=number, origin=origin, dims=dict(dims), file=file_ref(path))
