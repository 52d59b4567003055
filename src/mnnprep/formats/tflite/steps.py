"""The TFLite steps: survey the file, copy it or take it to ONNX, run it, compare its weights.

They run in workers.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.comparison.tolerance import DEQUANTIZED_SQNR
from mnnprep.comparison.weight_equivalence import match_folded
from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.tflite.biases import with_real_scales
from mnnprep.formats.tflite.dense import made_dense
from mnnprep.formats.tflite.net import TfliteNet, refuse_unsupported
from mnnprep.formats.tflite.requantize import HANDLERS, hard_swish
from mnnprep.formats.tflite.scan import (
    TfliteSummary,
    constants,
    constants_in,
    has_quantized_activations,
    input_scales,
    operators_of,
    scan_model,
    tensor_names,
)
from mnnprep.model.files import Arrays, FileRef, file_ref, load_arrays, save_arrays
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
from mnnprep.model.net import any_ranks
from mnnprep.model.running import run_cases
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from tf2onnx.graph import Graph as TensorGraph
    from tf2onnx.graph import Node as TensorNode

MODEL = "model.tflite"
HALF_OPSET = 13  # the first whose Cast has bfloat16


def survey_file(job: SurveyJob) -> Survey:
    """Survey a TFLite file with LiteRT's reference kernels; the format holds no training."""
    doing("loading the model in LiteRT")
    net = TfliteNet(job.source.path)
    doing("running the reference")
    found = survey(
        net,
        job.wants,
        ranks=lambda: any_ranks(net.summary.ops),
        steps=net.steps,
        borders=input_scales(Path(job.source.path)),
    )
    weights = Path(job.directory) / "weights.npz"
    save_arrays(
        weights,
        {
            f"used/{n}": a
            for n, a in parameters(_real_file(job.source.path, net.summary, Path(job.directory))).items()
        },
    )
    return Survey(
        signature=found.signature,
        cases=found.write(Path(job.directory)),
        checks=[catalog.INFERENCE_MODE.passed(), *found.checks],
        noise=found.noise,
        steps=found.steps,
        quantized=net.quantized(),
        exempt=found.exempt,
        weights=file_ref(weights),
        sweep=found.sweep,
        parameters=net.summary.parameters,
    )


def parameters(path: str) -> Arrays:
    """The floating constants of more than one element, quantized ones as the numbers they stand for."""
    return {n: a for n, a in constants(Path(path)).items() if a.dtype.kind == "f" and a.size > 1}


def is_quantized(summary: TfliteSummary) -> bool:
    """Whether any tensor is stored in integers that stand for real numbers."""
    return any(q.dtype.startswith(("int", "uint")) for q in summary.quantized)


def export_file(job: ExportJob) -> Exported:
    """Write the file itself (``copy``), or the same net by tf2onnx (``onnx``) without its quantization.

    Sparse weights are made dense for both.
    """
    summary = refuse_unsupported(Path(job.source.path))
    path = _dense_file(job.source.path, summary, Path(job.directory))
    notes = [f"made dense: {', '.join(summary.sparse[:5])}"] if summary.sparse else []
    if job.method == "copy":
        target = Path(job.directory) / MODEL
        if path != str(target):
            shutil.copyfile(path, target)
        return Exported(
            format="tflite",
            opset=0,
            files=[file_ref(target)],
            checks=[catalog.INFERENCE_MODE.passed(subject="artifact")],
            notes=notes,
        )
    return _to_onnx(job, _real_file(path, summary, Path(job.directory)), summary, notes)


def _dense_file(path: str, summary: TfliteSummary, directory: Path) -> str:
    """The model at *path*, or if it has sparse weights a dense one, written to *directory*."""
    if not summary.sparse:
        return path
    target = directory / MODEL
    target.write_bytes(made_dense(Path(path).read_bytes()))
    return str(target)


def _real_file(path: str, summary: TfliteSummary, directory: Path) -> str:
    """The model at *path* dense, its biases at the scales that its integer kernels take them at."""
    path = _dense_file(path, summary, directory)
    if not has_quantized_activations(summary):
        return path
    target = directory / "real-scales.tflite"
    target.write_bytes(with_real_scales(Path(path).read_bytes()))
    return str(target)


def _to_onnx(job: ExportJob, path: str, summary: TfliteSummary, notes: list[str]) -> Exported:
    from mnnprep.formats.onnx import graph as onnx_graph
    from mnnprep.formats.onnx.skeleton import skeleton

    rounds = has_quantized_activations(summary)
    dequantized = is_quantized(summary) and not rounds
    files = _onnx_files(path, summary, job.opset, Path(job.directory))
    model = skeleton(files[0].path)
    if rounds:
        notes = ["computes in floats what the file computes in integers, with every rounding of it", *notes]
    elif dequantized:
        notes = [
            (
                f"dequantized: {len(summary.quantized)} tensors, compared with the quantized reference at"
                f" {DEQUANTIZED_SQNR:g} dB"
            ),
            *notes,
        ]
    return Exported(
        format="onnx",
        opset=onnx_graph.opset_of(model),
        files=files,
        checks=[onnx_graph.inference_mode(model)],
        notes=notes,
        sqnr_db=DEQUANTIZED_SQNR if dequantized else None,
    )


def _onnx_files(path: str, summary: TfliteSummary, opset: int, directory: Path) -> list[FileRef]:
    """Write the net as ONNX by tf2onnx, without its quantization."""
    from mnnprep.formats.tensorflow.onnx_route import run, write

    require("tensorflow")
    tfonnx = require("tf2onnx.tfonnx")
    rounds = has_quantized_activations(summary)
    doing("converting with tf2onnx")
    inputs, outputs = [t.name for t in summary.inputs], [t.name for t in summary.outputs]
    handlers: dict[str, tuple[Any, list[Any]]] = {
        "TFL_GELU": (_gelu, []),
        "HardSwish": (hard_swish, []),
        **(HANDLERS if rounds else {}),
    }
    made = run(
        lambda: tfonnx.process_tf_graph(
            None,
            opset=opset,
            input_names=inputs,
            output_names=outputs,
            tflite_path=path,
            dequantize=not rounds and is_quantized(summary),
            custom_op_handlers=handlers,
        )
    )
    return write(made, directory, tensor_names(Path(path)), external=False)


def _gelu(graph: TensorGraph, node: TensorNode, _name: str, _arguments: list[Any]) -> None:
    """Write out TFLite's GELU, which tf2onnx leaves as it is.

    It is x (1 + erf(x / √2)) / 2, or with ``approximate`` x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
    (tensorflow/lite/kernels/internal/reference/gelu.h).
    """
    x, (output,) = node.input[0], node.output
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)

    def number(value: float) -> str:
        return str(graph.make_const(f"{output}/{value}", np.array(value, np.float32)).output[0])

    def op(operator: str, *inputs: str) -> str:
        return str(graph.make_node(operator, list(inputs), shapes=[shape], dtypes=[dtype]).output[0])

    if node.get_attr_value("approximate", False):
        cube = op("Mul", op("Mul", x, x), x)
        curve = op(
            "Tanh", op("Mul", op("Add", x, op("Mul", cube, number(0.044715))), number(math.sqrt(2 / math.pi)))
        )
    else:
        curve = op("Erf", op("Mul", x, number(math.sqrt(0.5))))
    graph.replace_all_inputs(output, op("Mul", op("Mul", x, number(0.5)), op("Add", curve, number(1.0))))
    graph.remove_node(node.name)


def run_model(job: RunJob) -> RunResult:
    """Run a TFLite artifact in LiteRT, with the kernels that an app gets."""
    return run_cases(job, lambda: TfliteNet(job.model, reference=False).run)


def run_half(job: HalfJob) -> RunResult:
    """Run a TFLite artifact with its numbers rounded to ``job.rounding``, by way of ONNX.

    Raises:
        RefusedError: tf2onnx can't express the model, or its ONNX form does not give the references.
    """
    from mnnprep.formats.onnx.half import run_half_form

    summary = refuse_unsupported(Path(job.model))
    if is_quantized(summary):
        raise RefusedError(
            "a quantized model computes in integers, which half precision does not round",
            seen=f"{len(summary.quantized)} quantized tensors",
            next="hold the target to an SQNR alone",
        )
    directory = Path(job.directory)
    form, *_ = _onnx_files(_dense_file(job.model, summary, directory), summary, HALF_OPSET, directory)
    return run_half_form(job, Path(form.path))


def locate(job: LocateJob) -> Located:
    """The operators asked for, or those that are not known, each with the first tensor it gives."""
    chosen = [
        (name, tensor)
        for name, tensor in operators_of(Path(job.model))
        if (name in job.operators if job.operators else name not in job.known)
    ]
    return Located(
        nodes=[f"{name} {tensor.partition(';')[0]}" for name, tensor in chosen]
    )  # of what was fused, the last


def compare_weights(job: WeightsJob) -> Check:
    """The ``weights`` check of a TFLite artifact."""
    doing("comparing the model's constants with the source's weights")
    held = constants(Path(job.model))
    if has_quantized_activations(scan_model(Path(job.model))):
        held = constants_in(with_real_scales(Path(job.model).read_bytes()))
    return match_folded(load_arrays(job.source), held)


def replay_file(job: ReplayJob) -> Replayed:
    """Run the file on another source's cases."""
    doing("loading the model in LiteRT")
    return replay(TfliteNet(job.source.path), job)
