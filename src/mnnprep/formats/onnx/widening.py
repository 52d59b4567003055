"""The step that searches inputs on which the values inside an ONNX graph go further than before."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.net import OnnxNet, open_session
from mnnprep.formats.onnx.outline import sizes_at
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.files import Arrays
from mnnprep.model.running import case_inputs
from mnnprep.model.searching import Searched, SearchJob
from mnnprep.reference.widening import ELEMENT, MOST_VALUES, Run, search
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

# Operators that hand on, add or scale: what they take shows in what comes after.
PLAIN = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Concat", "Constant", "ConstantOfShape", "Conv",
        "ConvTranspose", "DepthToSpace", "Expand", "Flatten", "Gemm", "GlobalAveragePool", "Identity",
        "MatMul", "Pad", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub",
        "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
COMPARING = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
WIDTH = 4  # bytes of a number
CONSTANTS = 64  # of the model, that inputs are given


def widen(job: SearchJob) -> Searched:
    """Search inputs for an ONNX model; see :func:`mnnprep.reference.widening.search`.

    Raises:
        RefusedError: onnxruntime can't load the model.
    """
    doing("searching inputs that take the model's values further")
    model = skeleton(job.model)
    shapes = {name: array.shape for name, array in case_inputs(job.cases[0].file.path).items()}
    watched = _watched(model)

    def watch() -> Run:
        session = watching_session(job.model, watched, Path(job.directory))

        def run(arrays: Arrays) -> Arrays:
            values = zip(watched, OnnxNet.compute(session, arrays, watched), strict=True)
            return {name: np.asarray(value) for name, value in values if hasattr(value, "dtype")}

        return run

    return search(job, _work(model, shapes), constants_of(model), watch)


def _work(model: ModelProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """The work of one run of *model*, in multiplications; its weights' sizes are read, not their values."""
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    total = sum(math.prod(shape) for shape in shapes.values())
    unknown = 4 * WIDTH * total  # the bytes of a value whose size ONNX does not infer
    known = sizes_at(model, shapes)
    for node in model.graph.node:
        outputs = sum(known.get(name, unknown) // WIDTH for name in node.output if name)
        weight = next(
            (weights[name] for name in node.input if name in weights and len(weights[name]) > 1), ()
        )
        if node.op_type in ("Conv", "ConvTranspose") and weight:
            total += outputs * math.prod(weight[1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += outputs * (weight[0] if weight else ELEMENT)
        elif node.op_type in ("LSTM", "GRU", "RNN") and weight:
            total += outputs * 4 * weight[-1]
        total += outputs * ELEMENT
    return max(total, 1)


def constants_of(model: ModelProto) -> tuple[float, ...]:
    """The numbers of *model* that its values are compared or combined with one by one, each once."""
    scalars = graphs.scalar_constants(model.graph).values()
    found = [float(v) for v in scalars if isinstance(v, int | float) and math.isfinite(v)]
    for node in graphs.all_nodes(model.graph):
        found += [a.f for a in node.attribute if a.name in ("min", "max", "alpha", "lambd", "threshold")]
    return tuple(sorted(dict.fromkeys(found)))[:CONSTANTS]


def _watched(model: ModelProto) -> list[str]:
    """The values of the main graph that a nonlinear operator takes, and the graph's outputs."""
    fixed = graphs.follow_constants(model.graph)
    made = {name for node in model.graph.node for name in node.output if name}
    taken = [
        name
        for node in model.graph.node
        if node.op_type not in PLAIN
        for name in node.input
        if name in made and name not in fixed
    ]
    taken += [n.output[0] for n in model.graph.node if n.op_type in COMPARING and n.output[0] not in fixed]
    return list(dict.fromkeys([*taken, *(o.name for o in model.graph.output)]))[:MOST_VALUES]


def watching_session(path: str, names: Sequence[str], directory: Path) -> InferenceSession:
    """The model in a file as it is written, with the values *names* as outputs, too.

    They are added as in :mod:`mnnprep.formats.onnx.probe`.

    Raises:
        RefusedError: onnxruntime can't load it.
    """
    onnx = require("onnx")
    target = directory / "watched.onnx"
    shutil.copyfile(path, target)
    stated = {o.name for o in skeleton(path).graph.output}
    extra = onnx.ModelProto()
    for name in names:
        if name not in stated:
            extra.graph.output.add(name=name)
    with target.open("ab") as file:
        file.write(extra.SerializePartialToString())
    try:
        return open_session(str(target), optimize=False, data_directory=str(Path(path).parent.absolute()))
    finally:
        target.unlink()
