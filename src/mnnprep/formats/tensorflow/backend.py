"""TensorFlow and Keras, as the rest of mnnprep knows them."""

from __future__ import annotations

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
)
from mnnprep.formats.tensorflow.recognise import TITLES, sniff, sniff_directory
from mnnprep.model.messages import (
    Cut,
    CutJob,
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

_STEPS = "mnnprep.formats.tensorflow.steps"
_CUT = "mnnprep.formats.tensorflow.cut"
_INSPECT = "mnnprep.formats.tensorflow.inspect"
FRAMEWORK = Worker("TensorFlow", ("numpy", "tensorflow", "keras"))

_SOURCE = SourceSteps(
    survey=Step(_STEPS, "survey_source", SurveyJob, Survey, FRAMEWORK),
    export=Step(_STEPS, "export_source", ExportJob, Exported, FRAMEWORK),
    recipes=(
        ExportRecipe("freeze", "tf"),
        ExportRecipe("onnx", "onnx", 13, packages=("tf2onnx", "tensorflow")),
        ExportRecipe("tflite", "tflite", precisions=("float16", "int8")),
    ),
    replay=Step(_STEPS, "replay_source", ReplayJob, Replayed, FRAMEWORK),
)

BACKEND = Backend(
    framework="tensorflow",
    kinds=(
        SourceKind(
            name="savedmodel",
            title="TensorFlow SavedModel",
            steps=_SOURCE,
            options=frozenset({Option.SIGNATURE}),
            inspect=Deferred(_INSPECT, "inspect_graph"),
        ),
        SourceKind(
            name="frozen-graph",
            title=TITLES["frozen-graph"],
            suffixes=(".pb",),
            steps=_SOURCE,
            options=frozenset({Option.OUTPUTS}),
            inspect=Deferred(_INSPECT, "inspect_graph"),
            operators=Deferred(_INSPECT, "operators"),
            side_effects=Deferred(_INSPECT, "side_effects"),
            frontend="TF",
        ),
        SourceKind(
            name="keras",
            title="Keras model",
            suffixes=(".keras",),
            steps=_SOURCE,
            inspect=Deferred(_INSPECT, "inspect_keras"),
        ),
        SourceKind(
            name="keras-h5",
            title="Keras HDF5 model",
            suffixes=(".h5", ".hdf5"),
            steps=_SOURCE,
            inspect=Deferred(_INSPECT, "inspect_keras"),
        ),
        SourceKind(
            name="tf-checkpoint",
            title=TITLES["tf-checkpoint"],
            suffixes=(".meta",),
            steps=_SOURCE,
            options=frozenset({Option.OUTPUTS}),
            refers_to=Deferred("mnnprep.formats.tensorflow.recognise", "checkpoint_files"),
            inspect=Deferred(_INSPECT, "inspect_graph"),
        ),
        SourceKind(name="tf-factory", title="TensorFlow or Keras factory", role=Role.FACTORY, steps=_SOURCE),
    ),
    artifacts=(
        ArtifactFormat(
            name="tf",
            run=Step(_STEPS, "run_graph", RunJob, RunResult, FRAMEWORK),
            weights=Step(_STEPS, "compare_graph_weights", WeightsJob, Check, FRAMEWORK),
            frontend="TF",
            runtime="tensorflow",
            locate=Step(_CUT, "locate", LocateJob, Located, FRAMEWORK),
            cut=Step(_CUT, "cut", CutJob, Cut, FRAMEWORK),
            half=Step("mnnprep.formats.tensorflow.half", "run_half", HalfJob, RunResult, FRAMEWORK),
            search=Step("mnnprep.formats.tensorflow.widening", "widen", SearchJob, Searched, FRAMEWORK),
        ),
    ),
    sniff=sniff,
    sniff_directory=sniff_directory,
    packages=("tensorflow", "tf2onnx", "tf_keras"),
    recorded=("keras",),
    extra="tensorflow",
    factory="tf-factory",
    factory_imports=frozenset({"tensorflow", "keras", "tf_keras"}),
)
