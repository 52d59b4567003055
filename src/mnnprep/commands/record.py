"""Writing a run down: the bundle's files and its manifest."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.attempt.results import AttemptResult, TargetProof, least_sqnr
from mnnprep.bundle import writer
from mnnprep.bundle.manifest import (
    SCHEMA,
    AgainstLow,
    ArtifactRecord,
    AttemptRecord,
    BundleFile,
    CaseRecord,
    DimRecord,
    KnownFault,
    Manifest,
    RepairRecord,
    RuntimeRecord,
    SignatureRecord,
    SourceRecord,
    TargetRecord,
    TensorRecord,
)
from mnnprep.commands.command_line import command_line, source_name
from mnnprep.commands.resolve import source_files
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import Backend, Role, SourceSteps
from mnnprep.formats.registry import ARTIFACTS, backend_of, kind_of
from mnnprep.model.files import load_arrays, sha256
from mnnprep.model.messages import DEFAULT_SAMPLE_LIMIT, Exported, InputSpecs, Source, Survey
from mnnprep.model.metrics import recorded
from mnnprep.model.preprocess import ImageRecipe, Recipe
from mnnprep.model.request import Request
from mnnprep.model.signature import TensorSpec
from mnnprep.model.steps import Quantized
from mnnprep.reference.media import input_of
from mnnprep.reference.samples import sample_files
from mnnprep.repair.table import RULES


def write_bundle(
    request: Request,
    source: Source,
    steps: SourceSteps,
    survey: Survey,
    results: list[AttemptResult],
    best: AttemptResult,
    target: Path,
    *,
    force: bool,
) -> Manifest:
    """Write the bundle of *best* to *target*, which appears only when whole; returns its manifest."""
    assert best.exported is not None
    with writer.stage(target, force=force) as directory:
        artifact_files = [writer.add_file(directory, Path(ref.path).name, ref) for ref in best.exported.files]
        model_name = "model.mnn" if best.verdict is Verdict.PROVEN else "unproven.mnn"
        converted = best.conversion.converted if best.conversion else None
        mnn = None
        if converted and converted.file:
            mnn = writer.add_file(directory, model_name, converted.file)
        if converted and converted.weights:  # MNN looks for it by the model's own name
            writer.add_file(directory, f"{model_name}.weight", converted.weights)
        cases = []
        for case in survey.cases:
            file = writer.add_file(directory, f"cases/{case.index}.npz", case.file)
            cases.append(
                CaseRecord(
                    path=file.path, sha256=file.sha256, size=file.size, origin=case.origin, dims=case.dims
                )
            )
        signature = _signature(survey, best)
        if survey.cases:
            writer.write_mnn_test(
                directory / writer.TEST_DIRECTORY, load_arrays(survey.cases[0].file.path), signature
            )
        manifest = Manifest(
            schema=SCHEMA,
            verdict=best.verdict,
            source=_source_record(request, source, survey),
            artifact=_artifact_record(best.exported, artifact_files, results, best),
            mnn=mnn,
            signature=signature,
            cases=cases,
            tolerance=Tolerance(
                noise=survey.noise,
                sqnr_db=least_sqnr(best.exported, request.precision),
                steps=survey.steps,
            ),
            evidence=list(best.checks),
            tools=_tools(steps, backend_of(source.kind), request, best),
            runtime=RuntimeRecord(
                hints=best.runs.mnn.hints if best.runs.mnn else {}, against_low=against_low(best)
            ),
            metrics=recorded(request.metrics),
            targets=[target_record(proof) for proof in best.targets],
        )
        return writer.finish(directory, manifest)


def _source_record(request: Request, source: Source, survey: Survey) -> SourceRecord:
    return SourceRecord(
        kind=source.kind,
        name=source_name(source),
        framework=backend_of(source.kind).framework,
        command=command_line(request, source),
        files=source_files(source),
        options=_options(request, source, survey),
        parameters=survey.parameters,
    )


def _artifact_record(
    exported: Exported, files: list[BundleFile], results: list[AttemptResult], best: AttemptResult
) -> ArtifactRecord:
    return ArtifactRecord(
        format=exported.format,
        method=best.recipe.method,
        opset=best.opset,
        sqnr_db=exported.sqnr_db,
        files=files,
        attempts=_attempts(results, best),
        repairs=[
            RepairRecord(rule=f.rule, hazard=f.hazard, exact=f.exact, nodes=f.nodes) for f in best.repairs
        ],
    )


def against_low(best: AttemptResult) -> AgainstLow | None:
    """What an app must know of precision ``low``: what ran there decides, else what is known of operators."""
    rules = {rule.name: rule.hazard for rule in RULES}
    known = [KnownFault(rule=f.rule, node=f.node, hazard=rules[f.rule]) for f in best.known.findings]
    by_operators = (
        AgainstLow(known=known, unknown=best.known.unknown) if known or best.known.unknown else None
    )
    return told_of_low(best.targets, by_operators)


def told_of_low(proofs: Sequence[TargetProof], otherwise: AgainstLow | None) -> AgainstLow | None:
    """What *proofs* say against precision ``low``; *otherwise* if none of them ran in half precision."""
    if wrong := [str(proof.target) for proof in proofs if proof.wrong_in_half]:
        return AgainstLow(targets=wrong)
    right = any(proof.in_half and proof.check.status is Status.PASSED for proof in proofs)
    return None if right else otherwise


def target_record(proof: TargetProof) -> TargetRecord:
    """What is to be recorded of a target beside its check."""
    if proof.ran is None:
        return TargetRecord(target=str(proof.target), cases=list(proof.cases))
    return TargetRecord(
        target=str(proof.target),
        engine=proof.ran.engine,
        arithmetic=proof.ran.arithmetic,
        hints=proof.ran.hints,
        cases=list(proof.cases),
    )


def _signature(survey: Survey, best: AttemptResult) -> SignatureRecord:
    signature = survey.signature
    conversion, ran = best.conversion, best.runs.mnn
    layouts = conversion.layouts if conversion else {}
    inputs = [
        _tensor(
            spec,
            conversion.input_names if conversion else {},
            layouts.get(spec.name, "NCHW"),
            ran.narrowed_inputs if ran else {},
            survey.quantized,
        )
        for spec in signature.inputs
    ]
    layout = next(iter(layouts.values()), "NCHW")
    outputs = [
        _tensor(
            spec,
            conversion.output_names if conversion else {},
            layout,
            ran.narrowed if ran else {},
            survey.quantized,
        )
        for spec in signature.outputs
    ]
    constraints = {name: c.words(name) for name, c in survey.sweep.constraints.items()}
    dims = {
        d.name: DimRecord(
            min=d.min,
            max=d.max,
            proven=best.proven_sizes.get(d.name, []),
            constraint=constraints.get(d.name, ""),
        )
        for d in signature.dims
    }
    return SignatureRecord(inputs=inputs, outputs=outputs, dims=dims)


def _tensor(
    spec: TensorSpec,
    names: dict[str, str],
    layout: str,
    narrowed: dict[str, str],
    quantized: dict[str, Quantized],
) -> TensorRecord:
    return TensorRecord(
        name=spec.name,
        source_name=spec.name,
        mnn_name=names.get(spec.name, spec.name),
        dtype=spec.dtype,
        mnn_dtype=narrowed.get(spec.name, spec.dtype),
        shape=list(spec.shape),
        layout=layout,
        range=list(spec.range) if spec.range else None,
        quantization=quantized.get(spec.name),
    )


def _attempts(results: list[AttemptResult], best: AttemptResult) -> list[AttemptRecord]:
    records = []
    for result in results:
        records += [
            AttemptRecord(method=result.recipe.method, opset=refused.opset, ok=False, reason=refused.reason)
            for refused in result.refused_opsets
        ]
        records.append(
            AttemptRecord(
                method=result.recipe.method,
                opset=result.opset,
                ok=result.verdict is Verdict.PROVEN,
                verdict=result.verdict.value if result.exported else "",
                reason=result.reason,
                repairs=[repair.rule for repair in result.repairs],
                kept=result is best,
                notes=result.exported.notes if result.exported else [],
            )
        )
    return records


def _options(request: Request, source: Source, survey: Survey) -> dict[str, Any]:
    """Return the call's options without a path: files are in ``source.files`` by their hashes."""
    wants = request.wants
    options: dict[str, Any] = {
        "to": request.to,
        "method": request.method,
        "opset": request.opset,
        "inputs": [str(s) for s in wants.inputs],
        "dims": [f"{d.name}={d.min}:{d.max}" for d in wants.dims],
        "ranges": {n: list(r) for n, r in wants.ranges.items()},
        "seed": wants.seed,
        "samples": _samples(wants),
        "factory_args": source.factory_args,
        "trust": request.trust,
        "mnnconvert": sha256(request.mnnconvert) if request.mnnconvert else "",
    }
    if wants.samples and wants.sample_limit != DEFAULT_SAMPLE_LIMIT:
        options["sample_limit"] = wants.sample_limit
    if wants.preprocess:
        options["preprocess"] = [
            _recipe(recipe, input_of(recipe, survey.signature.inputs).name) for recipe in wants.preprocess
        ]
    if request.repairs is not None:
        options["repairs"] = list(request.repairs)
    if request.targets:
        options["targets"] = [str(target) for target in request.targets]
    if request.engine:
        options["engine"] = request.engine
    if request.static:
        options["static"] = True
    if request.precision.reduced or request.precision.budget is not None:
        options["precision"] = msgspec.to_builtins(request.precision)
    given = {
        "signature": request.signature,
        "outputs": list(request.outputs),
        "tflite_precision": request.tflite_precision,
    }
    options |= {name: value for name, value in given.items() if value}
    if kind_of(source.kind).role is Role.FACTORY:
        options["factory"] = source_name(source)
    return options


def _samples(wants: InputSpecs) -> list[str]:
    """The sha256 of every sample file, in the order they were taken."""
    return (
        [sha256(file) for _, file in sample_files(wants.samples, wants.sample_limit).taken]
        if wants.samples
        else []
    )


def _recipe(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return a ``--preprocess`` in full, with the input that it fills.

    An image's has the figures that MNN's ImageProcess takes for the same.
    """
    plain: dict[str, Any] = msgspec.to_builtins(recipe) | {"input": name}
    if isinstance(recipe, ImageRecipe):
        plain |= {"mnn_mean": recipe.mnn_mean, "mnn_normal": recipe.mnn_normal}
    return plain


def _tools(steps: SourceSteps, backend: Backend, request: Request, best: AttemptResult) -> dict[str, str]:
    assert best.exported is not None
    names = {"numpy", "onnx", "onnx_ir", "onnxruntime", "MNN", *steps.worker.packages}
    names |= {*backend.recorded, *best.recipe.packages, *ARTIFACTS[best.exported.format].packages}
    if any(isinstance(recipe, ImageRecipe) for recipe in request.wants.preprocess):
        names |= {"PIL"}
    versions = {name: deps.version(name) for name in sorted(names)}
    tools = {name: version for name, version in versions.items() if version} | {
        "mnnprep": __version__,
        "python": platform.python_version(),
    }
    if request.engine:
        tools["MNN"] = request.engine
    converted = best.conversion.converted if best.conversion else None
    if request.mnnconvert and converted and converted.version:
        tools["mnnconvert"] = converted.version
    return tools
