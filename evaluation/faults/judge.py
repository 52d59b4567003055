"""Whether a planted fault is one, and whether a refused model was right: a judgement that uses nothing of
mnnprep.

Two nets are functions from arrays by name to a list of arrays.  ``moved`` searches inputs (seeds, scales,
sizes) for the largest difference, in tolerances; a fault counts from ``LEAST`` on.  The tolerance is written
out here a second time on purpose.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Net = Callable[[Arrays], list[np.ndarray[Any, Any]]]
LEAST = 3.0
SEEDS = 4
SCALES = (1.0, 4.0, 16.0)
ANOTHER = (
    1e9  # structure: another count, shape or dtype of the outputs, other non-finite places, a net that fails
)


def parse(
    inputs: Sequence[str], dims: Sequence[str], ranges: Sequence[str]
) -> tuple[dict[str, tuple[str, list[str]]], dict[str, tuple[int, int]], Any]:
    """``--input``, ``--dim`` and ``--range`` as plain data."""
    shapes = {}
    for text in inputs:
        name, _, rest = text.partition("=")
        dtype, _, sizes = rest.rstrip("]").partition("[")
        shapes[name] = (dtype, [s for s in sizes.split(",") if s])
    span = {t.partition("=")[0]: tuple(map(int, t.partition("=")[2].split(":"))) for t in dims}
    values = {t.partition("=")[0]: tuple(map(float, t.partition("=")[2].split(":"))) for t in ranges}
    return shapes, span, values  # type: ignore[return-value]


def searched(
    inputs: Sequence[str], dims: Sequence[str] = (), ranges: Sequence[str] = (), *, sizes: bool = True
) -> Iterator[Arrays]:
    """Inputs: at middling sizes every seed and scale, then (with *sizes*) both ends of every dimension and
    what lies between.
    """
    shapes, spans, values = parse(inputs, dims, ranges)
    middle = {n: min(high, max(low, (low + high) // 2)) for n, (low, high) in spans.items()}
    trials: list[tuple[dict[str, int], int, float]] = [
        (middle, s, c) for s, c in itertools.product(range(SEEDS), SCALES if not values else (1.0,))
    ]
    if sizes:
        for name, (low, high) in spans.items():
            trials += [
                (middle | {name: size}, 50 + size, 1.0)
                for size in sorted({low, low + 1, (low + 2 * high) // 3, high})
                if size <= high
            ]
    for at, seed, scale in trials:
        random = np.random.default_rng(1000 + seed)
        arrays: Arrays = {}
        for name, (dtype, shape) in shapes.items():
            extent = [int(s) if s.isdigit() else at[s] for s in shape]
            low, high = values.get(name, (0.0, 1.0))
            if dtype.startswith(("int", "uint", "bool")):
                arrays[name] = random.integers(int(low), int(high) + 1, extent).astype(dtype)
            elif name in values:
                arrays[name] = random.uniform(low, high, extent).astype(dtype)
            else:
                arrays[name] = (random.standard_normal(extent) * scale).astype(dtype)
        yield arrays


def distance(
    reference: Sequence[np.ndarray[Any, Any]],
    other: Sequence[np.ndarray[Any, Any]],
    noise: Sequence[float] | None = None,
) -> float:
    """The largest difference in tolerances: |a-b| / (max(1e-4 max|ref|, 10 noise, but at most 1e-2 max|ref|)
    + 1e-3 |ref|).
    """
    if len(reference) != len(other):
        return ANOTHER
    worst = 0.0
    for place, (a, b) in enumerate(zip(reference, other, strict=True)):
        if a.shape != b.shape:
            return ANOTHER
        if a.dtype.kind != "f" and b.dtype.kind != "f":
            worst = max(worst, ANOTHER if np.any(a != b) else 0.0)
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return ANOTHER
        x, y = np.where(np.isfinite(x), x, 0), np.where(np.isfinite(y), y, 0)
        peak = float(np.abs(x).max(initial=0.0))
        floor = min(max(1e-4 * peak, 10 * (noise[place] if noise else 0.0)), 1e-2 * peak)
        gap = np.abs(x - y)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(gap == 0, 0.0, gap / (floor + 1e-3 * np.abs(x)))
        worst = max(worst, float(np.nan_to_num(ratio, nan=0.0, posinf=ANOTHER).max(initial=0.0)))
    return min(worst, ANOTHER)


def moved(reference: Net, other: Net, trials: Iterator[Arrays]) -> float:
    """The largest difference over the inputs that the reference takes, in tolerances."""
    worst = 0.0
    for arrays in trials:
        try:
            wanted = reference(arrays)
        except Exception:  # the reference has no such size: nothing to differ from
            continue
        try:
            worst = max(worst, distance(wanted, other(arrays)))
        except Exception:
            return ANOTHER
    return worst


# --- runtimes, a few lines each -----------------------------------------------------------------------------


def onnx_double(path: str) -> Net:
    """An ONNX file in float64 by ONNX's reference implementation."""
    import onnx
    from onnx import TensorProto, numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)

    def widen(graph: Any) -> None:
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
                )
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                    attribute.t.CopyFrom(
                        numpy_helper.from_array(
                            numpy_helper.to_array(attribute.t).astype(np.float64), attribute.t.name
                        )
                    )
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.DOUBLE
                if attribute.HasField("g"):
                    widen(attribute.g)

    widen(model.graph)
    evaluator = ReferenceEvaluator(model)
    return lambda arrays: [
        np.asarray(a) for a in evaluator.run(None, {n: _wide(a) for n, a in arrays.items()})
    ]


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def onnx_single(path: str) -> Net:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda arrays: [np.asarray(a) for a in session.run(None, arrays)]


def caffe(prototxt: str, caffemodel: str) -> Net:
    import cv2

    net = cv2.dnn.readNetFromCaffe(prototxt, caffemodel)
    names = net.getUnconnectedOutLayersNames()

    def run(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        for name, array in arrays.items():
            net.setInput(array, name)
        return [np.array(a) for a in net.forward(names)]

    return run


def tflite(path: str) -> Net:
    from ai_edge_litert.interpreter import Interpreter

    def run(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        interpreter = Interpreter(model_path=path, num_threads=1)
        for detail, array in zip(interpreter.get_input_details(), arrays.values(), strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        for detail, array in zip(interpreter.get_input_details(), arrays.values(), strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()]

    return run


def mnn(
    path: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    layouts: Sequence[str] = (),
    hints: dict[int, int] | None = None,
) -> Net:
    """A converted model; the first call imports MNN, which may crash: for a process of its own."""
    import MNN.expr as F
    from MNN import nn

    config: dict[str, Any] = {"backend": "CPU", "precision": "high", "numThread": 1}
    manager = nn.create_runtime_manager((config,))
    for hint, value in (hints or {}).items():
        manager.set_hint(hint, value)
    module = nn.load_module_from_file(path, list(inputs), list(outputs), runtime_manager=manager)
    kinds = {
        "f": (F.float, np.float32),
        "i": (F.int, np.int32),
        "u": (F.int, np.int32),
        "b": (F.int, np.int32),
    }
    formats = {"NCHW": F.NCHW, "NHWC": F.NHWC, "NC4HW4": F.NCHW}

    def run(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        held = []
        for place, name in enumerate(inputs):
            array = arrays[name]
            kind, dtype = kinds[array.dtype.kind]
            layout = layouts[place] if layouts else "NCHW"
            var = F.placeholder(list(array.shape), formats[layout], kind)
            var.write(np.ascontiguousarray(array, dtype))
            held.append(F.convert(var, F.NC4HW4) if layout == "NC4HW4" else var)
        made = module.forward(held)
        made = made if isinstance(made, (list, tuple)) else [made]
        if len(made) != len(outputs):
            raise ValueError("MNN gave no outputs")
        read = []
        for var in made:
            dense = F.convert(var, F.NCHW) if var.data_format == F.NC4HW4 else var
            read.append(np.array(dense.read()).copy())
        return read

    return run
