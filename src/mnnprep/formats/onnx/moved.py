"""Operators that only move the values of a weight, taken out of a graph: the weight is stored moved.

An exporter that has the weights folds these itself.  Here nothing of a weight is read until it is written: a
moved weight is a :class:`~mnnprep.weights.plan.Made` tensor.  Operator facts: onnx/docs/Operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.formats.onnx import graph as graphs
from mnnprep.weights.plan import Made, Shape, Tensor

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto

Array = npt.NDArray[Any]
MOVING = frozenset({"Transpose", "Unsqueeze", "Squeeze", "Reshape", "Slice", "Concat", "Identity"})


@dataclass(frozen=True, eq=False)
class Turned(Made):
    """The matrix ``base``, transposed."""

    base: Tensor | None = None


def take_out(model: ModelProto, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove from *model* the nodes that only move *tensors* (values by name).

    Returns the tensors with the moved ones.
    """
    helper = require("onnx.numpy_helper")
    known = dict(tensors)
    constants = {t.name: t for t in model.graph.initializer}
    constants |= {
        n.output[0]: a.t
        for n in model.graph.node
        if n.op_type == "Constant"
        for a in n.attribute
        if a.name == "value"
    }
    outputs = {value.name for value in model.graph.output}

    def constant(name: str) -> list[int] | None:
        return (
            [int(v) for v in np.atleast_1d(helper.to_array(constants[name]))] if name in constants else None
        )

    rest = []
    for node in model.graph.node:
        moved = None
        if (
            node.op_type in MOVING
            and node.domain in graphs.STANDARD_DOMAINS
            and not outputs & set(node.output)
        ):
            moved = _move(node, known, constant)
        if moved is None:
            rest.append(node)
        else:
            known[node.output[0]] = moved
    del model.graph.node[:]
    model.graph.node.extend(rest)
    return known


def used_names(model: ModelProto) -> set[str]:
    """Every name that a node, also of a body, or the graph's outputs ask for."""
    return (
        {name for node in graphs.all_nodes(model.graph) for name in node.input}
        | {value.name for value in model.graph.output}
        | {
            value.name
            for node in graphs.all_nodes(model.graph)
            for body in graphs.subgraphs(node)
            for value in body.output
        }
    )


def _move(
    node: NodeProto, known: dict[str, Tensor], constant: Callable[[str], list[int] | None]
) -> Tensor | None:
    """Return what *node* makes of known weights; None if it takes anything else."""
    count = len(node.input) if node.op_type == "Concat" else 1
    inputs = [known.get(name) for name in node.input[:count]]
    found = [constant(name) if name else [] for name in node.input[count:]]
    parts = [t for t in inputs if t is not None]
    settings = [s for s in found if s is not None]
    known_all = len(parts) == len(inputs) and len(settings) == len(found)
    if not known_all or len({t.dtype for t in parts}) != 1:
        return None
    attributes: dict[str, Any] = {a.name: _value(a) for a in node.attribute}
    step = _step(node.op_type, attributes, settings, [t.shape for t in parts])
    if step is None:
        return None
    shape, apply = step
    if node.op_type == "Transpose" and len(shape) == 2:
        perm = list(attributes.get("perm", (1, 0)))
        if perm == [1, 0]:
            return Turned(parts[0].dtype, shape, (), make=partial(_made, apply, parts), base=parts[0])
    return Made(parts[0].dtype, shape, (), make=partial(_made, apply, parts))


def _made(apply: Callable[..., Array], parts: list[Tensor]) -> Array:
    return np.ascontiguousarray(apply([t.array() for t in parts]))


def _value(attribute: AttributeProto) -> int | list[int]:
    return list(attribute.ints) if attribute.ints else attribute.i


def _step(
    kind: str, attributes: dict[str, Any], settings: list[list[int]], shapes: list[Shape]
) -> tuple[Shape, Any] | None:
    """The shape that comes out, and the function on arrays."""
    if kind == "Concat":
        axis = attributes["axis"] % len(shapes[0])
        shape = tuple(sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))
        return shape, lambda arrays: np.concatenate(arrays, axis)
    (given,) = shapes
    if kind == "Identity":
        return given, lambda arrays: arrays[0]
    if kind == "Transpose":
        perm = attributes.get("perm") or list(range(len(given)))[::-1]
        return tuple(given[i] for i in perm), lambda arrays: arrays[0].transpose(perm)
    if kind == "Slice":
        return _slice(settings, given)
    if kind == "Reshape":
        shape = _reshaped(
            settings[0] if settings else attributes["shape"], given, bool(attributes.get("allowzero"))
        )
    else:
        shape = _squeezed(
            kind, settings[0] if settings and settings[0] else attributes.get("axes", []), given
        )
    return shape, lambda arrays: arrays[0].reshape(shape)


def _reshaped(wanted: list[int], given: Shape, allow_zero: bool) -> Shape:
    sizes = [given[i] if n == 0 and not allow_zero else n for i, n in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = math.prod(given) // max(1, -math.prod(sizes))
    return tuple(sizes)


def _squeezed(kind: str, axes: list[int], given: Shape) -> Shape:
    if kind == "Squeeze":
        gone = {a % len(given) for a in axes} if axes else {i for i, n in enumerate(given) if n == 1}
        return tuple(n for i, n in enumerate(given) if i not in gone)
    rank = len(given) + len(axes)
    new = {a % rank for a in axes}
    sizes: Iterator[int] = iter(given)
    return tuple(1 if i in new else next(sizes) for i in range(rank))


def _slice(settings: list[list[int]], given: Shape) -> tuple[Shape, Any] | None:
    if len(settings) < 2:
        return None  # before opset 10 they are attributes
    starts, ends = settings[:2]
    axes = (settings[2] if len(settings) > 2 else []) or list(range(len(starts)))
    steps = (settings[3] if len(settings) > 3 else []) or [1] * len(starts)
    if any(step < 1 for step in steps):
        return None
    where = [slice(None)] * len(given)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis % len(given)] = slice(start, end, step)
    shape = tuple(len(range(*w.indices(n))) for w, n in zip(where, given, strict=True))
    return shape, lambda arrays: arrays[0][tuple(where)]
