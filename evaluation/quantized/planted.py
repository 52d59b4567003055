"""Forty faults planted in quantized artifacts: ``python -m evaluation.quantized.planted DIR``.

DIR holds the files that ``evaluation.quantized.make`` writes.  A fault changes one scale by 2 %, swaps two
zero points, lays a weight's scales along another axis, or rounds halves the other way.  The survey, the run
and the checks are those of ``prepare``; the same artifact without the fault must pass them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mnnprep.comparison.outputs import compared
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status
from mnnprep.formats.onnx import steps as onnx_steps
from mnnprep.formats.tflite import steps as tflite_steps
from mnnprep.model.messages import ExportJob, InputSpecs, RunJob, Source, Survey, SurveyJob, WeightsJob

FACTOR = 1.02
Model = onnx.ModelProto
# the nets whose artifacts a fault of each kind is planted in, by the file's name
SCALES = (
    "plain.int8.tflite attention.int8.tflite residual.fake-quant.tflite gated.uint8.tflite"
    " leaky.int8.tflite plain.qdq.onnx residual.qdq.onnx swish.qdq.onnx concatenated.qdq-uint8.onnx"
    " perceptron.qdq.onnx"
)
ZEROS = (
    "concatenated.int8.tflite decoder.int8.tflite depthwise.uint8.tflite deconvolution.uint8.tflite"
    " gated.per-tensor.tflite plain.qdq-per-channel.onnx residual.qdq-per-channel.onnx swish.qdq.onnx"
    " concatenated.qdq-uint8.onnx normalized.qdq-uint8.onnx"
)
AXES = (
    "plain.int8.tflite depthwise.int8-float-io.tflite deconvolution.int8-float-io.tflite"
    " residual.fake-quant.tflite concatenated.int8.tflite plain.qdq-per-channel.onnx"
    " residual.qdq-per-channel.onnx swish.qdq-per-channel.onnx perceptron.qdq-per-channel.onnx"
    " deconvolution.qdq-per-channel.onnx"
)
HALVES = (
    "classifier.int8-float-io.tflite decoder.int8-float-io.tflite residual.fake-quant.tflite"
    " sequence.fake-quant.tflite plain.qdq.onnx residual.qdq.onnx perceptron.qdq.onnx swish.qdq.onnx"
    " sequence.qdq-uint8.onnx saturating.qdq-uint8.onnx"
)


class Planted(NamedTuple):
    """What the checks say of an artifact with and without a fault."""

    file: str
    fault: str
    sound: str
    faulty: str


def _constant(model: Model, value: Any, like: str = "") -> str:
    name = f"planted_{len(model.graph.initializer)}_{like}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _values(model: Model) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _users(model: Model) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _quantizing(model: Model) -> list[tuple[Any, Any]]:
    """The nodes that divide by a scale and add a zero point, in order; of QuantizeLinear both are one."""
    values, users = _values(model), _users(model)
    found = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            found.append((node, node))
        elif node.op_type == "Div" and values.get(node.input[1], np.zeros(2)).size == 1:
            after = node
            while after is not None and not (after.op_type == "Add" and _bounded(users, after)):
                after = next(iter(users.get(after.output[0], [])), None)
            if after is not None:
                found.append((node, after))
    return found


def _bounded(users: dict[str, list[Any]], node: Any) -> bool:
    """Whether the node's result is clipped: then it has the zero point, or is the whole sum."""
    return any(n.op_type in ("Max", "Sign", "Abs") for n in users.get(node.output[0], []))


def scale(model: Model) -> None:
    """A scale in the middle of the net, 2 % too large."""
    nodes = _quantizing(model)
    node, _ = nodes[len(nodes) // 2]
    node.input[1] = _constant(model, (_values(model)[node.input[1]] * FACTOR).astype(np.float32))


def zero_points(model: Model) -> None:
    """The zero points of two tensors that have different ones, swapped."""
    values = _values(model)
    adders = [(n, 2 if n.op_type == "QuantizeLinear" else 1) for _, n in _quantizing(model)]
    first, place = adders[0]
    for other, at in reversed(adders):
        if int(values[other.input[at]]) != int(values[first.input[place]]):
            first.input[place], other.input[at] = other.input[at], first.input[place]
            return
    raise ValueError("all zero points are the same")


def axis(model: Model) -> None:
    """The scales of the first weight laid along another axis."""
    values = _values(model)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and values.get(node.input[1], np.zeros(1)).size > 1:
            node.input[1] = _constant(model, np.roll(values[node.input[1]], 1))
            return
        if node.op_type in ("Conv", "ConvTranspose", "MatMul") and node.input[1] in values:
            weight = values[node.input[1]]
            around = tuple(range(1, weight.ndim))
            sizes = np.abs(weight).max(around, keepdims=True)
            along = np.resize(sizes.reshape(-1), weight.shape[1]).reshape(1, -1, *[1] * (weight.ndim - 2))
            node.input[1] = _constant(model, (weight / sizes * along).astype(np.float32))
            return
    raise ValueError("no weight has a scale for each channel")


def halves(model: Model) -> None:
    """The halves of the first quantization rounded to even where they go away from zero, or the reverse."""
    divide, _ = _quantizing(model)[0]
    if divide.op_type == "Div":
        users = _users(model)
        sign = next(n for n in users[divide.output[0]] if n.op_type == "Sign")
        product = next(n for n in users[sign.output[0]] if n.op_type == "Mul")
        product.CopyFrom(helper.make_node("Round", [divide.output[0]], list(product.output)))
        return
    x, by, zero = divide.input
    values = _values(model)
    kind, half = values[zero].dtype, _constant(model, np.float32(0.5))
    low, high = (_constant(model, np.float32(e)) for e in (np.iinfo(kind).min, np.iinfo(kind).max))
    point = _constant(model, values[zero].astype(np.float32))
    lines = (
        ("Div", [x, by], "h0"),
        ("Sign", ["h0"], "h1"),
        ("Abs", ["h0"], "h2"),
        ("Add", ["h2", half], "h3"),
        ("Floor", ["h3"], "h4"),
        ("Mul", ["h1", "h4"], "h5"),
        ("Add", ["h5", point], "h6"),
        ("Max", ["h6", low], "h7"),
        ("Min", ["h7", high], "h8"),
    )
    made = [helper.make_node(op, given, [out]) for op, given, out in lines]
    to = helper.np_dtype_to_tensor_dtype(kind)
    made.append(helper.make_node("Cast", ["h8"], [divide.output[0]], to=to))
    nodes = list(model.graph.node)
    place = nodes.index(divide)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *made, *nodes[place + 1 :]])


FAULTS: dict[str, tuple[Callable[[Model], None], str]] = {
    "scale": (scale, SCALES),
    "zero points": (zero_points, ZEROS),
    "axis": (axis, AXES),
    "halves": (halves, HALVES),
}


def judged(model: Path, survey: Survey, directory: Path, *, weights: bool) -> str:
    """The checks that the artifact at *model* fails; empty if it fails none."""
    directory.mkdir()
    ran = onnx_steps.run_model(
        RunJob(model=str(model), cases=survey.cases, signature=survey.signature, directory=str(directory))
    )
    tolerance = Tolerance(noise=survey.noise, steps=survey.steps)
    checks = [compared(survey, catalog.ARTIFACT_COMPARE, ran, {}, tolerance)]
    if weights and survey.weights is not None:
        job = WeightsJob(model=str(model), source=survey.weights.path)
        checks.append(onnx_steps.compare_weights(job))
    return "; ".join(f"{c.check}: {c.reason}" for c in checks if c.status is not Status.PASSED)


def planted(path: Path, fault: str) -> Planted:
    """Plant *fault* in the artifact of the file at *path*."""
    plant, _ = FAULTS[fault]
    lite = path.suffix == ".tflite"
    steps: Any = tflite_steps if lite else onnx_steps
    with TemporaryDirectory() as temporary:
        source = Source(kind="tflite" if lite else "onnx", path=str(path))
        places = [Path(temporary) / name for name in ("survey", "export", "planted")]
        for place in places:
            place.mkdir()
        survey = steps.survey_file(SurveyJob(source=source, wants=InputSpecs(), directory=str(places[0])))
        exported = steps.export_file(
            ExportJob(
                source=source,
                wants=InputSpecs(),
                method="onnx" if lite else "copy",
                opset=13 if lite else 0,
                directory=str(places[1]),
            )
        )
        sound = Path(exported.files[0].path)
        model = onnx.load(sound)
        plant(model)
        faulty = places[2] / "model.onnx"
        onnx.save(model, faulty)
        return Planted(
            path.name,
            fault,
            judged(sound, survey, Path(temporary) / "sound", weights=lite),
            judged(faulty, survey, Path(temporary) / "faulty", weights=lite),
        )


def run(directory: Path) -> Iterator[Planted]:
    """Plant every fault, one after the other."""
    for fault, (_, files) in FAULTS.items():
        for name in files.split():
            yield planted(directory / name, fault)


def main(directory: Path) -> None:
    """Print a line for each fault, and how many were found."""
    found = alarms = count = 0
    for one in run(directory):
        count, found, alarms = count + 1, found + bool(one.faulty), alarms + bool(one.sound)
        told = f"found: {one.faulty[:110]}" if one.faulty else "MISSED"
        sys.stdout.write(f"{one.file:36} {one.fault:12} {told}\n")
        if one.sound:
            sys.stdout.write(f"{'':36} {'':12} FALSE ALARM without it: {one.sound[:110]}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{found} of {count} found, {alarms} false alarms\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
