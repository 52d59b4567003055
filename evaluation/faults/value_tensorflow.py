"""Faults in TensorFlow graphs that show for some values alone: what ``value_onnx`` plants in ONNX files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from evaluation.faults.judge import Arrays, Net
from evaluation.faults.value_onnx import Planted

v1 = tf.compat.v1
FLOAT = tf.float32.as_datatype_enum
SWAPPED = {"GreaterEqual": "Greater", "Greater": "GreaterEqual", "Less": "LessEqual", "LessEqual": "Less"}


class TensorFlowGraph:
    """A frozen graph: its values, and the places for faults in it."""

    def __init__(self, path: Path) -> None:
        self._definition = v1.GraphDef.FromString(path.read_bytes())
        self._graph = tf.Graph()
        with self._graph.as_default():
            tf.import_graph_def(self._definition, name="")
        self._session = v1.Session(graph=self._graph)
        fixed = {n.name for n in self._definition.node if n.op in ("Const", "Placeholder")}
        made = [op for op in self._graph.get_operations() if op.name not in fixed and op.outputs]
        kinds = {op.name: op.outputs[0] for op in made}
        self.names = [name for name, t in kinds.items() if t.dtype == tf.float32 and t.shape.rank]

    def values(self, names: Sequence[str], arrays: Arrays) -> Arrays:
        fed = {f"{name}:0": array for name, array in arrays.items()}
        found = self._session.run([f"{name}:0" for name in names], fed)
        return dict(zip(names, map(np.asarray, found), strict=True))

    def scalars(self) -> list[float]:
        arrays = [tf.make_ndarray(n.attr["value"].tensor) for n in self._definition.node if n.op == "Const"]
        return [float(a.reshape(-1)[0]) for a in arrays if a.size == 1]

    def save(self, planted: Planted, path: Path) -> None:
        changed = copy.deepcopy(self._definition)
        planted.rewrite(changed)
        path.write_bytes(changed.SerializeToString())

    def bent(self, kind: str, value: str, bound: float, end: float, by: float, way: str) -> Any:
        def rewrite(graph: Any) -> None:
            splice = Splice(graph, value)
            taken = splice.taken
            number = splice.constant
            if kind == "between":
                sides = [splice.compare("Greater", taken, bound), splice.compare("Less", taken, end)]
                inside = splice.add("LogicalAnd", sides, None)
                splice.choose(inside, splice.add("AddV2", [taken, number(by)]))
            elif kind == "mean":
                axes = splice.constant([-1], np.int32)
                mean = splice.add("Mean", [taken, axes], keep_dims=True, Tidx=tf.int32)
                full = splice.add("AddV2", [mean, splice.add("Mul", [taken, number(0.0)])])
                splice.choose(splice.compare("Greater", full, bound), splice.add("Mul", [taken, number(0.7)]))
            else:
                other = {"stops": bound, "vanishes": 0.0}.get(way)
                factor = -1.0 if way == "turns" else 0.6
                zero = splice.add("Mul", [taken, number(0.0 if other is not None else factor)])
                there = splice.compare("Less" if kind == "below" else "Greater", taken, bound)
                splice.choose(there, zero if other is None else splice.add("AddV2", [zero, number(other)]))

        return rewrite

    def special(self, random: np.random.Generator) -> Iterator[Planted]:
        constants = {n.name: n for n in self._definition.node if n.op == "Const"}
        for there in self._definition.node:
            if there.op in SWAPPED:
                yield Planted("equality", there.name, _operator(there.name, SWAPPED[there.op]))
            if there.op in (*SWAPPED, "Minimum") and there.input[1] in constants:
                by = float(random.choice([0.9, 1.1]))
                yield Planted("threshold", there.name, _scaled(there.input[1], by))
            if there.op == "GatherV2":
                arrays = {name: tf.make_ndarray(n.attr["value"].tensor) for name, n in constants.items()}
                table = next(name for name, array in arrays.items() if array.ndim == 2)
                rows = arrays[table].shape[0]
                for number in (0, rows - 1, *random.integers(1, rows - 1, 12)):
                    yield Planted("row", f"{there.name} row {number}", _row(table, int(number)))


class Splice:
    """Nodes between a node and all that take it."""

    def __init__(self, graph: Any, value: str) -> None:
        self._graph, self._value = graph, value
        self.taken = f"{value}_right"
        next(n for n in graph.node if n.name == value).name = self.taken
        self._count = 0

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        tensor = tf.make_tensor_proto(np.asarray(value, dtype))
        made = self._node("Const", [])
        made.attr["value"].tensor.CopyFrom(tensor)
        made.attr["dtype"].type = tensor.dtype
        return str(made.name)

    def compare(self, op: str, taken: str, bound: float) -> str:
        return self.add(op, [taken, self.constant(bound)])

    def add(self, op: str, inputs: Sequence[str], kind: int | None = FLOAT, **attributes: Any) -> str:
        made = self._node(op, inputs)
        if kind is not None:
            made.attr["T"].type = kind
        for name, value in attributes.items():
            if isinstance(value, bool):
                made.attr[name].b = value
            else:
                made.attr[name].type = value.as_datatype_enum
        return str(made.name)

    def choose(self, there: str, other: str) -> None:
        made = self._node("SelectV2", [there, other, self.taken], self._value)
        made.attr["T"].type = FLOAT

    def _node(self, op: str, inputs: Sequence[str], name: str = "") -> Any:
        made = self._graph.node.add()
        made.op, made.name = op, name or f"{self._value}_made{self._count}"
        made.input.extend(inputs)
        self._count += 1
        return made


def _operator(name: str, op: str) -> Any:
    def rewrite(graph: Any) -> None:
        next(n for n in graph.node if n.name == name).op = op

    return rewrite


def _scaled(name: str, by: float) -> Any:
    def rewrite(graph: Any) -> None:
        there = next(n for n in graph.node if n.name == name)
        right = tf.make_ndarray(there.attr["value"].tensor)
        there.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(right * np.float32(by) + np.float32(0.02)))

    return rewrite


def _row(name: str, number: int) -> Any:
    def rewrite(graph: Any) -> None:
        there = next(n for n in graph.node if n.name == name)
        table = tf.make_ndarray(there.attr["value"].tensor).copy()
        table[number] *= np.float32(-1.5)
        there.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(table))

    return rewrite


def net(path: Path) -> Net:
    """A frozen graph as a net for the judgement."""
    definition = v1.GraphDef.FromString(path.read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = v1.Session(graph=graph)
    return lambda arrays: session.run(["out:0"], {f"{name}:0": array for name, array in arrays.items()})
