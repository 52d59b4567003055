"""PyTorch, as the rest of mnnprep knows it."""

from __future__ import annotations

from dataclasses import replace

from mnnprep.evidence.check import Check
from mnnprep.formats.backend import (
    ArtifactFormat,
    Backend,
    Deferred,
    ExportRecipe,
    Option,
    Role,
    SourceKind,
    SourceSteps,
    Streaming,
)
from mnnprep.formats.streaming import Attached, AttachJob, CompareJob, Skeleton
from mnnprep.formats.torch.recognise import sniff
from mnnprep.model.messages import (
    Exported,
    ExportJob,
    LoadJob,
    OwnWeightsJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    Source,
    SourceLoaded,
    Survey,
    SurveyJob,
)
from mnnprep.weights.messages import ModelShapes
from mnnprep.workers.step import Step, Worker

_STEPS = "mnnprep.formats.torch.steps"
_ATTACH = "mnnprep.formats.onnx.attach"
FRAMEWORK = Worker("PyTorch", ("numpy", "torch", "onnx"))
SCRIPT = Worker("TorchScript", ("torch",))
WEIGHTS = Worker("streamed weights", ("numpy", "onnx"))

# The names, shapes and ties of the tensors of a factory's model.
SHAPES = Step("mnnprep.formats.torch.shapes", "model_shapes", Source, ModelShapes, SCRIPT)

_TRACE_TO_ONNX = ExportRecipe("onnx-trace", "onnx", 1, traces=True)
_SEARCH = replace(_TRACE_TO_ONNX, searches=True)
_EXPORT = ExportRecipe("onnx-export", "onnx", 18)
_SCRIPT_TO_ONNX = ExportRecipe("onnx-script", "onnx", 1, for_decisions=True)
_TRACE = ExportRecipe("trace", "torchscript", traces=True)
_SCRIPT = ExportRecipe("script", "torchscript")


def _steps(*recipes: ExportRecipe, streaming: Streaming | None = None) -> SourceSteps:
    return SourceSteps(
        survey=Step(_STEPS, "survey_module", SurveyJob, Survey, FRAMEWORK),
        export=Step(_STEPS, "export_module", ExportJob, Exported, FRAMEWORK),
        recipes=recipes,
        load=Step(_STEPS, "load_source", LoadJob, SourceLoaded, FRAMEWORK),
        weights=Step(_STEPS, "compare_weights", OwnWeightsJob, Check, FRAMEWORK),
        replay=Step(_STEPS, "replay_module", ReplayJob, Replayed, FRAMEWORK),
        streaming=streaming,
    )


_STREAMING = Streaming(
    recipe=ExportRecipe("onnx-stream", "onnx", 1, traces=True),
    export=Step("mnnprep.formats.torch.weightless", "export_skeleton", ExportJob, Skeleton, FRAMEWORK),
    attach=Step(_ATTACH, "attach", AttachJob, Attached, WEIGHTS),
    compare=Step(_ATTACH, "compare", CompareJob, Check, WEIGHTS),
)
_MODULE = (_TRACE_TO_ONNX, _SCRIPT_TO_ONNX, _EXPORT, _SEARCH, _TRACE, _SCRIPT)
_JUDGE = Deferred[..., None]("mnnprep.formats.torch.stateless", "require_stateless")
_INSPECT = "mnnprep.formats.torch.inspect"

BACKEND = Backend(
    framework="torch",
    kinds=(
        SourceKind(
            name="torch-factory",
            title="PyTorch factory",
            role=Role.FACTORY,
            steps=_steps(*_MODULE, streaming=_STREAMING),
            options=frozenset({Option.STATE_DICT}),
        ),
        SourceKind(
            name="torchscript",
            title="TorchScript file",
            suffixes=(".pt", ".torchscript", ".jit", ".ts", ".pth"),
            steps=_steps(
                ExportRecipe("onnx-trace", "onnx", 1),
                ExportRecipe("onnx-trace", "onnx", 1, searches=True),
                ExportRecipe("copy", "torchscript"),
            ),
            judge=_JUDGE,
            inspect=Deferred(_INSPECT, "inspect_script"),
        ),
        SourceKind(
            name="exported-program",
            title="torch.export program",
            suffixes=(".pt2",),
            steps=_steps(_TRACE_TO_ONNX, _EXPORT, _SEARCH, _TRACE),
            judge=_JUDGE,
            inspect=Deferred("mnnprep.formats.torch.inspect_program", "inspect_program"),
        ),
        SourceKind(
            name="torch-module",
            title="pickled PyTorch module",
            suffixes=(".pt", ".pth"),
            steps=_steps(*_MODULE),
            runs_code=True,
            inspect=Deferred(_INSPECT, "inspect_pickle"),
        ),
        SourceKind(
            name="torch-weights",
            title="PyTorch weights",
            suffixes=(".pt", ".pth", ".bin", ".ckpt"),
            role=Role.WEIGHTS,
            inspect=Deferred(_INSPECT, "inspect_pickle"),
        ),
        SourceKind(
            name="safetensors",
            title="safetensors weights",
            suffixes=(".safetensors",),
            role=Role.WEIGHTS,
            inspect=Deferred(_INSPECT, "inspect_safetensors"),
        ),
        SourceKind(name="live", title="PyTorch module", role=Role.LIVE, steps=_steps(*_MODULE)),
    ),
    artifacts=(
        ArtifactFormat(
            name="torchscript",
            run=Step(_STEPS, "run_script", RunJob, RunResult, SCRIPT),
            weights=None,
            frontend="TORCH",
            runtime="torch",
            packaged=False,
        ),
    ),
    sniff=sniff,
    packages=("torch", "onnxscript"),
    recorded=("onnxscript",),
    extra="torch",
    factory="torch-factory",
    factory_imports=frozenset({"torch"}),
    live="mnnprep.formats.torch.live",
)
