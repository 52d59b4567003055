"""`verify`: prove a bundle again, offline, from the bundle alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep.attempt.metrics import metric_checks
from mnnprep.attempt.results import TargetProof, unanswered
from mnnprep.attempt.target_verifier import Rounding, judged, without_model
from mnnprep.bundle.manifest import AgainstLow, Manifest, TargetRecord, TensorRecord, read_manifest
from mnnprep.bundle.manifest_view import concluded
from mnnprep.bundle.target_view import EngineSpan, engine_spans
from mnnprep.commands.auditing.device import DeviceOutputs, device_check
from mnnprep.commands.auditing.files import hashes, report_check
from mnnprep.commands.auditing.record import cases_check, record_check, require_known, stored_cases
from mnnprep.commands.auditing.yardstick import ruled, tolerance_check
from mnnprep.commands.bundle_workers import bundle_workers
from mnnprep.commands.record import target_record, told_of_low
from mnnprep.comparison.outputs import compare_run, confirmed
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import VERIFY, Verdict, verdict
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.mnn.run import NARROWED_OUTPUTS, RUN, MnnRunJob, MnnRunResult
from mnnprep.model.files import FileRef
from mnnprep.model.messages import CaseFile, RunJob, RunResult
from mnnprep.model.metrics import Metric
from mnnprep.model.request import Limits
from mnnprep.model.signature import Signature, TensorSpec
from mnnprep.model.target import Target
from mnnprep.targets.environment import expand
from mnnprep.targets.outputs import read_outputs
from mnnprep.targets.run import start
from mnnprep.text import Progress, listed
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The result of proving again; ``recorded`` is the verdict that the manifest has.

    ``engines`` tell from which version of MNN on it is right, for each target that ran in several;
    ``against_low`` what is known against precision ``low``, by these runs, else by the manifest.
    """

    bundle: str
    verdict: Verdict
    recorded: Verdict
    evidence: list[Check]
    targets: list[TargetRecord] = []
    engines: list[EngineSpan] = []
    against_low: AgainstLow | None = None


def verify(
    bundle: Path,
    *,
    metrics: tuple[Metric, ...] = (),
    targets: tuple[Target, ...] = (),
    device: DeviceOutputs | None = None,
    limits: Limits | None = None,
    tell: Progress = lambda _: None,
) -> Verification:
    """Prove *bundle* again: every file's hash, and MNN on the stored cases against the stored references.

    The converted model is run on each of *targets* too, whether or not the bundle was made for it, and the
    artifact if its runtime is installed.  ``proven`` needs that all hold and
    that the bundle was proven when it was made.  Task metrics that the bundle was made with are measured
    again, their functions taken from *metrics*, never from the bundle.  Other *metrics* are measured as well.

    The outputs of a *device* are judged by the same rules, and are required then. What the manifest says is
    checked, not believed: words, figures, and the tolerance, which the rule gives for what was asked.

    Raises:
        UsageError: there is no bundle at this path, or one of *metrics* is not as the bundle was made with;
        the *device*'s outputs are not this bundle's, or not those of the stated precision.
        RefusedError: its manifest can't be read, says what this version does not know, or names files outside
        the bundle; its engine is not here; the *device*'s outputs are damaged.
        SystemFault: without a full disk, or the like, it might have been proven.
    """
    manifest = read_manifest(bundle)
    wanted = known_metrics(manifest.metrics, metrics)
    tell("checking the hashes")
    checks = audited(bundle, manifest)
    intact = checks[0].status is Status.PASSED
    with bundle_workers(bundle, manifest, limits) as workers:
        devices = _device(workers, bundle, manifest, device, intact)  # a wrong call is told before the work
        artifact, artifact_ran = _artifact(workers, bundle, manifest, intact, tell)
        mnn, mnn_ran = _mnn(workers, bundle, manifest, intact, tell)
        proofs = _on_targets(workers, bundle, manifest, mnn, expand(targets, manifest.engine), tell)
        runs: dict[str, RunResult | None] = {"artifact": artifact_ran, "MNN": mnn_ran}
        if artifact.status is Status.NOT_RUN:  # its runtime is not installed: what was proven is MNN's model
            del runs["artifact"]
        checks += [
            artifact,
            mnn,
            *(proof.check for proof in proofs),
            *devices,
            *metric_checks(workers, wanted, _cases(bundle, manifest), runs, manifest.evidence),
        ]
        profile = VERIFY.with_targets(str(proof.target) for proof in proofs)
        outcome = verdict(checks, profile.at_most(concluded(manifest)))
        if outcome is not Verdict.PROVEN:
            workers.require_sound()
    return Verification(
        bundle=str(bundle),
        verdict=outcome,
        recorded=manifest.verdict,
        evidence=checks,
        targets=[target_record(proof) for proof in proofs],
        engines=engine_spans(checks, mnn_ran.engine if mnn_ran else ""),
        against_low=told_of_low(proofs, manifest.runtime.against_low),
    )


def audited(bundle: Path, manifest: Manifest) -> list[Check]:
    """Return what can be said of the bundle without running anything.

    ``hashes`` comes first, then whether its record holds.

    Raises:
        RefusedError: as in :func:`verify`.
    """
    require_known(manifest)
    checks = [hashes(bundle, manifest), record_check(manifest)]
    if checks[0].status is Status.PASSED:
        checks += [cases_check(bundle, manifest), tolerance_check(manifest, stored_cases(bundle, manifest))]
    return [*checks, report_check(bundle, manifest)]


def _artifact_job(workers: Workers, bundle: Path, manifest: Manifest) -> RunJob:
    """The bundle's artifact on all of its cases."""
    return RunJob(
        model=str(bundle.resolve() / manifest.artifact.files[0].path),
        cases=_cases(bundle, manifest),
        signature=Signature(_specs(manifest.signature.inputs), _specs(manifest.signature.outputs)),
        directory=str(workers.directory("run")),
    )


def mnn_job(
    bundle: Path,
    manifest: Manifest,
    directory: Path,
    *,
    fresh: bool = False,
    cases: list[CaseFile] | None = None,
) -> MnnRunJob:
    """Return the run of the bundle's model on *cases*, its own by default, that writes to *directory*."""
    assert manifest.mnn is not None
    signature = manifest.signature
    return MnnRunJob(
        model=str(bundle.resolve() / manifest.mnn.path),
        cases=_cases(bundle, manifest) if cases is None else cases,
        fresh=fresh,
        directory=str(directory),
        input_names={t.name: t.mnn_name for t in signature.inputs},
        output_names={t.name: t.mnn_name for t in signature.outputs},
        layouts={t.name: t.layout for t in signature.inputs},
        hints=manifest.runtime.hints,
    )


def _cases(bundle: Path, manifest: Manifest) -> list[CaseFile]:
    root = bundle.resolve()
    return [
        CaseFile(index=i, origin=c.origin, dims=c.dims, file=FileRef(str(root / c.path), c.sha256, c.size))
        for i, c in enumerate(manifest.cases)
    ]


def _specs(tensors: list[TensorRecord]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(t.name, t.dtype, tuple(t.shape)) for t in tensors)


def known_metrics(made_with: Iterable[Metric], given: tuple[Metric, ...]) -> list[Metric]:
    """Return the metrics to measure.

    They are those the bundle was made with, their functions found among the *given* ones, and the other given
    ones.

    Raises:
        UsageError: a given function is not the one of the bundle.
    """
    by_name = {metric.name: metric for metric in given}
    found = []
    for metric in made_with:
        mine = by_name.pop(metric.name, None)
        if mine is not None and mine.sha256 != metric.sha256:
            raise UsageError(
                "a --metric has other code than the bundle was made with",
                seen=f"{metric.name}: sha256 {mine.sha256}, not {metric.sha256}",
                next="give the function as it was, or name it differently",
            )
        if mine is not None and mine.threshold not in (None, metric.threshold):
            raise UsageError(
                "a --metric has another value than the bundle was made with",
                seen=f"{metric.name}: {mine.wanted()}, not {metric.wanted() or 'any'}",
                next="leave the value out",
            )
        found.append(msgspec.structs.replace(metric, function=mine.function if mine is not None else ""))
    return [*found, *by_name.values()]


def _artifact(
    workers: Workers, bundle: Path, manifest: Manifest, intact: bool, tell: Progress
) -> tuple[Check, RunResult | None]:
    kind = ARTIFACTS[manifest.artifact.format]
    if not deps.installed(kind.runtime):
        return catalog.ARTIFACT_COMPARE.not_run(f"{kind.runtime} is not installed", required=False), None
    if not intact:
        return catalog.ARTIFACT_COMPARE.not_run(
            "the bundle's files are not those that were proven", required=False
        ), None
    if not manifest.cases:
        return catalog.ARTIFACT_COMPARE.not_run("the bundle has no cases", required=False), None
    tell(f"running the artifact in {kind.runtime}")
    job = _artifact_job(workers, bundle, manifest)
    try:
        ran = workers.run(kind.run, job)
    except StepFailed as failure:
        refused = isinstance(failure.error, RefusedError)
        return unanswered(catalog.ARTIFACT_COMPARE, failure, describe(failure), unable=refused), None
    return compare_run(catalog.ARTIFACT_COMPARE, job.cases, ran, ruled(manifest)[0], {}), ran


def _on_targets(
    workers: Workers,
    bundle: Path,
    manifest: Manifest,
    host: Check,
    targets: tuple[Target, ...],
    tell: Progress,
) -> list[TargetProof]:
    """The model on each of *targets*; none is run if it is not right on this *host*."""
    if host.status is not Status.PASSED:
        return without_model(targets, host)
    if not targets:
        return []
    tell(f"running it on {listed([str(target) for target in targets])}")
    runs = [start(workers, target, mnn_job(bundle, manifest, workers.directory("mnn"))) for target in targets]
    rounding = _rounding(workers, bundle, manifest)
    return [judged(run, ruled(manifest)[1], manifest.budget, rounding) for run in runs]


def _rounding(workers: Workers, bundle: Path, manifest: Manifest) -> Rounding:
    """How to learn what half precision costs the bundle's artifact at best."""
    kind = ARTIFACTS[manifest.artifact.format]
    return Rounding(workers, kind, _artifact_job(workers, bundle, manifest))


def _mnn(
    workers: Workers, bundle: Path, manifest: Manifest, intact: bool, tell: Progress
) -> tuple[Check, MnnRunResult | None]:
    if manifest.mnn is None:
        return catalog.MNN_COMPARE.not_run("the bundle has no converted model"), None
    if not intact:
        return catalog.MNN_COMPARE.not_run("the bundle's files are not those that were proven"), None
    tell("running it in MNN, twice")
    runs = [
        workers.submit(RUN, mnn_job(bundle, manifest, workers.directory("mnn"), fresh=fresh))
        for fresh in (False, True)
    ]
    try:
        first, second = (run.result().value for run in runs)
    except StepFailed as failure:
        return unanswered(catalog.MNN_COMPARE, failure, f"MNN's runtime {describe(failure)}"), None
    tolerance = ruled(manifest)[1]
    check = compare_run(catalog.MNN_COMPARE, _cases(bundle, manifest), first, tolerance, NARROWED_OUTPUTS)
    return confirmed(check, first, second, _cases(bundle, manifest), tolerance, NARROWED_OUTPUTS), first


def _device(
    workers: Workers, bundle: Path, manifest: Manifest, device: DeviceOutputs | None, intact: bool
) -> list[Check]:
    """The check of the *device*, if one was asked for."""
    if device is None:
        return []
    row = catalog.TARGET.of(device.name)
    if manifest.mnn is None:
        return [row.not_run("the bundle has no converted model", subject=device.name)]
    if not intact:
        reason = "the bundle's files are not those that were proven"
        return [row.not_run(reason, subject=device.name)]
    job = mnn_job(bundle, manifest, workers.directory("device"))
    runs = read_outputs(Path(device.directory), job)
    device.require_own(runs, bundle)
    rounding = _rounding(workers, bundle, manifest)
    return [device_check(device.name, job.cases, runs, ruled(manifest)[1], manifest.budget, rounding)]
