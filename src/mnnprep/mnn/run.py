"""The step that runs a converted model on cases, through MNN's Module API.

It runs on one CPU thread in high precision, unless the job says otherwise.

Measured with MNN 3.6.1:

- ``Var.read()`` is a view of memory that the Var owns: it is copied while the Var is held.
- A forward that fails returns an empty list and prints why; the module can be used again afterwards.
- ``Var.write()`` takes float32, int32 and uint8, and reinterprets nothing: a dtype that is not the
  placeholder's raises.  An int8 Var comes from casting an int32 one.
- A module keeps the dtype that each input had at its first forward; later ones are read as that, bit
  by bit, so one load must always be fed the same dtypes.
- A scalar goes in and comes out with shape ``()``; a Var of size 0 can't be read, its shape can.
- Outputs come as the dense layout, except where the net's last operator leaves NC4HW4.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mnnprep import deps
from mnnprep.comparison.tolerance import Array, Tolerance, compare_outputs
from mnnprep.mnn.capture import captured, last_lines, without_place_and_time
from mnnprep.mnn.session import Session, SessionFailed
from mnnprep.mnn.settings import FLOAT32, Settings, version_of
from mnnprep.mnn.worker import RUNTIME
from mnnprep.model.files import Arrays, FileRef, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.safety.error_text import said
from mnnprep.safety.faults import refuse_fault
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from types import ModuleType

    from MNN.expr import Var
    from MNN.nn import _Module as LoadedModule

# What MNN computes with in place of a dtype: at the inputs, where we convert ...
NARROWED_INPUTS = {
    "int64": "int32",
    "uint64": "int32",
    "uint32": "int32",
    "int16": "int32",
    "uint16": "int32",
    "bool": "int32",
    "float64": "float32",
    "float16": "float32",
}
# ... and at the outputs, where it gives them.
NARROWED_OUTPUTS = NARROWED_INPUTS
MISSING_WEIGHTS_LINE = "Can't open file"  # a model over 2 GB without its .weight file: runs, on other numbers
LAYOUTS = ("NCHW", "NHWC", "NC4HW4")


class MnnRunJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run ``model`` on ``cases``; write the outputs of case i to ``directory/i.npz``.

    ``input_names`` and ``output_names`` map the cases' names to MNN's, in order; ``layouts`` maps the
    cases' inputs to the layout MNN must be fed in (missing: NCHW).  An input for NC4HW4 stands in the
    case as NCHW.  ``fresh`` loads the model anew for every case; else one load serves all, so that
    changes of shape are exercised.  ``session``: in one Session, resized for each case, in place of
    the Module API.  ``hints`` are settings of the runtime, by their names in HINTS; ``settings`` the others.

    With ``within``, a tolerance around the cases' references, they are MNN's defaults as long as these keep
    it: if numbers alone leave it, and not by far, the run is given up for one with ACCURATE_HINTS, and
    that counts if it keeps it.
    """

    model: ReadPath
    cases: list[CaseFile]
    input_names: dict[str, str]
    output_names: dict[str, str]
    layouts: dict[str, str]
    directory: WritePath
    fresh: bool = False
    hints: dict[str, int] = msgspec.field(default_factory=dict)
    session: bool = False
    within: Tolerance | None = None
    settings: Settings = Settings()


class MnnRunResult(RunResult, frozen=True, kw_only=True):
    """A run in MNN, with the ``hints`` it was given, and the ``arithmetic`` that it was in.

    If these are not the job's, ``default_excess`` is by how many times its tolerance the defaults failed, in
    the case that showed it.  ``again`` is a second run of the same cases, each in a module of its own, by who
    makes both at once.
    """

    hints: dict[str, int] = msgspec.field(default_factory=dict)
    default_excess: float | None = None
    arithmetic: str = FLOAT32
    engine: str = ""
    again: RunResult | None = None


# Settings of MNN's runtime manager, by the names of MNN's Interpreter::HintMode
# (include/MNN/Interpreter.hpp).
HINTS = {"WINOGRAD_MEMORY_LEVEL": 3}
# The default level lets Winograd convolutions use tiles so large that float32 loses three digits
# (0.3 % of the largest output on a ResNet-50); level 1 keeps the small ones.
ACCURATE_HINTS = {"WINOGRAD_MEMORY_LEVEL": 1}
ROUGH = 1000.0  # times the tolerance: beyond, no rounding explains it


class Imprecise(Exception):
    """A case whose numbers, and nothing else, leave the tolerance: what a rougher algorithm would do."""

    def __init__(self, excess: float, case: int, results: Arrays) -> None:
        super().__init__(f"{excess:.3g} times the tolerance")
        self.excess = excess
        self.case = case
        self.results = results


class CaseFailed(Exception):
    """Why one case could not be run; one line."""


def run(job: MnnRunJob) -> MnnRunResult:
    """Run every case; one that fails has its reason, with MNN's last lines, in ``errors``.

    For a worker: MNN may crash.
    """
    doing("loading MNN")
    default = _tried(job, job.hints)
    if isinstance(default, MnnRunResult):
        return default
    accurate = _tried(job, ACCURATE_HINTS, default)
    if isinstance(accurate, MnnRunResult):
        return (
            msgspec.structs.replace(accurate, default_excess=default.excess) if accurate.hints else accurate
        )
    return _run_with(job, job.hints, None)


def _tried(
    job: MnnRunJob, hints: dict[str, int], default: Imprecise | None = None
) -> MnnRunResult | Imprecise:
    """Return the run with *hints*, or why it was given up.

    Nothing else of it is kept, so that the next run has its memory.
    """
    try:
        return _run_with(job, hints, job.within, default)
    except Imprecise as imprecise:
        return imprecise.with_traceback(None)


def _run_with(
    job: MnnRunJob, hints: dict[str, int], within: Tolerance | None, default: Imprecise | None = None
) -> MnnRunResult:
    """Run the cases, each against the tolerance *within* if there is one to keep.

    *default* is how the defaults failed: if the same comes out with *hints*, and no case has other shapes,
    these change nothing, and this is the run with the defaults, to its end.

    Raises:
        Imprecise: a case leaves the tolerance; it is the first that does.
    """
    runner = SessionRunner(job) if job.session else Runner(job, hints)
    outputs: dict[str, FileRef] = {}
    errors, narrowed, narrowed_inputs = dict[str, str](), dict[str, str](), dict[str, str]()
    one_shape = len({tuple(case.dims.values()) for case in job.cases}) == 1
    for case in job.cases:
        doing(f"running case {case.index} in MNN")
        arrays = load_arrays(case.file.path)
        failure, results = "", dict[str, Array]()
        with captured() as printed:
            try:
                fed = {name: narrow_input(name, arrays) for name in job.input_names}
                results = runner.run(fed)
            except (CaseFailed, SessionFailed) as error:
                failure = str(error)
            except (SystemError, RuntimeError, ValueError, TypeError) as error:  # what MNN's extension raises
                failure = f"MNN failed: {said(error)}"
        if not failure and MISSING_WEIGHTS_LINE in printed.text:
            failure = "MNN ran without the file of weights that belongs beside the model"
        if failure:
            errors[str(case.index)] = _told(failure, printed.text, job.directory)
            continue
        narrowed_inputs |= {
            name: str(array.dtype)
            for name, array in fed.items()
            if array.dtype != arrays[f"inputs/{name}"].dtype
        }
        narrower = _narrowed_outputs(results, arrays)
        if (
            default is not None
            and default.case == case.index
            and one_shape
            and _alike(default.results, results)
        ):
            hints, within = job.hints, None
        if within is not None:
            _require_precision(case, arrays, results, within, narrower)
        narrowed |= narrower
        path = Path(job.directory) / f"{case.index}.npz"
        save_arrays(path, results)
        outputs[str(case.index)] = file_ref(path)
    return MnnRunResult(
        outputs=outputs,
        errors=errors,
        narrowed=narrowed,
        narrowed_inputs=narrowed_inputs,
        hints=hints,
        arithmetic=job.settings.arithmetic(),
        engine=runner.version,
    )


def _told(failure: str, printed: str, directory: str) -> str:
    """Why a case failed, with the last lines that MNN *printed*; a fault of the system is raised as one."""
    refuse_fault(RuntimeError(f"{failure}\n{printed}"), directory)
    return "\n".join(filter(None, (failure, last_lines(without_place_and_time(printed)))))


def _alike(one: Arrays, other: Arrays) -> bool:
    """Whether both hold the same, bit by bit."""
    return one.keys() == other.keys() and all(one[n].tobytes() == other[n].tobytes() for n in one)


def _require_precision(
    case: CaseFile, arrays: Arrays, results: Arrays, within: Tolerance, narrowed: dict[str, str]
) -> None:
    """Raise Imprecise if the numbers alone are off, by less than ROUGH.

    Other faults are for the comparison.
    """
    references = {
        name.removeprefix("outputs/"): array for name, array in arrays.items() if name.startswith("outputs/")
    }
    wrong = [e for e in compare_outputs(case.index, references, results, within, narrowed) if e.problem]
    excesses = [e.excess for e in wrong if e.excess is not None and e.excess < ROUGH]
    if wrong and len(excesses) == len(wrong):
        raise Imprecise(max(excesses), case.index, results)


def narrow_input(name: str, case: Arrays) -> Array:
    """The case's input in the dtype that MNN computes with; CaseFailed where a value doesn't fit."""
    if f"inputs/{name}" not in case:
        raise CaseFailed(f"the case has no input {name!r}")
    array = case[f"inputs/{name}"]
    target = np.dtype(NARROWED_INPUTS.get(str(array.dtype), array.dtype))
    narrow = array.astype(target)
    if target.kind in "iu" and not np.array_equal(narrow, array):
        limits = np.iinfo(target)
        raise CaseFailed(
            f"input {name!r} holds {array.min()} to {array.max()}; MNN computes in {target}, {limits.min} to"
            f" {limits.max}"
        )
    if target.kind == "f" and not np.array_equal(np.isfinite(narrow), np.isfinite(array)):
        raise CaseFailed(f"input {name!r} holds values beyond the range of {target}, which MNN computes in")
    return narrow


def _narrowed_outputs(results: Arrays, case: Arrays) -> dict[str, str]:
    """Return the outputs whose dtype is the documented narrowing of the reference's.

    Any other difference is for the comparison.
    """
    references = {name: case[f"outputs/{name}"].dtype for name in results if f"outputs/{name}" in case}
    return {
        name: str(results[name].dtype)
        for name, dtype in references.items()
        if NARROWED_OUTPUTS.get(str(dtype)) == str(results[name].dtype)
    }


class SessionRunner:
    """A model in one Session, opened when first needed."""

    def __init__(self, job: MnnRunJob) -> None:
        self.version = version_of(deps.require("MNN"))
        self._job = job
        self._session: Session | None = None

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs in a Session, which the first call makes."""
        if self._session is None:
            self._session = Session(
                self._job.model,
                self._job.layouts,
                [(HINTS[n], v) for n, v in self._job.hints.items()],
                self._job.settings,
            )
        return self._session.run(inputs, self._job.input_names, self._job.output_names)


class Runner:
    """A model, loaded when first needed."""

    def __init__(self, job: MnnRunJob, hints: dict[str, int] | None = None) -> None:
        self.version = version_of(deps.require("MNN"))
        self._nn: ModuleType = deps.require("MNN.nn")
        self._expr: ModuleType = deps.require("MNN.expr")
        self._job = job
        self._hints = job.hints if hints is None else hints
        self._module: LoadedModule | None = None
        # The layout that a packed output is unpacked to: that of the source's format.
        self._dense = self._expr.NHWC if "NHWC" in job.layouts.values() else self._expr.NCHW

    def run(self, inputs: Arrays) -> Arrays:
        """One forward; the outputs under the cases' names, in the job's order."""
        if self._module is None or self._job.fresh:
            self._module = self._load()
        variables = self._module.forward(
            [self._variable(array, self._job.layouts.get(name, "NCHW")) for name, array in inputs.items()]
        )
        names = self._job.output_names
        if len(variables) != len(names):
            raise CaseFailed(
                f"MNN returned {len(variables) or 'no'} output{'s' * (len(variables) != 1)}, but"
                f" {len(names)} were asked for"
            )
        return {name: self._array(variable) for name, variable in zip(names, variables, strict=True)}

    def _load(self) -> LoadedModule:
        self._manager = self._nn.create_runtime_manager((self._job.settings.config(),))
        for name, value in self._hints.items():
            self._manager.set_hint(HINTS[name], value)
        try:
            return self._nn.load_module_from_file(
                self._job.model,
                list(self._job.input_names.values()),
                list(self._job.output_names.values()),
                runtime_manager=self._manager,
            )
        except SystemError as error:
            raise CaseFailed("MNN could not load the model with these inputs and outputs") from error

    def _variable(self, array: Array, layout: str) -> Var:
        expr = self._expr
        dense = expr.NHWC if layout == "NHWC" else expr.NCHW
        types = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8}
        written = array.astype(np.int32) if array.dtype == np.int8 else array
        if str(written.dtype) not in types:
            raise CaseFailed(f"MNN does not take {written.dtype}")
        variable = expr.placeholder(list(array.shape), dense, types[str(written.dtype)])
        if written.size:
            variable.write(np.asarray(written, order="C"))
        if array.dtype == np.int8:
            variable = expr.cast(variable, expr.int8)
        return expr.convert(variable, expr.NC4HW4) if layout == "NC4HW4" else variable

    def _array(self, variable: Var) -> Array:
        """A copy of the numbers of *variable*, in the dense layout, with MNN's shape and dtype."""
        expr = self._expr
        if variable.data_format == expr.NC4HW4:
            variable = expr.convert(variable, self._dense)
        shape = tuple(variable.shape)
        if 0 in shape:
            types = {expr.float: np.float32, expr.int: np.int32, expr.uint8: np.uint8, expr.int8: np.int8}
            return np.zeros(shape, types.get(variable.dtype, np.float32))
        return np.array(variable.read())  # a copy, made while the Var lives


RUN = Step.of(run, RUNTIME)
