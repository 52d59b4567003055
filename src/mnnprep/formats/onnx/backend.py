"""ONNX, as the rest of mnnprep knows it."""

from __future__ import annotations

from mnnprep.evidence.check import Check
from mnnprep.formats.backend import ArtifactFormat, Backend, Deferred, ExportRecipe, SourceKind, SourceSteps
from mnnprep.formats.onnx.recognise import TITLE, sniff
from mnnprep.model.messages import (
    CoverageJob,
    Cut,
    CutJob,
    Diff,
    DiffJob,
    Exported,
    ExportJob,
    HalfJob,
    Located,
    LocateJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.model.searching import Searched, SearchJob
from mnnprep.workers.step import Step, Worker

_STEPS = "mnnprep.formats.onnx.steps"
RUNTIME = Worker("onnxruntime", ("numpy", "onnx", "onnxruntime"))

ARTIFACT = ArtifactFormat(
    name="onnx",
    run=Step(_STEPS, "run_model", RunJob, RunResult, RUNTIME),
    weights=Step(_STEPS, "compare_weights", WeightsJob, Check, RUNTIME),
    frontend="ONNX",
    runtime="onnxruntime",
    locate=Step(_STEPS, "locate", LocateJob, Located, RUNTIME),
    cut=Step("mnnprep.formats.onnx.cut", "cut", CutJob, Cut, RUNTIME),
    half=Step("mnnprep.formats.onnx.half", "run_half", HalfJob, RunResult, RUNTIME),
    search=Step("mnnprep.formats.onnx.widening", "widen", SearchJob, Searched, RUNTIME),
    by_rules=True,
)
# Whether the cases run every branch that values decide; which lines of code two graphs differ in.
COVERAGE = Step("mnnprep.formats.onnx.coverage", "coverage", CoverageJob, Check, RUNTIME)
DIFF = Step("mnnprep.formats.onnx.diff", "diff", DiffJob, Diff, RUNTIME)

BACKEND = Backend(
    framework="onnx",
    kinds=(
        SourceKind(
            name="onnx",
            title=TITLE,
            suffixes=(".onnx",),
            steps=SourceSteps(
                survey=Step(_STEPS, "survey_file", SurveyJob, Survey, RUNTIME),
                export=Step(_STEPS, "export_file", ExportJob, Exported, RUNTIME),
                recipes=(ExportRecipe("copy", "onnx"), ExportRecipe("opset", "onnx", 1, searches=True)),
                weights_in_file=True,
                replay=Step(_STEPS, "replay_file", ReplayJob, Replayed, RUNTIME),
            ),
            refers_to=Deferred("mnnprep.formats.onnx.inspect", "external_files"),
            require_loadable=Deferred("mnnprep.formats.onnx.inspect", "require_loadable_file"),
            inspect=Deferred("mnnprep.formats.onnx.inspect", "inspect"),
            by_rules=True,
        ),
    ),
    artifacts=(ARTIFACT,),
    sniff=sniff,
    packages=("onnx", "onnxruntime"),
)
