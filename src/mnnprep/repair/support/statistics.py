"""BatchNormalization written out, with the statistics that it is given or with those of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match
from mnnprep.repair.support.building import FLOATS, Builder, asked
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import BATCH_NORM_PER_CHANNEL, TRAINING_MODE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand


def match_of(node: ir.Node, opset: int, view: ModelView, detail: str = "") -> Match[tuple[str, int]]:
    """The match of a BatchNormalization that is written out: its dtype and rank."""
    dtype, rank = view.dtype(node.inputs[0]), view.rank(node.inputs[0])
    training = bool(node.attributes.get_int("training_mode", 0))
    asks = any(asked(node, index) for index in range(1, len(node.outputs)))
    able = (
        dtype in FLOATS
        and rank is not None
        and rank >= 2
        and opset >= BATCH_NORM_PER_CHANNEL
        and (opset >= TRAINING_MODE or not (asks or training))
    )
    return Match(
        at=node, detail=detail, opset=opset, found=None if rank is None else (dtype, rank), repairable=able
    )


def in_training(node: ir.Node, opset: int) -> bool:
    """Whether a BatchNormalization takes the statistics of the batch: before opset 14, its outputs say so."""
    if opset < TRAINING_MODE:
        return len([output for output in node.outputs if output.name]) > 1
    return bool(node.attributes.get_int("training_mode", 0))


def write_out(editor: Editor, match: Match[tuple[str, int]]) -> bool:
    """Let what the BatchNormalization computes take its place."""
    node, opset, (dtype, rank) = match.node, match.opset, match.plan
    build, (x, scale, bias, mean, variance) = Builder(editor, node, opset), node.inputs[:5]
    others = (0, *range(2, rank))
    new: list[Operand] = [None, None]
    if in_training(node, opset):
        batch_mean = build.reduce("ReduceMean", x, others, keep=True)
        rest = build.op("Sub", x, batch_mean)
        batch_variance = build.reduce("ReduceMean", build.op("Mul", rest, rest), others, keep=True)
        moved = ((1, mean, batch_mean), (2, variance, batch_variance))
        new = [_moved(build, old, now, dtype) if asked(node, index) else None for index, old, now in moved]
        wide = batch_variance
    else:
        rest, wide = build.op("Sub", x, _per_channel(build, mean, rank)), _per_channel(build, variance, rank)
    epsilon = build.constant(np.array(node.attributes.get_float("epsilon", 1e-5)), dtype)
    deviation = build.op("Sqrt", build.op("Add", wide, epsilon))
    scaled = build.op("Mul", build.op("Div", rest, deviation), _per_channel(build, scale, rank))
    build.replace(build.op("Add", scaled, _per_channel(build, bias, rank)), *new)
    return True


def _per_channel(build: Builder, value: Operand, rank: int) -> ir.Value:
    return build.reshape(value, 1, -1, *[1] * (rank - 2))


def _moved(build: Builder, old: Operand, now: Operand, dtype: str) -> ir.Value:
    momentum = build.node.attributes.get_float("momentum", 0.9)
    kept = build.op("Mul", old, build.constant(np.array(momentum), dtype))
    return build.op(
        "Add", kept, build.op("Mul", build.reshape(now, -1), build.constant(np.array(1 - momentum), dtype))
    )
