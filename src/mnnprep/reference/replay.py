"""Running one source on the inputs of another's cases, for `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mnnprep.errors import RefusedError
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import Replayed, ReplayJob, RunResult
from mnnprep.model.net import Case, Net
from mnnprep.model.running import case_inputs, case_outputs, run_case
from mnnprep.model.signature import TensorSpec
from mnnprep.reference.noise import measure_noise


def replay(net: Net, job: ReplayJob) -> Replayed:
    """Run *net* on every case, its inputs matched to the cases'.

    Raises:
        RefusedError: the inputs of the two can't be matched.
    """
    names = match_specs(job.signature.inputs, net.inputs, "input")
    ran = RunResult()
    if job.noise:
        for case in job.cases:
            own = Case(case.origin, case.dims, case_inputs(case.file.path), case_outputs(case.file.path))
            floors = measure_noise(net, own, job.wants.seed)
            path = Path(job.directory) / f"{case.index}.npz"
            save_arrays(path, {name: np.asarray(noise) for name, noise in floors.items()})
            ran.outputs[str(case.index)] = file_ref(path)
        return Replayed(ran=ran, inputs=names)
    for case in job.cases:
        run_case(
            case,
            lambda arrays: net.run({theirs: arrays[ours] for ours, theirs in names.items()}),
            job.directory,
            ran,
        )
    return Replayed(ran=ran, inputs=names)


def match_specs(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec], kind: str) -> dict[str, str]:
    """Match *theirs* to *ours*.

    By name, else by the only one of that dtype and shape, else by place among those alike.

    Raises:
        RefusedError: the counts differ, or what is left does not fit.
    """
    if len(ours) != len(theirs):
        raise RefusedError(
            f"the two models have different {kind}s",
            seen=f"{', '.join(map(str, ours))} and {', '.join(map(str, theirs))}",
            next="compare models of the same signature",
        )
    names = {s.name for s in theirs}
    found = {s.name: s.name for s in ours if s.name in names}
    left = [s for s in theirs if s.name not in found]
    for spec in (s for s in ours if s.name not in found):
        fitting = [t for t in left if alike(spec, t)]
        if not fitting:
            raise RefusedError(
                f"no {kind} of the second model fits {spec.name} of the first",
                seen=f"{spec} among {', '.join(map(str, left))}",
                next="compare models of the same signature and layout",
            )
        found[spec.name] = fitting[0].name
        left.remove(fitting[0])
    return {s.name: found[s.name] for s in ours}


def alike(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether two tensors have one dtype and rank, and no fixed size that differs."""
    fixed = zip(a.shape, b.shape, strict=False)
    return (
        a.dtype == b.dtype
        and len(a.shape) == len(b.shape)
        and all(x == y for x, y in fixed if isinstance(x, int) and isinstance(y, int))
    )
