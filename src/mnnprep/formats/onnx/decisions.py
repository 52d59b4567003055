"""The step that tells a decision on the inputs' own values from one on values that were computed.

At a tie, a threshold or a half a graph may decide either way, and the last bit of what comes there decides.
Where that was computed, every kernel has another last bit: what a runtime then decides says nothing of it.
But where the inputs themselves come, only moved, chosen and compared, there is no rounding: each runtime must
decide alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.formats.onnx.outline import taken
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.onnx.widening import watching_session
from mnnprep.model.running import case_inputs
from mnnprep.model.searching import Decisions, DecisionsJob
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]

# Operators whose result jumps.
DECIDING = frozenset(
    {
        "ArgMax", "ArgMin", "Cast", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less",
        "LessOrEqual", "Mod", "NonMaxSuppression", "NonZero", "QuantizeLinear", "Round", "Shrink", "Sign",
        "ThresholdedRelu", "TopK", "Unique",
    }
)  # fmt: skip
# Operators that give one of the numbers they take, or a comparison of them: no kernel rounds.
EXACT = DECIDING - {"Mod", "QuantizeLinear"} | {
    "Abs", "And", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Identity", "Max", "MaxPool", "Min", "Neg", "Not", "Or", "Pad", "Relu", "Reshape", "Shape",
    "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
# Operators that round once, as IEEE 754 says, where they take exact numbers: every kernel alike.
ROUNDED_ONCE = frozenset({"Add", "Mul", "Sub"})
JUMP = 1e-3  # of the largest result: less is a value that moves with its input


def decisions(job: DecisionsJob) -> Decisions:
    """See which nodes decide otherwise on the moved inputs, and whether rounded values come to them.

    A node behind one of another decision is not counted: it follows that.

    Raises:
        RefusedError: onnxruntime can't load the model.
        Refused: it does not take the inputs.
    """
    doing("looking at the decisions of the model")
    model = skeleton(job.model)
    nodes = [n for n in model.graph.node if n.op_type in DECIDING and n.output and n.output[0]]
    names = [n.output[0] for n in nodes]
    if not names:
        return Decisions(exact=[], rounded=[])
    session = watching_session(job.model, names, Path(job.directory))
    first = OnnxNet.compute(session, case_inputs(job.case.file.path), names)
    turned: set[str] = set()
    for case in job.moved:
        again = OnnxNet.compute(session, case_inputs(case.file.path), names)
        turned |= {n for n, a, b in zip(names, first, again, strict=True) if jumped(a, b)}
    exact, behind = _exact(model), _behind(model, turned)
    first_ones = [n for n in nodes if n.output[0] in turned and n.output[0] not in behind]
    return Decisions(
        exact=[graphs.label(n) for n in first_ones if all(i in exact for i in n.input if i)],
        rounded=[graphs.label(n) for n in first_ones if not all(i in exact for i in n.input if i)],
    )


def jumped(first: Array, again: Array) -> bool:
    """Whether a result is another one, not only moved in its last digits."""
    if first.shape != again.shape:
        return True
    if first.dtype.kind != "f":
        return bool((first != again).any())
    gap = np.abs(first.astype(np.float64) - again)
    return bool((gap > JUMP * max(float(np.abs(first).max(initial=0.0)), 1e-30)).any())


def _exact(model: ModelProto) -> set[str]:
    """The values that are the inputs' and constants' own, moved and chosen; or rounded once on their way."""
    own = {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer}
    own |= graphs.follow_constants(model.graph)
    once = set(own)
    for node in model.graph.node:
        taken_ones = [name for name in node.input if name]
        if node.op_type in EXACT and all(name in own for name in taken_ones):
            own.update(filter(None, node.output))
            once.update(filter(None, node.output))
        elif (node.op_type in EXACT and all(name in once for name in taken_ones)) or (
            node.op_type in ROUNDED_ONCE and all(name in own for name in taken_ones)
        ):
            once.update(filter(None, node.output))
    return once


def _behind(model: ModelProto, turned: set[str]) -> set[str]:
    """The values that one of *turned* reaches, without those that none before reaches."""
    found: set[str] = set()
    for node in model.graph.node:
        if any(name in turned or name in found for name in taken(node)):
            found.update(filter(None, node.output))
    return found


DECISIONS = Step.of(decisions, RUNTIME)
