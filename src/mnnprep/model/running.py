"""Running an artifact on stored cases: the part that is the same for every runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, RunJob, RunResult
from mnnprep.model.net import Refused
from mnnprep.safety.faults import refuse_fault


class Forbidden:
    """A finder that refuses the user's modules, so that an artifact is seen to do without them."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = frozenset(modules)

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse the user's modules; leave every other to the next finder.

        Raises:
            ImportError: the module is one of the user's.
        """
        if name.partition(".")[0] in self.modules:
            raise ImportError(f"the artifact tried to import {name}, which belongs to the source")
        return None


def case_inputs(path: str) -> Arrays:
    """The inputs of a case's npz, by name."""
    return {name.removeprefix("inputs/"): array for name, array in load_arrays(path, "inputs/").items()}


def case_outputs(path: str) -> Arrays:
    """The reference outputs of a case's npz, by name."""
    return {name.removeprefix("outputs/"): array for name, array in load_arrays(path, "outputs/").items()}


def run_cases(job: RunJob, load: Callable[[], Callable[[Arrays], Arrays]]) -> RunResult:
    """Run every case; a case the runtime refuses is an entry in ``errors``, not an exception."""
    for module in job.forbid:
        for name in [n for n in sys.modules if n.partition(".")[0] == module]:
            del sys.modules[name]
    sys.meta_path.insert(0, Forbidden(job.forbid))
    ran = RunResult()
    run = load()
    for case in job.cases:
        if job.fresh and ran.outputs:
            run = load()
        run_case(case, run, job.directory, ran)
    return ran


def run_case(case: CaseFile, run: Callable[[Arrays], Arrays], directory: str, ran: RunResult) -> None:
    """Run one case into *ran*: its outputs as a file in *directory*, or why the net refused it."""
    try:
        outputs = run(case_inputs(case.file.path))
    except Refused as error:
        refuse_fault(error, directory)
        ran.errors[str(case.index)] = str(error)
        return
    path = Path(directory) / f"{case.index}.npz"
    save_arrays(path, outputs)
    ran.outputs[str(case.index)] = file_ref(path)
