"""Faults in ONNX graphs that show for some values alone: each a rewrite of a right graph at one place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Rewrite = Callable[[Any], None]  # of a graph
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
node = helper.make_node


@dataclass(frozen=True)
class Planted:
    """A fault: its kind, where it is, and what puts it in."""

    kind: str
    place: str
    rewrite: Rewrite


class OnnxGraph:
    """An ONNX file: its values, and the places for faults in it."""

    def __init__(self, path: Path) -> None:
        self._model = onnx.load(path)
        probed = copy.deepcopy(self._model)
        fixed = {o for n in probed.graph.node if n.op_type == "Constant" for o in n.output}
        every = [o for n in probed.graph.node for o in n.output if o and o not in fixed]
        stated = {o.name for o in probed.graph.output}
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in every if name not in stated)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(probed.SerializeToString(), options)
        kinds = {o.name: o for o in self._session.get_outputs()}
        self.names = [n for n in every if kinds[n].type == "tensor(float)" and kinds[n].shape != []]

    def values(self, names: Sequence[str], arrays: Arrays) -> Arrays:
        return dict(zip(names, self._session.run(list(names), arrays), strict=True))

    def scalars(self) -> list[float]:
        tensors = [*self._model.graph.initializer]
        constants = [n for n in self._model.graph.node if n.op_type == "Constant"]
        tensors += [a.t for n in constants for a in n.attribute if a.name == "value"]
        arrays = [numpy_helper.to_array(t) for t in tensors]
        return [float(a.reshape(-1)[0]) for a in arrays if a.size == 1]

    def save(self, planted: Planted, path: Path) -> None:
        changed = copy.deepcopy(self._model)
        planted.rewrite(changed)
        del changed.graph.value_info[:]
        onnx.checker.check_model(changed)
        onnx.save(changed, path)

    def bent(self, kind: str, value: str, bound: float, end: float, by: float, way: str) -> Rewrite:
        if kind == "between":
            return between(value, bound, end, by)
        if kind == "mean":
            return mean_beyond(value, bound, 0.7)
        return beyond(value, bound, way, below=kind == "below")

    def special(self, random: np.random.Generator) -> Iterator[Planted]:
        return special(self._model, random)


class Splice:
    """Nodes between a value and all that take it: written from ``taken``, the last one giving ``given``."""

    def __init__(self, model: onnx.ModelProto, value: str) -> None:
        self.graph, self.value = model.graph, value
        self._nodes: list[onnx.NodeProto] = []
        inputs = {i.name for i in model.graph.input}
        self.taken, self.given = (value, f"{value}_seen") if value in inputs else (f"{value}_right", value)

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"{self.value}_fault{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{self.value}_made{len(self._nodes)}"
        self._nodes.append(node(op, list(inputs), [output], name=f"{output}_node", **attributes))
        return output

    def done(self) -> None:
        nodes = list(self.graph.node)
        place = 0
        for number, there in enumerate(nodes):
            if self.value in there.output:
                there.output[list(there.output).index(self.value)] = self.taken
                place = number + 1
            elif self.taken == self.value:
                there.input[:] = [self.given if name == self.value else name for name in there.input]
        for offset, made in enumerate(self._nodes):
            self.graph.node.insert(place + offset, made)


def _bent(way: str, splice: Splice, bound: float) -> str:
    """What a value beyond *bound* becomes."""
    if way == "stops":
        return splice.constant(bound)
    if way == "vanishes":
        return splice.constant(0.0)
    factor = splice.constant(-1.0 if way == "turns" else 0.6)
    return splice.add("Mul", [splice.taken, factor])


WAYS = ("stops", "vanishes", "turns", "shrinks")


def beyond(value: str, bound: float, way: str, *, below: bool = False) -> Rewrite:
    """Another value beyond *bound* (*below* it): an activation that saturates early, a table past its end."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        other = _bent(way, splice, bound)
        is_there = splice.add("Less" if below else "Greater", [splice.taken, splice.constant(bound)])
        splice.add("Where", [is_there, other, splice.taken], splice.given)
        splice.done()

    return rewrite


def between(value: str, low: float, high: float, by: float) -> Rewrite:
    """An offset between two bounds: one wrong piece of a piecewise function."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        above = splice.add("Greater", [splice.taken, splice.constant(low)])
        under = splice.add("Less", [splice.taken, splice.constant(high)])
        inside = splice.add("And", [above, under])
        moved = splice.add("Add", [splice.taken, splice.constant(by)])
        splice.add("Where", [inside, moved, splice.taken], splice.given)
        splice.done()

    return rewrite


def near_zero(value: str, reach: float) -> Rewrite:
    """A divisor kept away from zero further than it should be."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        small = splice.add("Less", [splice.add("Abs", [splice.taken]), splice.constant(reach)])
        splice.add("Where", [small, splice.constant(reach), splice.taken], splice.given)
        splice.done()

    return rewrite


def mean_beyond(value: str, bound: float, by: float) -> Rewrite:
    """All of a value wrong where the mean of a row of it passes *bound*."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        mean = splice.add("ReduceMean", [splice.taken], axes=[-1], keepdims=1)
        above = splice.add("Greater", [mean, splice.constant(bound)])
        moved = splice.add("Mul", [splice.taken, splice.constant(by)])
        splice.add("Where", [above, moved, splice.taken], splice.given)
        splice.done()

    return rewrite


# --- at operators of one kind


def _nodes(model: onnx.ModelProto, *ops: str) -> list[tuple[int, onnx.NodeProto]]:
    return [(n, found) for n, found in enumerate(model.graph.node) if found.op_type in ops]


def operator(place: int, op: str) -> Rewrite:
    """A comparison with or without equality."""

    def rewrite(model: onnx.ModelProto) -> None:
        model.graph.node[place].op_type = op

    return rewrite


def half_up(place: int) -> Rewrite:
    def rewrite(model: onnx.ModelProto) -> None:
        there = model.graph.node[place]
        taken, given = there.input[0], there.output[0]
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5).reshape(()), f"{given}_half"))
        there.op_type = "Floor"
        there.input[0] = f"{given}_raised"
        model.graph.node.insert(
            place, node("Add", [taken, f"{given}_half"], [f"{given}_raised"], name=f"{given}_fault")
        )

    return rewrite


def last_of_ties(place: int) -> Rewrite:
    def rewrite(model: onnx.ModelProto) -> None:
        there = model.graph.node[place]
        kept = [a for a in there.attribute if a.name != "select_last_index"]
        del there.attribute[:]
        there.attribute.extend([*kept, helper.make_attribute("select_last_index", 1)])

    return rewrite


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto | None:
    found = next((t for t in model.graph.initializer if t.name == name), None)
    if found is None:
        for there in model.graph.node:
            if there.op_type == "Constant" and there.output[0] == name:
                found = next(a.t for a in there.attribute if a.name == "value")
    return found


def scalar(name: str, value: float) -> Rewrite:
    """Another constant: a bound or a threshold."""

    def rewrite(model: onnx.ModelProto) -> None:
        tensor = _tensor(model, name)
        assert tensor is not None
        right = numpy_helper.to_array(tensor)
        kept = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(right, value), kept))

    return rewrite


def row(name: str, number: int, factor: float) -> Rewrite:
    """One row of a table."""

    def rewrite(model: onnx.ModelProto) -> None:
        tensor = _tensor(model, name)
        assert tensor is not None
        table = numpy_helper.to_array(tensor).copy()
        table[number] *= np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))

    return rewrite


def at_mask(value: str, count: int, length: int, *, more: bool) -> Rewrite:
    """A row of a mask taken for all ones where at most (at least) *count* of its elements are set."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        axes = splice.constant([-1], np.int64)
        ones = splice.add("ReduceSum", [splice.taken, axes], keepdims=1)
        bound = splice.constant(count, np.int64)
        odd = splice.add("Less" if not more else "Greater", [ones, bound])
        filled = splice.constant(np.ones((1, length)), np.int64)
        other = splice.constant(np.eye(1, length), np.int64) if more else filled
        splice.add("Where", [odd, other, splice.taken], splice.given)
        splice.done()

    return rewrite


def holes_filled(value: str, length: int) -> Rewrite:
    """A mask read as a length: as many ones at the front as it has, wherever they are."""

    def rewrite(model: onnx.ModelProto) -> None:
        splice = Splice(model, value)
        ones = splice.add("ReduceSum", [splice.taken, splice.constant([-1], np.int64)], keepdims=1)
        front = splice.add("Less", [splice.constant(np.arange(length)[None], np.int64), ones])
        splice.add("Cast", [front], splice.given, to=TensorProto.INT64)
        splice.done()

    return rewrite


SWAPPED = {
    "GreaterOrEqual": "Greater",
    "Greater": "GreaterOrEqual",
    "Less": "LessOrEqual",
    "LessOrEqual": "Less",
}


def special(model: onnx.ModelProto, random: np.random.Generator) -> Iterator[Planted]:
    """Faults at the operators that a graph has."""
    for place, there in _nodes(model, *SWAPPED):
        yield Planted("equality", there.name, operator(place, SWAPPED[there.op_type]))
    for place, there in _nodes(model, "Round"):
        yield Planted("halves", there.name, half_up(place))
    for place, there in _nodes(model, "ArgMax"):
        yield Planted("tie", there.name, last_of_ties(place))
    for _, there in _nodes(model, "Clip"):
        for name in there.input[1:]:
            tensor = _tensor(model, name) if name else None
            if tensor is not None:
                right = float(numpy_helper.to_array(tensor))
                by = float(random.choice([0.8, 1.25, 0.9, 1.5])) if right else -0.3
                yield Planted("bound", there.name, scalar(name, right * by if right else by))
    for _, there in _nodes(model, *SWAPPED):
        tensor = _tensor(model, there.input[1])
        if tensor is not None and numpy_helper.to_array(tensor).dtype == np.float32:
            right = float(numpy_helper.to_array(tensor).reshape(-1)[0])
            yield Planted("threshold", there.name, scalar(there.input[1], right * 1.1 + 0.02))
    for _, there in _nodes(model, "Gather"):
        tensor = _tensor(model, there.input[0])
        if tensor is not None and len(tensor.dims) == 2 and tensor.dims[0] > 50:
            rows = tensor.dims[0]
            for number in (0, rows - 1, *random.integers(1, rows - 1, 10)):
                yield Planted("row", f"{there.name} row {number}", row(there.input[0], int(number), -1.5))
    for _, there in _nodes(model, "Mod"):
        value = there.output[0]
        yield Planted("sign", there.name, beyond(value, -float(random.uniform(5, 23)), "turns", below=True))
    for _, there in _nodes(model, "Div"):
        if _tensor(model, there.input[1]) is None:
            yield Planted("division", there.name, near_zero(there.input[1], float(random.uniform(0.05, 0.3))))
    for _, there in _nodes(model, "Pow"):
        if there.input[0] in {i.name for i in model.graph.input}:
            yield Planted("negative base", there.name, beyond(there.output[0], -1.0, "turns", below=True))
    for mask in (i for i in model.graph.input if i.name == "mask"):
        length = mask.type.tensor_type.shape.dim[1].dim_value
        for count in (2, 3, 4):
            yield Planted("mask", f"fewer than {count}", at_mask(mask.name, count, length, more=False))
        for count in (length - 1, length - 3):
            yield Planted("mask", f"more than {count}", at_mask(mask.name, count, length, more=True))
        yield Planted("mask", "holes", holes_filled(mask.name, length))
