"""MNN's own files as sources, as the rest of mnnprep knows them."""

from __future__ import annotations

from mnnprep.evidence.check import Check
from mnnprep.formats.backend import ArtifactFormat, Backend, Deferred, ExportRecipe, SourceKind, SourceSteps
from mnnprep.formats.mnn_file.recognise import sniff
from mnnprep.mnn.worker import RUNTIME
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Survey,
    SurveyJob,
    TextJob,
    TextWritten,
    WeightsJob,
)
from mnnprep.workers.step import Step

_STEPS = "mnnprep.formats.mnn_file.steps"
TO_TEXT = Step(_STEPS, "convert_text", TextJob, TextWritten, RUNTIME)

BACKEND = Backend(
    framework="mnn",
    kinds=(
        SourceKind(
            name="mnn",
            title="MNN model",
            suffixes=(".mnn",),
            steps=SourceSteps(
                survey=Step(_STEPS, "survey_file", SurveyJob, Survey, RUNTIME),
                export=Step(_STEPS, "copy", ExportJob, Exported, RUNTIME),
                recipes=(ExportRecipe("copy", "mnn"),),
                weights_in_file=True,
                replay=Step(_STEPS, "replay_file", ReplayJob, Replayed, RUNTIME),
            ),
            refers_to=Deferred("mnnprep.formats.mnn_file.inspect", "weights_file"),
            inspect=Deferred("mnnprep.formats.mnn_file.inspect", "inspect"),
        ),
    ),
    artifacts=(
        ArtifactFormat(
            name="mnn",
            run=Step(_STEPS, "run_file", RunJob, RunResult, RUNTIME),
            weights=Step(_STEPS, "compare_weights", WeightsJob, Check, RUNTIME),
            frontend="MNN",
            runtime="MNN",
        ),
    ),
    sniff=sniff,
    packages=("MNN",),
)
