"""TensorFlow Lite, as the rest of mnnprep knows it."""

from __future__ import annotations

from mnnprep.comparison.tolerance import DEQUANTIZED_SQNR
from mnnprep.evidence.check import Check
from mnnprep.formats.backend import ArtifactFormat, Backend, Deferred, ExportRecipe, SourceKind, SourceSteps
from mnnprep.formats.tflite.recognise import sniff
from mnnprep.model.messages import (
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
from mnnprep.workers.step import Step, Worker

_STEPS = "mnnprep.formats.tflite.steps"
_INSPECT = "mnnprep.formats.tflite.inspect"
RUNTIME = Worker("LiteRT", ("numpy", "ai_edge_litert", "ai_edge_litert.interpreter"))

BACKEND = Backend(
    framework="tflite",
    kinds=(
        SourceKind(
            name="tflite",
            title="TensorFlow Lite model",
            suffixes=(".tflite", ".lite"),
            steps=SourceSteps(
                survey=Step(_STEPS, "survey_file", SurveyJob, Survey, RUNTIME),
                export=Step(_STEPS, "export_file", ExportJob, Exported, RUNTIME),
                recipes=(
                    ExportRecipe("copy", "tflite"),
                    ExportRecipe(
                        "onnx", "onnx", 13, packages=("tf2onnx", "tensorflow"), sqnr_db=DEQUANTIZED_SQNR
                    ),
                ),
                replay=Step(_STEPS, "replay_file", ReplayJob, Replayed, RUNTIME),
            ),
            inspect=Deferred(_INSPECT, "inspect"),
            operators=Deferred(_INSPECT, "operators"),
            frontend="TFLITE",
        ),
    ),
    artifacts=(
        ArtifactFormat(
            name="tflite",
            run=Step(_STEPS, "run_model", RunJob, RunResult, RUNTIME),
            weights=Step(_STEPS, "compare_weights", WeightsJob, Check, RUNTIME),
            frontend="TFLITE",
            runtime="ai_edge_litert",
            locate=Step(_STEPS, "locate", LocateJob, Located, RUNTIME),
            half=Step(_STEPS, "run_half", HalfJob, RunResult, RUNTIME),
            silent=True,
            packages=("ai_edge_litert",),
        ),
    ),
    sniff=sniff,
    packages=("ai_edge_litert",),
    extra="tflite",
)
