"""`bisect`: the first node that leaves the reference in MNN, from a bundle alone.

It comes with a piece of the model that shows it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path

import msgspec

from mnnprep.bundle import writer
from mnnprep.bundle.intact import IntactFiles
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.commands.bundle_workers import bundle_workers
from mnnprep.comparison.deviation import deviation
from mnnprep.comparison.outputs import set_aside
from mnnprep.diagnose.bisecting.control_flow import look_inside
from mnnprep.diagnose.bisecting.experiment import ConvertedModel, Failure, TrialRunner
from mnnprep.diagnose.bisecting.finding import FaultLocation, Subject, finite, sentence
from mnnprep.diagnose.bisecting.half_cause import half_cause
from mnnprep.diagnose.bisecting.on_target import Place, place_of
from mnnprep.diagnose.bisecting.record import Bisection
from mnnprep.diagnose.bisecting.repro import write_repro
from mnnprep.diagnose.bisecting.search import SHARE_FOR_VALUES, Search, failing_as, wrong_outputs
from mnnprep.diagnose.bisecting.unconvertible import find_unconvertible
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.onnx.backend import RUNTIME as ONNXRUNTIME
from mnnprep.formats.onnx.outline import Outline
from mnnprep.mnn.settings import FLOAT16
from mnnprep.mnn.worker import CONVERTER
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.precision import Precision
from mnnprep.model.request import Limits
from mnnprep.model.running import case_outputs
from mnnprep.model.target import Target
from mnnprep.text import Progress
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers

KEPT = ("outcome", "failure", "nodes", "where", "value", "reason", "excess", "upstream", "alone")
CASES_EXPLAINED = 5  # failing cases that are looked at beside the one that is bisected


def bisect(
    bundle: Path,
    *,
    case: int | None = None,
    output: Path | None = None,
    mnnconvert: str = "",
    target: Target | None = None,
    limits: Limits | None = None,
    tell: Progress = lambda _: None,
) -> Bisection:
    """Find the first node of *bundle*'s artifact that leaves onnxruntime in MNN.

    It looks at the stored cases, or at one of them.

    With *target* MNN runs there. *output* is the directory to write a piece to that shows it.  *mnnconvert*
    is the converter that the bundle was made with, if that is not the MNN package's.

    Raises:
        UsageError: there is no bundle, no such case, *output* exists, or *mnnconvert* is not a program.
        RefusedError: the artifact is not an ONNX file, is not what the manifest says, or does not run in
        onnxruntime.
    """
    manifest = read_manifest(bundle)
    if output is not None:
        writer.require_free(output)
    if mnnconvert and not (os.path.isfile(mnnconvert) and os.access(mnnconvert, os.X_OK)):
        raise UsageError(
            "--mnnconvert does not name an executable file",
            seen=mnnconvert,
            next="give the path of a MNNConvert program",
        )
    if case is not None and not 0 <= case < len(manifest.cases):
        raise UsageError(
            "the bundle has no such case", seen=str(case), next=f"give --case 0 to {len(manifest.cases) - 1}"
        )
    _require_onnx(manifest)
    place = place_of(target, manifest.engine)
    with contextlib.ExitStack() as stack:
        if output is not None:
            stack.enter_context(writer.claim(output))
        workers = stack.enter_context(bundle_workers(bundle, manifest, limits))
        for worker in (ONNXRUNTIME, CONVERTER, place.step.worker):
            workers.warm(worker)
        return _Bisector(workers, bundle, manifest, case, mnnconvert, place, tell).run(output)


def _require_onnx(manifest: Manifest) -> None:
    form = manifest.artifact.format
    if form == "onnx":
        return
    what = {
        "torchscript": (
            "MNN's Torch frontend gives the values inside a net other names, so that they can't be matched"
        ),
        "mnn": "an MNN file has no other runtime to compare the values inside it with",
    }.get(form, "the values inside it are compared by the names of an ONNX graph")
    raise RefusedError(
        f"the artifact is {form}, which can't be bisected: {what}",
        seen=form,
        next="prepare the same source with --to onnx, and bisect that bundle",
    )


class _Bisector:
    def __init__(
        self,
        workers: Workers,
        bundle: Path,
        manifest: Manifest,
        case: int | None,
        mnnconvert: str,
        place: Place,
        tell: Progress,
    ) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.files = IntactFiles(bundle, manifest)
        self.tell = tell
        options = manifest.source.options
        self.precision = msgspec.convert(options.get("precision", {}), Precision)
        self.tolerance = place.tolerance(manifest.tolerance, manifest.budget)
        self.lab = TrialRunner(
            workers,
            converter=os.path.abspath(mnnconvert) if mnnconvert else "",
            precision=self.precision,
            static=bool(options.get("static")),
            hints=manifest.runtime.hints,
            tolerance=self.tolerance,
            tell=tell,
            place=place,
        )
        self.model = self.files.artifact()
        self.cases = self.files.cases(case) if case is not None else place.cases(self.files.cases(None))
        if not self.cases:
            raise RefusedError(
                "the bundle holds no cases to bisect with",
                seen=bundle.name,
                next="prepare the model again",
            )
        for stored in self.cases:  # whoever reads one later believes it
            self.files.arrays(stored.index)
        aside = set_aside(self.cases, self.tolerance)
        if case is None and len(aside) < len(self.cases):
            self.cases = [c for c in self.cases if c.index not in aside]
        self.plain_peak = 0

    def run(self, output: Path | None) -> Bisection:
        try:
            outline = self.lab.outline(self.model, self.cases[0])
            self.lab.limit = 2 * math.ceil(math.log2(max(2, len(outline.nodes)))) + 10
            differing = self._artifact_cases(outline)
        except StepFailed as failure:
            raise RefusedError(
                "the artifact does not run in onnxruntime, so there is nothing to bisect against",
                seen=describe(failure),
            ) from failure
        found, failing = self._find(outline)
        if found is None:
            return self._agreeing(outline, differing)
        look_inside(self.lab, found, self._budget())
        explained, unexplained = self._others(found, failing)
        record = self._described(found, outline, differing, explained, unexplained)
        if output is not None:
            record = self._written(found, record, output)
        return record

    def _find(self, outline: Outline) -> tuple[FaultLocation | None, list[CaseFile]]:
        """The finding, and the cases that fail; None if none does."""
        piece = self._piece(outline)
        if isinstance(piece, Failure):
            return find_unconvertible(self.lab, self.model, outline, self.cases[0], piece), self.cases[:1]
        self.tell("running the converted model")
        subjects = [
            Subject(self.model, outline, piece, case, own=self.manifest.mnn is not None)
            for case in sorted(self.cases, key=_size)
        ]
        together = self.lab.run_all(piece, [s.case for s in subjects], outline.outputs)
        self.plain_peak = self.lab.peak
        failing = [
            s for s in subjects if isinstance(together, Failure) or self._wrong(s, together[s.case.index])
        ]
        for subject in failing:
            wrong = wrong_outputs(self.lab, subject)
            if wrong:
                return Search(self.lab, failing_as(subject, wrong), self._budget()).find(), [
                    s.case for s in failing
                ]
        if not failing:
            return None, []
        reason = (
            "the model is right if it is loaded afresh for each case, and wrong if a case of another shape"
            " ran before: the fault is in MNN's resize"
        )
        return FaultLocation("unresolved", failing[0], reason=reason), []

    def _wrong(self, subject: Subject, actual: str | Failure) -> bool:
        if isinstance(actual, Failure):
            return True
        outputs = subject.outline.outputs
        reference = self.lab.reference(self.model, outputs, subject.case)
        return any(
            off.excess > 1
            for off in self.lab.compare(reference, actual, outputs, outputs, subject.case.index).values()
        )

    def _piece(self, outline: Outline) -> ConvertedModel | Failure:
        """The bundle's own converted model; one made now if it has none."""
        if self.manifest.mnn is None:
            self.tell("converting the artifact: the bundle has no converted model")
            seed = hashlib.sha256(
                "".join(f.sha256 for f in self.manifest.artifact.files).encode()
            ).hexdigest()
            return self.lab.convert(self.model, outline.inputs, outline.outputs, seed)
        signature = self.manifest.signature
        return ConvertedModel(
            self.model,
            str(self.files.path(self.manifest.mnn.path)),
            {t.name: t.mnn_name for t in signature.inputs},
            {t.name: t.mnn_name for t in signature.outputs},
            {t.name: t.layout for t in signature.inputs},
            self.manifest.runtime.hints,
        )

    def _budget(self) -> int:
        return int(SHARE_FOR_VALUES * (self.plain_peak or self.lab.peak))

    def _artifact_cases(self, outline: Outline) -> list[int]:
        """The cases where the artifact is not what the source computed."""
        tolerance = msgspec.structs.replace(self.tolerance, sqnr_db=self.manifest.artifact.sqnr_db)
        self.tell("running the artifact")
        references = self.lab.references(self.model, outline.outputs, self.cases)
        differing = []
        for case in self.cases:
            ours = load_arrays(references[case.index])
            stored = case_outputs(case.file.path)
            offs = [deviation(stored[n], a, tolerance, n, case.index) for n, a in ours.items() if n in stored]
            if any(off.excess > 1 or off.reshaped for off in offs):
                differing.append(case.index)
        return differing

    def _others(self, found: FaultLocation, failing: list[CaseFile]) -> tuple[list[int], list[int]]:
        """The other failing cases, by whether the same value is the first wrong one there."""
        if (
            found.subject.where
            or found.kind in ("stale", "unresolved", "gradual")
            or not found.subject.piece.mnn
            or not found.value
        ):
            return [], []
        explained: list[int] = []
        unexplained: list[int] = []
        for case in [c for c in failing if c.index != found.subject.case.index][:CASES_EXPLAINED]:
            subject = Subject(
                self.model, found.subject.outline, found.subject.piece, case, failing=found.subject.failing
            )
            try:
                same = Search(self.lab, subject, self._budget()).explained_by(found.value)
            except StepFailed:
                same = False
            (explained if same else unexplained).append(case.index)
        return explained, unexplained

    def _agreeing(self, outline: Outline, differing: list[int]) -> Bisection:
        message = (
            f"MNN computes what the artifact computes, in {len(self.cases)}"
            f" case{'s' * (len(self.cases) != 1)}: there is nothing to bisect"
        )
        if differing:
            message += (
                "; but the artifact does not compute the same as the source, which is not MNN's fault:"
                " prepare it"
                " by another method"
            )
        return Bisection(
            bundle=str(self.bundle),
            outcome="agrees",
            message=message,
            artifact_differs=differing,
            model_nodes=len(outline.nodes),
            conversions=self.lab.conversions,
            runs=self.lab.runs,
            memory_ratio=self._ratio(),
        )

    def _ratio(self) -> float | None:
        return round(self.lab.peak / self.plain_peak, 2) if self.plain_peak else None

    def _described(
        self,
        found: FaultLocation,
        outline: Outline,
        differing: list[int],
        explained: list[int],
        unexplained: list[int],
    ) -> Bisection:
        last = found.innermost()
        failing = last.failure or found.failure
        return Bisection(
            bundle=str(self.bundle),
            outcome=last.kind,
            failure=failing.kind if failing else "differs",
            nodes=last.labels(),
            where=last.subject.where,
            value=last.value,
            case=found.subject.case.index,
            reason=" ".join((failing.reason if failing else last.reason).split()),
            message=sentence(last),
            made_here=last.kind in ("node", "fused", "context") and last.trial is not None,
            excess=finite(last.excess),
            upstream=finite(last.upstream),
            alone=finite(last.alone),
            growth=last.growth,
            artifact_differs=differing,
            explained=explained,
            unexplained=unexplained,
            model_nodes=len(outline.nodes),
            conversions=self.lab.conversions,
            runs=self.lab.runs,
            memory_ratio=self._ratio(),
            cause=self._cause(last),
        )

    def _cause(self, found: FaultLocation) -> str:
        """Why the nodes found are wrong in half precision; empty elsewhere, or if the numbers don't say."""
        if self.lab.arithmetic != FLOAT16 or found.subject.where or not found.nodes:
            return ""
        nodes = [found.subject.outline.nodes[index] for index in found.nodes]
        names = dict.fromkeys(name for node in nodes for name in (*node.inputs, *node.outputs) if name)
        try:
            reference = self.lab.reference(self.model, names, found.subject.case)
        except StepFailed:
            return ""
        return half_cause(found, load_arrays(reference), "float16")

    def _written(self, found: FaultLocation, record: Bisection, output: Path) -> Bisection:
        last = found.innermost()
        if last.trial is None:
            return record
        kept = {name: getattr(record, name) for name in KEPT}
        versions = {
            n: v for n, v in self.manifest.tools.items() if n in ("MNN", "mnnconvert", "onnx", "onnxruntime")
        }
        headline = {"differs": "MNN computes something else", "refused": "MNN's converter refuses"}.get(
            record.failure, "MNN fails"
        )
        told = {
            **kept,
            "tools": versions,
            "headline": f"{headline}: {', '.join(record.nodes)}",
            "sentence": record.message,
        }
        self.tell(f"writing the repro to {output}")
        names = write_repro(self.lab, last, last.trial, told, self.precision, output)
        return msgspec.structs.replace(record, repro=names)


def _size(case: CaseFile) -> int:
    return case.file.size
