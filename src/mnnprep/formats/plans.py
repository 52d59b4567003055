"""What the pipeline needs to know of a format to order the stages: steps by name, methods in order.

Strings and numbers only; the steps run in workers, which import what they need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mnnprep.errors import UsageError
from mnnprep.formats.factory import factory_kind, looks_like_factory
from mnnprep.formats.table import FORMATS
from mnnprep.mnn.worker import PRELOAD as MNN_PRELOAD


@dataclass(frozen=True)
class ArtifactFormat:
    """A format of artifact: its runtime's steps, the worker that has it, and MNN's frontend for it.

    ``packaged``: the converter in the MNN package has that frontend; ``locate`` is the step that finds the
    nodes of an operator, ``cut`` the one that writes a part of the graph, empty where there is none.
    ``second_file``: the converter takes the artifact's second file beside the first.  ``silent``: it does not
    name an operator that it refuses, but its list of operators has the names that the file has.  Without
    ``weights``, the plans of its sources have that step.
    """

    name: str
    run: str
    weights: str
    preload: tuple[str, ...]
    frontend: str
    runtime: str
    packaged: bool = True
    locate: str = ""
    second_file: bool = False
    cut: str = ""
    silent: bool = False


@dataclass(frozen=True)
class Attempt:
    """One method with its options.

    ``traces``: a decision on data is frozen into the artifact; ``for_decisions``: it differs from the
    methods before it only for a source that decides on data; ``precisions``: what it can make beside the
    source's own; ``searches``: it stands for one attempt at each of ``OPSETS``, for a source that MNN took at
    no opset before.
    """

    method: str
    target: str
    opset: int = 0
    traces: bool = False
    precisions: tuple[str, ...] = ()
    for_decisions: bool = False
    searches: bool = False


OPSETS = (13, 17, 11, 15, 18)  # the order of the search, after the opset that was asked for


@dataclass(frozen=True)
class Plan:
    """How a kind of source is prepared.

    ``load`` is the step that loads it once for the others, where that is slow; ``weights_in_file``: the
    source is its own record of weights; ``weights``: the step that compares an artifact's weights with the
    source's where that is loaded, in place of the artifact's own; ``complete`` is the function, called before
    any worker starts, that finds
    and checks the second file of a format that has two: ``(path, kind, other, wants) -> (kind, path,
    weights)``; ``replay`` is the step that runs it on another source's cases.
    """

    framework: str
    preload: tuple[str, ...]
    survey: str
    export: str
    methods: tuple[Attempt, ...]
    weights_in_file: bool = False
    weights: str = ""
    complete: str = ""
    replay: str = ""
    load: str = ""

    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(a.target for a in self.methods))

    def attempts(self, to: str, method: str, opset: int, tflite_precision: str = "") -> list[Attempt]:
        """The attempts in order for ``--to`` and ``--method`` (``auto``: all), opset search from *opset*.

        Raises UsageError for a target or method that this kind of source does not have.
        """
        if to and to not in self.targets():
            raise UsageError(
                f"this source can't be prepared to {to}",
                seen=f"--to {to}",
                next="choose " + " or ".join(self.targets()),
            )
        chosen = [a for a in self.methods if (not to or a.target == to) and method in ("auto", a.method)]
        if not chosen:
            methods = dict.fromkeys(a.method for a in self.methods if not to or a.target == to)
            raise UsageError(
                f"this source has no method {method}" + (f" to {to}" if to else ""),
                seen=f"--method {method}",
                next="choose auto, " + ", ".join(methods),
            )
        if tflite_precision:
            chosen = [a for a in chosen if tflite_precision in a.precisions]
            if not chosen:
                raise UsageError(
                    f"nothing is made in {tflite_precision} here",
                    seen=f"--precision {tflite_precision}",
                    next="prepare a TensorFlow source --to tflite",
                )
        if method != "auto":
            chosen = [replace(chosen[0], for_decisions=False, searches=False)]
        found: list[Attempt] = []
        for attempt in chosen:
            if attempt.searches:
                found += [replace(attempt, opset=at) for at in dict.fromkeys((opset, *OPSETS))]
            else:
                found.append(replace(attempt, opset=max(opset, attempt.opset) if attempt.opset else 0))
        return found


LIVE_MODULE = "mnnprep.formats.torch.live"  # takes a live object for the time of a run
_CAFFE_STEPS = "mnnprep.formats.caffe.steps"
_MNN_STEPS = "mnnprep.formats.mnn_file.steps"
_CAFFE_PRELOAD = (
    "numpy",
)  # OpenCV is loaded by the step, where it is there: without it the verdict is unproven, not a refusal

ARTIFACTS = {
    "onnx": ArtifactFormat(
        "onnx",
        "mnnprep.formats.onnx.steps:run_model",
        "mnnprep.formats.onnx.steps:compare_weights",
        ("numpy", "onnx", "onnxruntime"),
        "ONNX",
        "onnxruntime",
        locate="mnnprep.formats.onnx.steps:locate",
        cut="mnnprep.formats.onnx.cut:cut",
    ),
    "torchscript": ArtifactFormat(
        "torchscript",
        "mnnprep.formats.torch.steps:run_script",
        "",
        ("torch",),
        "TORCH",
        "torch",
        packaged=False,
    ),
    "tf": ArtifactFormat(
        "tf",
        "mnnprep.formats.tensorflow.steps:run_graph",
        "mnnprep.formats.tensorflow.steps:compare_graph_weights",
        ("numpy", "tensorflow", "keras"),
        "TF",
        "tensorflow",
        locate="mnnprep.formats.tensorflow.cut:locate",
        cut="mnnprep.formats.tensorflow.cut:cut",
    ),
    "tflite": ArtifactFormat(
        "tflite",
        "mnnprep.formats.tflite.steps:run_model",
        "mnnprep.formats.tflite.steps:compare_weights",
        ("numpy", "ai_edge_litert", "ai_edge_litert.interpreter"),
        "TFLITE",
        "ai_edge_litert",
        locate="mnnprep.formats.tflite.steps:locate",
        silent=True,
    ),
    "caffe": ArtifactFormat(
        "caffe",
        f"{_CAFFE_STEPS}:run_pair",
        f"{_CAFFE_STEPS}:compare_pair_weights",
        _CAFFE_PRELOAD,
        "CAFFE",
        "cv2",
        second_file=True,
    ),
    "mnn": ArtifactFormat(
        "mnn", f"{_MNN_STEPS}:run_file", f"{_MNN_STEPS}:compare_weights", MNN_PRELOAD, "MNN", "MNN"
    ),
}

_ONNX_TRACE = Attempt("onnx-trace", "onnx", 1, traces=True)
_ONNX_TRACE_SEARCH = Attempt("onnx-trace", "onnx", 1, traces=True, searches=True)
_ONNX_EXPORT = Attempt("onnx-export", "onnx", 18)
_ONNX_SCRIPT = Attempt("onnx-script", "onnx", 1, for_decisions=True)
_TRACE = Attempt("trace", "torchscript", traces=True)
_SCRIPT = Attempt("script", "torchscript")


# Not among a source's own methods: it is taken where the weights don't fit the memory limit, or asked for.
STREAMED = Attempt("onnx-stream", "onnx", 1, traces=True)
STREAM_EXPORT = "mnnprep.formats.torch.weightless:export_skeleton"
STREAM_ATTACH = "mnnprep.formats.onnx.attach:attach"
STREAM_COMPARE = "mnnprep.formats.onnx.attach:compare"
STREAM_PRELOAD = ("numpy", "onnx")


def _torch(methods: Sequence[Attempt]) -> Plan:
    steps = "mnnprep.formats.torch.steps"
    return Plan(
        "torch",
        ("numpy", "torch", "onnx"),
        f"{steps}:survey_module",
        f"{steps}:export_module",
        tuple(methods),
        load=f"{steps}:load_source",
        weights=f"{steps}:compare_weights",
        replay=f"{steps}:replay_module",
    )


def _tensorflow(methods: Sequence[Attempt]) -> Plan:
    steps = "mnnprep.formats.tensorflow.steps"
    return Plan(
        "tensorflow",
        ARTIFACTS["tf"].preload,
        f"{steps}:survey_source",
        f"{steps}:export_source",
        tuple(methods),
        replay=f"{steps}:replay_source",
    )


_TENSORFLOW = _tensorflow(
    (
        Attempt("freeze", "tf"),
        Attempt("onnx", "onnx", 13),
        Attempt("tflite", "tflite", precisions=("float16", "int8")),
    )
)
_MODULE = _torch((_ONNX_TRACE, _ONNX_EXPORT, _ONNX_TRACE_SEARCH, _ONNX_SCRIPT, _TRACE, _SCRIPT))

_CAFFE = Plan(
    "caffe",
    _CAFFE_PRELOAD,
    f"{_CAFFE_STEPS}:survey_pair",
    f"{_CAFFE_STEPS}:export_pair",
    (Attempt("upgrade", "caffe"), Attempt("onnx", "onnx", 13)),
    complete="mnnprep.formats.caffe.pair:complete",
    replay=f"{_CAFFE_STEPS}:replay_pair",
)

PLANS: dict[str, Plan] = {
    "onnx": Plan(
        "onnx",
        ("numpy", "onnx", "onnxruntime"),
        "mnnprep.formats.onnx.steps:survey_file",
        "mnnprep.formats.onnx.steps:export_file",
        (Attempt("copy", "onnx"), Attempt("opset", "onnx", 1, searches=True)),
        weights_in_file=True,
        replay="mnnprep.formats.onnx.steps:replay_file",
    ),
    "torch-factory": _MODULE,
    "torch-module": _MODULE,
    "live": _MODULE,
    "torchscript": _torch(
        (
            Attempt("onnx-trace", "onnx", 1),
            Attempt("onnx-trace", "onnx", 1, searches=True),
            Attempt("copy", "torchscript"),
        )
    ),
    "mnn": Plan(
        "mnn",
        MNN_PRELOAD,
        f"{_MNN_STEPS}:survey_file",
        f"{_MNN_STEPS}:copy",
        (Attempt("copy", "mnn"),),
        weights_in_file=True,
        replay=f"{_MNN_STEPS}:replay_file",
    ),
    "caffe-prototxt": _CAFFE,
    "caffemodel": _CAFFE,
    "exported-program": _torch((_ONNX_TRACE, _ONNX_EXPORT, _ONNX_TRACE_SEARCH, _TRACE)),
    **dict.fromkeys(
        ("savedmodel", "keras", "keras-h5", "frozen-graph", "tf-checkpoint", "tf-factory"), _TENSORFLOW
    ),
    "tflite": Plan(
        "tflite",
        ARTIFACTS["tflite"].preload,
        "mnnprep.formats.tflite.steps:survey_file",
        "mnnprep.formats.tflite.steps:export_file",
        (Attempt("copy", "tflite"), Attempt("onnx", "onnx", 13)),
        replay="mnnprep.formats.tflite.steps:replay_file",
    ),
}


def plan_of(kind: str) -> Plan:
    """The plan for a kind of source (KeyError for one that is not prepared)."""
    return PLANS[kind]


def likely_preload(source: str) -> tuple[str, ...]:
    """What the worker of *source* will import, to judge by its name alone (a factory: by its file's imports);
    empty where that says nothing.
    """
    if looks_like_factory(source):
        place = source.rpartition(":")[0]
        there = os.path.isfile(place) or not place.endswith(".py")
        return plan_of(factory_kind(place, [os.getcwd()])).preload if there else ()
    kinds = [
        row.kind
        for row in FORMATS
        if os.path.isfile(source) and row.kind in PLANS and row.suffixes and source.endswith(row.suffixes)
    ]
    return plan_of(kinds[0]).preload if kinds else ()
