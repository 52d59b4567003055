"""Caffe, as the rest of mnnprep knows it."""

from __future__ import annotations

from mnnprep.evidence.check import Check
from mnnprep.formats.backend import ArtifactFormat, Backend, Deferred, ExportRecipe, SourceKind, SourceSteps
from mnnprep.formats.caffe.recognise import WEIGHTS_TITLE, sniff
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    HalfJob,
    InputSpecs,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.workers.step import Step, Worker

_STEPS = "mnnprep.formats.caffe.steps"
_INSPECT = "mnnprep.formats.caffe.inspect"
# A step loads OpenCV where it is there: without it the verdict is unproven, not a refusal.
READER = Worker("Caffe", ("numpy",))

_PAIR = SourceSteps(
    survey=Step(_STEPS, "survey_pair", SurveyJob, Survey, READER),
    export=Step(_STEPS, "export_pair", ExportJob, Exported, READER),
    recipes=(ExportRecipe("upgrade", "caffe"), ExportRecipe("onnx", "onnx", 13)),
    replay=Step(_STEPS, "replay_pair", ReplayJob, Replayed, READER),
)
_COMPLETE = Deferred[[str, str, str, InputSpecs], tuple[str, str, str]](
    "mnnprep.formats.caffe.pair", "complete"
)

BACKEND = Backend(
    framework="caffe",
    kinds=(
        SourceKind(
            name="caffe-prototxt",
            title="Caffe network",
            suffixes=(".prototxt",),
            steps=_PAIR,
            complete=_COMPLETE,
            inspect=Deferred(_INSPECT, "inspect_definition"),
            operators=Deferred(_INSPECT, "operators"),
            frontend="CAFFE",
        ),
        SourceKind(
            name="caffemodel",
            title=WEIGHTS_TITLE,
            suffixes=(".caffemodel",),
            steps=_PAIR,
            complete=_COMPLETE,
            inspect=Deferred(_INSPECT, "inspect_weights"),
        ),
    ),
    artifacts=(
        ArtifactFormat(
            name="caffe",
            run=Step(_STEPS, "run_pair", RunJob, RunResult, READER),
            weights=Step(_STEPS, "compare_pair_weights", WeightsJob, Check, READER),
            frontend="CAFFE",
            runtime="cv2",
            half=Step(_STEPS, "run_half", HalfJob, RunResult, READER),
            second_file=True,
        ),
    ),
    sniff=sniff,
    packages=("cv2",),
    recorded=("cv2",),
    extra="caffe",
)
