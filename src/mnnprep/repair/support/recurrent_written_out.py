"""LSTM, GRU and RNN written out step by step, for a sequence of fixed length, or as a Loop for any other.

The equations are those of ONNX's operator specification (gates in the order i o f c of an LSTM and z r h of a
GRU); the input's part of every gate is one product for the whole sequence.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.building import Builder, asked, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import BROADCASTING, SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
PLAIN = {
    name.lower(): name for name in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")
}  # activations without a parameter
LONGEST = 512  # steps


@dataclass(frozen=True)
class Recurrent:
    """The sizes and activations of a recurrent node; ``activations`` has one tuple a direction.

    ``steps`` is 0 for an open length.
    """

    kind: str
    steps: int
    hidden: int
    batch: int | None
    opset: int
    activations: tuple[tuple[str, ...], ...]
    directions: tuple[bool, ...]  # True: backwards


def read(node: ir.Node, opset: int, view: ModelView, *, any_length: bool = False) -> Recurrent | None:
    """Read what the node computes, if it can be written out.

    None for an activation with a parameter, and for a length that is open or above LONGEST; with *any_length*
    such a node is read as one of open length, for a Loop (``recurrent_looped``).
    """
    dims, weights = view.dims(node.inputs[0]), view.dims(node.inputs[2])
    if dims is None or opset < BROADCASTING or node.attributes.get_int("layout", 0) != 0:
        return None
    steps, batch = dims[0], dims[1]
    hidden = node.attributes.get_int("hidden_size", 0) or (weights[-1] if weights is not None else None)
    if not isinstance(steps, int) or not 0 < steps <= LONGEST:
        if not any_length or opset < SINCE["ScatterND"]:
            return None
        steps = 0
    if not isinstance(hidden, int):
        return None
    way = node.attributes.get_string("direction", "forward")
    directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[way]
    usual = USUAL[node.op_type]
    names = list(node.attributes.get_strings("activations", ())) or [*usual] * len(directions)
    known = [PLAIN.get(name.lower(), "") for name in names]
    if (
        not all(known)
        or len(known) != len(usual) * len(directions)
        or "activation_alpha" in node.attributes
        or "activation_beta" in node.attributes
    ):
        return None
    chunks = tuple(tuple(known[i : i + len(usual)]) for i in range(0, len(known), len(usual)))
    return Recurrent(
        node.op_type, steps, hidden, batch if isinstance(batch, int) else None, opset, chunks, directions
    )


def write_out(editor: Editor, node: ir.Node, form: Recurrent) -> None:
    """Let the steps take the node's place."""
    build = Builder(editor, node, form.opset)
    directions = [_direction(build, form, number, back) for number, back in enumerate(form.directions)]
    replaced = {}
    if asked(node, 0):
        sequences = [outputs for outputs, _ in directions]
        parts = [_stack(build, [outputs[step] for outputs in sequences]) for step in range(form.steps)]
        replaced[node.outputs[0]] = _stack(build, parts)
    for place in range(1, len(node.outputs)):
        if asked(node, place):
            replaced[node.outputs[place]] = _stack(build, [states[place - 1] for _, states in directions])
    editor.replace_outputs(node, replaced)


def _direction(
    build: Builder, form: Recurrent, number: int, back: bool
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Return the output of every step, in the order of the sequence, and the last state.

    The state is hidden, and cell of an LSTM.
    """
    x, states = inputs_of_steps(build, form, number), first_states(build, form, number)
    cell = make_cell(build, build.node, form, number)
    outputs: dict[int, ir.Value] = {}
    for step in range(form.steps)[:: -1 if back else 1]:
        new = cell.step(build.op("Gather", x, _number(build, step), axis=0), states)
        outputs[step] = new[0]
        if (lengths := given(build.node, 4)) is not None:
            at = build.editor.constant(build.node, np.array(step, np.int32))
            outputs[step], new = within(build, at, lengths, new, states)
        states = new
    return [outputs[step] for step in range(form.steps)], states


def part(build: Builder, node: ir.Node, place: int, number: int) -> ir.Value | None:
    """The input *place* of the recurrent *node*, for its direction *number*."""
    value = given(node, place)
    return build.op("Gather", value, _number(build, number), axis=0) if value is not None else None


def inputs_of_steps(build: Builder, form: Recurrent, number: int) -> ir.Value:
    """The input's part of the gates, for every step."""
    node = build.node
    x = build.op("MatMul", node.inputs[0], build.op("Transpose", part(build, node, 1, number), perm=[1, 0]))
    bias = part(build, node, 3, number)
    if bias is None:
        return x
    return build.op("Add", x, build.split(bias, [GATES[form.kind] * form.hidden] * 2, 0)[0])


def first_states(build: Builder, form: Recurrent, number: int) -> list[ir.Value]:
    """The states before the first step: hidden, and cell of an LSTM."""
    places = (5, 6) if form.kind == "LSTM" else (5,)
    states = [part(build, build.node, place, number) for place in places]
    return [state if state is not None else _zeros(build, form) for state in states]


def within(
    build: Builder, at: ir.Value, lengths: ir.Value, new: list[ir.Value], states: list[ir.Value]
) -> tuple[ir.Value, list[ir.Value]]:
    """Return the output and the states of the step *at* within the *lengths* of the sequences.

    Past its end a sequence keeps its state, and gives 0.
    """
    inside = build.unsqueeze(build.op("Less", at, lengths), 1)
    output = build.op("Where", inside, new[0], build.editor.constant(build.node, np.zeros((), np.float32)))
    kept = [build.op("Where", inside, fresh, old) for fresh, old in zip(new, states, strict=True)]
    return output, kept


class _Cell:
    """One step of one direction of an RNN."""

    def __init__(
        self,
        build: Builder,
        node: ir.Node,
        form: Recurrent,
        activations: Sequence[str],
        recurrence: ir.Value,
        bias: ir.Value | None,
    ) -> None:
        self.build, self.hidden, self.activations = build, form.hidden, activations
        self.recurrence, self.bias = recurrence, bias
        self.clip = node.attributes.get_float("clip", 0.0)
        self.forgets = bool(node.attributes.get_int("input_forget", 0))

    def step(self, x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
        """The new states, from the input's part of the gates and the old states."""
        total = self.build.op("Add", x, self.linear(states[0], self.recurrence, self.bias))
        return [self.act(0, total)]

    def linear(self, state: ir.Value, recurrence: ir.Value, bias: ir.Value | None) -> ir.Value:
        """The state's part of the gates."""
        product = self.build.op("MatMul", state, recurrence)
        return self.build.op("Add", product, bias) if bias is not None else product

    def act(self, place: int, value: ir.Value) -> ir.Value:
        """The activation *place* of the clipped *value*."""
        if self.clip > 0:
            limit = self.build.editor.constant(self.build.node, np.array(self.clip, np.float32))
            low = self.build.op("Min", value, limit)
            value = self.build.op("Max", low, self.build.op("Neg", limit))
        return self.build.op(self.activations[place], value)

    def one(self) -> ir.Value:
        """The number 1."""
        return self.build.editor.constant(self.build.node, np.ones((), np.float32))


class _Lstm(_Cell):
    """One step of one direction of an LSTM."""

    peepholes: list[ir.Value] | None = None

    def step(self, x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
        """The new states, from the input's part of the gates and the old states."""
        op, (hidden, cell) = self.build.op, states
        total = op("Add", x, self.linear(hidden, self.recurrence, self.bias))
        i, o, f, c = self.build.split(total, [self.hidden] * 4, 1)
        if self.peepholes is not None:
            i = op("Add", i, op("Mul", self.peepholes[0], cell))
            f = op("Add", f, op("Mul", self.peepholes[2], cell))
        i = self.act(0, i)
        f = op("Sub", self.one(), i) if self.forgets else self.act(0, f)
        cell = op("Add", op("Mul", f, cell), op("Mul", i, self.act(1, c)))
        if self.peepholes is not None:
            o = op("Add", o, op("Mul", self.peepholes[1], cell))
        return [op("Mul", self.act(0, o), op(self.activations[2], cell)), cell]


class _Gru(_Cell):
    """One step of one direction of a GRU; the candidate's product is not of the state itself."""

    def __init__(
        self,
        build: Builder,
        node: ir.Node,
        form: Recurrent,
        activations: Sequence[str],
        recurrence: ir.Value,
        bias: ir.Value | None,
    ) -> None:
        super().__init__(build, node, form, activations, recurrence, bias)
        sizes = [2 * form.hidden, form.hidden]
        self.recurrences = build.split(recurrence, sizes, 1)
        self.biases = build.split(bias, sizes, 0) if bias is not None else [None, None]
        self.after_reset = bool(node.attributes.get_int("linear_before_reset", 0))

    def step(self, x: ir.Value, states: list[ir.Value]) -> list[ir.Value]:
        """The new states, from the input's part of the gates and the old states."""
        op, hidden = self.build.op, states[0]
        gates, candidate = self.build.split(x, [2 * self.hidden, self.hidden], 1)
        both = self.act(0, op("Add", gates, self.linear(hidden, self.recurrences[0], self.biases[0])))
        z, r = self.build.split(both, [self.hidden] * 2, 1)
        if self.after_reset:
            inner = op("Mul", r, self.linear(hidden, self.recurrences[1], self.biases[1]))
        else:
            inner = self.linear(op("Mul", r, hidden), self.recurrences[1], self.biases[1])
        new = self.act(1, op("Add", candidate, inner))
        one = self.one()
        return [op("Add", op("Mul", op("Sub", one, z), new), op("Mul", z, hidden))]


def make_cell(build: Builder, node: ir.Node, form: Recurrent, number: int) -> _Cell:
    """The cell of the direction *number* of the recurrent *node*; its weights are read where *build* is."""
    recurrence = build.op("Transpose", part(build, node, 2, number), perm=[1, 0])
    bias = part(build, node, 3, number)
    if bias is not None:
        bias = build.split(bias, [GATES[form.kind] * form.hidden] * 2, 0)[1]
    kind = {"LSTM": _Lstm, "GRU": _Gru, "RNN": _Cell}[form.kind]
    cell = kind(build, node, form, form.activations[number], recurrence, bias)
    holes = part(build, node, 7, number) if form.kind == "LSTM" else None
    if isinstance(cell, _Lstm) and holes is not None:
        cell.peepholes = build.split(holes, [form.hidden] * 3, 0)
    return cell


def _zeros(build: Builder, form: Recurrent) -> ir.Value:
    constant = functools.partial(build.editor.constant, build.node)
    if form.batch is not None:
        return constant(np.zeros((form.batch, form.hidden), np.float32))
    batch = build.op("Gather", build.op("Shape", build.node.inputs[0]), build.ints(1), axis=0)
    shape = build.op("Concat", batch, build.ints(form.hidden), axis=0)
    return build.op("Expand", constant(np.zeros((1, 1), np.float32)), shape)


def _number(build: Builder, number: int) -> ir.Value:
    return build.editor.constant(build.node, np.array(number, np.int64))


def _stack(build: Builder, parts: list[ir.Value]) -> ir.Value:
    wide = [build.unsqueeze(part, 0) for part in parts]
    return build.op("Concat", *wide, axis=0) if len(wide) > 1 else wide[0]
