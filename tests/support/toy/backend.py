"""The toy framework, as the rest of mnnprep knows it."""

from __future__ import annotations

from mnnprep.formats.backend import Backend, Deferred, ExportRecipe, SourceKind, SourceSteps
from mnnprep.formats.toy.recognise import sniff
from mnnprep.model.messages import Exported, ExportJob, Replayed, ReplayJob, Survey, SurveyJob
from mnnprep.workers.step import Step, Worker

_STEPS = "mnnprep.formats.toy.steps"
_INSPECT = "mnnprep.formats.toy.inspect"
RUNTIME = Worker("toy", ("numpy", "onnx"))

BACKEND = Backend(
    framework="toy",
    kinds=(
        SourceKind(
            name="toy",
            title="toy net",
            suffixes=(".toy",),
            steps=SourceSteps(
                survey=Step(_STEPS, "survey_file", SurveyJob, Survey, RUNTIME),
                export=Step(_STEPS, "export_file", ExportJob, Exported, RUNTIME),
                recipes=(ExportRecipe("onnx", "onnx", 13),),
                replay=Step(_STEPS, "replay_file", ReplayJob, Replayed, RUNTIME),
            ),
            inspect=Deferred(_INSPECT, "inspect"),
            operators=Deferred(_INSPECT, "operators"),
        ),
    ),
    sniff=sniff,
)
