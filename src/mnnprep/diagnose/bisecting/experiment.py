"""A bisection's work with models: run the reference, cut pieces, convert them, run them in MNN.

It counts what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from mnnprep.comparison.deviation import Deviation, deviation
from mnnprep.comparison.tolerance import LARGEST, Tolerance
from mnnprep.diagnose.bisecting.on_target import HERE, Place
from mnnprep.errors import SystemFault
from mnnprep.formats.mnn_file.tensors import made_tensors
from mnnprep.formats.onnx.backend import ARTIFACT
from mnnprep.formats.onnx.excerpt import EXCERPT, Excerpt, ExcerptJob
from mnnprep.formats.onnx.outline import OUTLINE, Outline, OutlineJob
from mnnprep.formats.onnx.probe import PROBE, ProbeJob
from mnnprep.mnn.convert import CONVERT, ConvertJob, Fault
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import MnnRunJob
from mnnprep.mnn.settings import FLOAT32
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.precision import Precision
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import J, R, Step

FROZEN_ELEMENTS = 64  # a shape that follows from shapes is kept as it was; more numbers are data


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why something did not convert or run.

    ``kind`` is ``refused`` (it says so), ``crash``, ``time``, ``memory`` or ``error``.
    """

    kind: str
    reason: str
    refused_ops: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model.

    It knows the names of the ONNX inputs and outputs in it, the layouts to feed, the values inside that can
    be asked for.
    """

    onnx: str
    mnn: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    layouts: dict[str, str]
    hints: Mapping[str, int]

    @cached_property
    def tensors(self) -> dict[str, str]:
        """The values inside, by the ONNX names, with what MNN calls them; the outputs by their own names."""
        return made_tensors(Path(self.mnn)) | self.outputs


@dataclass(frozen=True)
class Trial:
    """A piece of a model, on its own.

    It holds its files, its case, and how far each output is off, or why it failed.
    """

    files: list[str]
    nodes: tuple[int, ...]
    case: CaseFile
    outputs: list[str]
    result: dict[str, Deviation] | Failure
    actual: str = ""  # npz of what MNN gave

    def excess(self, value: str) -> float:
        """Return how far *value* is off, in tolerances: LARGEST if the trial failed, 0 if it was right."""
        if isinstance(self.result, Failure):
            return LARGEST
        return self.result[value].excess if value in self.result else 0.0


class OutOfConversions(Exception):
    """The bound on conversions is reached."""


class TrialRunner:
    """Convert and run pieces of a model; ``limit`` bounds the conversions.

    ``conversions``, ``runs`` and ``peak`` (bytes, the largest worker) are what it took so far.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        converter: str,
        precision: Precision,
        static: bool,
        hints: Mapping[str, int],
        tolerance: Tolerance,
        tell: Callable[[str], None],
        place: Place = HERE,
    ) -> None:
        self.workers = workers
        self.place = place
        self.arithmetic = FLOAT32  # of the last run
        self.converter = converter
        self.precision = precision
        self.static = static
        self.hints = hints
        self.tolerance = tolerance
        self.tell = tell
        self.limit = 10
        self.conversions = self.runs = self.peak = 0
        self._references: dict[tuple[str, tuple[str, ...], str], str] = {}

    def do(self, step: Step[J, R], job: J) -> R:
        """Run a step in a worker.

        Raises:
            StepFailed: the step failed.
            SystemFault: the system, and not the model, made it fail.
        """
        try:
            done = self.workers.submit(step, job).result()
        except StepFailed as failure:
            if isinstance(failure.error, SystemFault):
                raise failure.error from failure
            raise
        self.peak = max(self.peak, done.peak)
        return done.value

    def outline(self, model: str, case: CaseFile) -> Outline:
        """How *model* hangs together, with the sizes that its values have at *case*."""
        return self.do(OUTLINE, OutlineJob(model=model, case=case.file.path))

    def reference(self, model: str, values: Iterable[str], case: CaseFile) -> str:
        """The npz of *values* as onnxruntime computes them.

        Raises:
            StepFailed: onnxruntime does not compute them.
        """
        return self.references(model, values, [case])[case.index]

    def references(self, model: str, values: Iterable[str], cases: list[CaseFile]) -> dict[int, str]:
        """:meth:`reference` for several cases at once, by their index.

        Those computed before are not computed again.
        """
        wanted = tuple(values)
        left = [case for case in cases if (model, wanted, case.file.path) not in self._references]
        if left:
            job = ProbeJob(
                model=model, values=list(wanted), cases=left, directory=str(self.workers.directory("probe"))
            )
            found = self.do(PROBE, job).values
            self._references |= {
                (model, wanted, case.file.path): found[str(case.index)].path for case in left
            }
        return {case.index: self._references[model, wanted, case.file.path] for case in cases}

    def excerpt(self, job: ExcerptJob) -> Excerpt:
        """Cut a piece out of the model in a worker."""
        return self.do(EXCERPT, job)

    def convert(
        self, model: str, inputs: list[str], outputs: list[str], seed: str
    ) -> ConvertedModel | Failure:
        """Convert *model*, whose inputs and outputs have these names.

        Raises:
            OutOfConversions: the limit is reached.
        """
        if self.conversions >= self.limit:
            raise OutOfConversions
        self.conversions += 1
        job = ConvertJob(
            model=model,
            frontend=ARTIFACT.frontend,
            uuid_seed=seed,
            directory=str(self.workers.directory("convert")),
            converter=self.converter,
            timeout=self.workers.limits.timeout,
            fp16=self.precision.fp16,
            weight_bits=self.precision.weight_bits,
            static=self.static,
        )
        try:
            done = self.do(CONVERT, job)
        except StepFailed as failure:
            return failure_of(failure, "MNN's converter")
        if not done.ok or done.file is None:
            crashed = done.mishap is not None and done.mishap.fault is Fault.CRASHED
            return Failure(
                kind="crash" if crashed else "refused", reason=done.reason, refused_ops=done.refused_ops
            )
        taken, given = (
            match_names(inputs, [t.name for t in done.inputs], "input"),
            match_names(outputs, done.outputs, "output"),
        )
        if taken.problem or given.problem:
            return Failure(kind="error", reason=taken.problem or given.problem)
        layouts = {
            ours: t.layout for ours, theirs in taken.names.items() for t in done.inputs if t.name == theirs
        }
        return ConvertedModel(model, done.file.path, taken.names, given.names, layouts, self.hints)

    def run(self, piece: ConvertedModel, case: CaseFile, values: Iterable[str]) -> str | Failure:
        """The npz of *values* (outputs of *piece*, or values inside it) as MNN computes them."""
        done = self.run_all(piece, [case], values)
        return done if isinstance(done, Failure) else done[case.index]

    def run_all(
        self, piece: ConvertedModel, cases: list[CaseFile], values: Iterable[str]
    ) -> dict[int, str | Failure] | Failure:
        """:meth:`run` on several cases in one load, one after the other, by their index.

        Returns a Failure if the process itself ended.
        """
        self.runs += len(cases)
        job = MnnRunJob(
            model=piece.mnn,
            cases=cases,
            input_names=piece.inputs,
            output_names={v: piece.tensors.get(v, v) for v in values},
            layouts=piece.layouts,
            directory=str(self.workers.directory("mnn")),
            hints=dict(piece.hints),
            settings=self.place.settings,
            session=self.place.session,
        )
        try:
            ran = self.do(self.place.step, job)
            self.arithmetic = ran.arithmetic
        except StepFailed as failure:
            return failure_of(failure, "MNN's runtime")
        results: dict[int, str | Failure] = {}
        for case in cases:
            key = str(case.index)
            reason = " ".join(ran.errors.get(key, "no outputs").split())
            results[case.index] = (
                ran.outputs[key].path if key in ran.outputs else Failure(kind="error", reason=reason)
            )
        return results

    def compare(
        self, reference: str, actual: str, values: Iterable[str], strict: Iterable[str], case: int
    ) -> dict[str, Deviation]:
        """How far each value is off in a case; the shapes of those in *strict* must be equal.

        Two arrays are in memory at a time.
        """
        exact = set(strict)
        found = {}
        with np.load(reference, allow_pickle=False) as ours, np.load(actual, allow_pickle=False) as theirs:
            for name in values:
                if name not in ours.files:  # not a tensor
                    continue
                expected, got = ours[name], theirs[name]
                off = deviation(expected, got, self.tolerance, name, case)
                if off.reshaped and name in exact:
                    problem = f"shape {list(got.shape)}, but the reference has {list(expected.shape)}"
                    off = msgspec.structs.replace(off, excess=LARGEST, problem=problem)
                found[name] = off
        return found

    def trial(
        self,
        model: str,
        nodes: Iterable[int],
        boundary: list[str],
        outputs: list[str],
        case: CaseFile,
        *,
        shapes: Iterable[str] = (),
        strict: Iterable[str] = (),
        fixed: bool = False,
    ) -> Trial:
        """Cut *nodes* out of *model* and see what MNN gives for them.

        They are fed the reference's values at their *boundary*.

        Those of *shapes* among them that are small become constants. Nothing is seen of nodes that take a
        sequence.
        """
        reference = self.reference(model, [*boundary, *outputs], case)
        arrays = load_arrays(reference)
        derived = set(shapes)
        frozen = [
            n
            for n in boundary
            if n in derived and arrays[n].dtype.kind in "iu" and arrays[n].size <= FROZEN_ELEMENTS
        ]
        numbers = tuple(nodes)
        job = ExcerptJob(
            model=model,
            nodes=list(numbers),
            outputs=outputs,
            values=[reference],
            frozen=frozen,
            directory=str(self.workers.directory("excerpt")),
            shapes="fixed" if fixed else "declared",
        )
        cut = self.excerpt(job)
        if not arrays.keys() >= set(cut.inputs):  # a sequence, which no case holds
            return Trial([f.path for f in cut.files], numbers, case, outputs, {})
        fed = self.case({n: arrays[n] for n in cut.inputs}, case.index)
        del arrays
        files = [f.path for f in cut.files]
        piece = self.convert(files[0], cut.inputs, cut.outputs, cut.files[0].sha256)
        if isinstance(piece, Failure):
            return Trial(files, numbers, fed, outputs, piece)
        actual = self.run(piece, fed, outputs)
        if isinstance(actual, Failure):
            return Trial(files, numbers, fed, outputs, actual)
        return Trial(
            files, numbers, fed, outputs, self.compare(reference, actual, outputs, strict, case.index), actual
        )

    def case(self, inputs: Arrays, index: int = 0) -> CaseFile:
        """A case of these inputs; int64 beyond 32 bits is cut off there, as MNN's converter does."""
        limits = np.iinfo(np.int32)
        path = self.workers.directory("case") / f"{index}.npz"
        save_arrays(
            path,
            {
                f"inputs/{n}": np.clip(a, limits.min, limits.max) if a.dtype == np.int64 else a
                for n, a in inputs.items()
            },
        )
        return CaseFile(index=index, origin="a value inside the model", dims={}, file=file_ref(path))


def failure_of(failure: StepFailed, who: str) -> Failure:
    """Return the failure of a step of *who* (the runtime or converter), classed by how it ended."""
    kind = failure.fate if failure.fate in ("crash", "time", "memory") else "error"
    return Failure(kind=kind, reason=f"{who} {describe(failure)}")
