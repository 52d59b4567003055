"""LSTM, GRU and RNN written out step by step, for a sequence of fixed length.

The equations are those of ONNX's operator specification (gates in the order i o f c of an LSTM and z r h of a
GRU); the input's part of every gate is one product for the whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import integers, split_into, unsqueezed
from mnnprep.rules.reading import Reading

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
PLAIN = {
    name.lower(): name for name in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")
}  # activations without a parameter
LONGEST = 512  # steps
OLDEST = 7  # before, operators broadcast by an attribute


@dataclass(frozen=True)
class Recurrent:
    """The sizes and activations of a recurrent node; ``activations`` has one tuple a direction."""

    kind: str
    steps: int
    hidden: int
    batch: int | None
    opset: int
    activations: tuple[tuple[str, ...], ...]
    directions: tuple[bool, ...]  # True: backwards


def read(node: Any, opset: int, reading: Reading) -> Recurrent | None:
    """What the node computes, if it can be written out; None for an open length or an activation with a
    parameter.
    """
    dims, weights = reading.dims(node.inputs[0]), reading.dims(node.inputs[2])
    if dims is None or opset < OLDEST or node.attributes.get_int("layout", 0):
        return None
    steps, batch = dims[0], dims[1]
    hidden = node.attributes.get_int("hidden_size", 0) or (weights[-1] if weights is not None else None)
    if not isinstance(steps, int) or not isinstance(hidden, int) or not 0 < steps <= LONGEST:
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


def write_out(editor: Editor, node: Any, form: Recurrent) -> None:
    """Let the steps take the node's place."""
    finals, sequences = [], []
    for number, back in enumerate(form.directions):
        outputs, state = _direction(editor, node, form, number, back)
        finals.append(state)
        sequences.append(outputs)
    replaced = {}
    if _used(node, 0):
        parts = [_stack(editor, node, [s[step] for s in sequences], form.opset) for step in range(form.steps)]
        replaced[node.outputs[0]] = _stack(editor, node, parts, form.opset)
    for place in range(1, len(node.outputs)):
        if _used(node, place):
            replaced[node.outputs[place]] = _stack(
                editor, node, [state[place - 1] for state in finals], form.opset
            )
    editor.replace_outputs(node, replaced)


def _direction(
    editor: Editor, node: Any, form: Recurrent, number: int, back: bool
) -> tuple[list[Any], list[Any]]:
    """The output of every step, in the order of the sequence, and the last state (hidden, and cell of an
    LSTM).
    """
    gates, hidden = GATES[form.kind], form.hidden
    given = [*node.inputs, *[None] * 8]

    def part(value: Any) -> Any:
        return (
            editor.add(node, "Gather", value, _number(editor, node, number), axis=0)
            if value is not None
            else None
        )

    weight, recurrence = (editor.add(node, "Transpose", part(given[place]), perm=[1, 0]) for place in (1, 2))
    fed = editor.add(node, "MatMul", given[0], weight)
    of_state = None
    if given[3] is not None:
        of_input, of_state = split_into(editor, node, part(given[3]), [gates * hidden] * 2, 0, form.opset)
        fed = editor.add(node, "Add", fed, of_input)
    states = [part(given[5]), part(given[6])] if form.kind == "LSTM" else [part(given[5])]
    states = [state if state is not None else _zeros(editor, node, form) for state in states]
    peepholes = (
        split_into(editor, node, part(given[7]), [hidden] * 3, 0, form.opset)
        if form.kind == "LSTM" and given[7] is not None
        else None
    )
    cell = _Cell(editor, node, form, form.activations[number], recurrence, of_state, peepholes)
    outputs: list[Any] = [None] * form.steps
    for step in range(form.steps)[:: -1 if back else 1]:
        new = cell.step(editor.add(node, "Gather", fed, _number(editor, node, step), axis=0), states)
        outputs[step] = new[0]
        if given[4] is not None:  # sequence_lens: past its end a sequence keeps its state, and gives 0
            inside = editor.add(node, "Less", _number(editor, node, step, np.int32), given[4])
            inside = unsqueezed(editor, node, inside, 1, form.opset)
            outputs[step] = editor.add(
                node, "Where", inside, new[0], editor.constant(node, np.zeros((), np.float32))
            )
            new = [
                editor.add(node, "Where", inside, fresh, old) for fresh, old in zip(new, states, strict=True)
            ]
        states = new
    return outputs, states


class _Cell:
    """One step of one direction."""

    def __init__(
        self,
        editor: Editor,
        node: Any,
        form: Recurrent,
        activations: Sequence[str],
        recurrence: Any,
        bias: Any,
        peepholes: Any,
    ) -> None:
        self.editor, self.node, self.form, self.activations, self.peepholes = (
            editor,
            node,
            form,
            activations,
            peepholes,
        )
        self.after_reset = form.kind == "GRU" and bool(node.attributes.get_int("linear_before_reset", 0))
        self.clip = node.attributes.get_float("clip", 0.0)
        self.recurrence, self.bias = recurrence, bias
        if form.kind == "GRU":  # the candidate's product is not of the state itself
            sizes = [2 * form.hidden, form.hidden]
            self.recurrence = split_into(editor, node, recurrence, sizes, 1, form.opset)
            self.bias = (
                split_into(editor, node, bias, sizes, 0, form.opset) if bias is not None else [None, None]
            )

    def add(self, op_type: str, *inputs: Any) -> Any:
        return self.editor.add(self.node, op_type, *inputs)

    def linear(self, state: Any, recurrence: Any, bias: Any) -> Any:
        product = self.add("MatMul", state, recurrence)
        return self.add("Add", product, bias) if bias is not None else product

    def act(self, place: int, value: Any) -> Any:
        if self.clip > 0:
            limit = self.editor.constant(self.node, np.array(self.clip, np.float32))
            value = self.add("Max", self.add("Min", value, limit), self.add("Neg", limit))
        return self.add(self.activations[place], value)

    def step(self, fed: Any, states: list[Any]) -> list[Any]:
        if self.form.kind == "LSTM":
            return self._lstm(fed, *states)
        if self.form.kind == "GRU":
            return [self._gru(fed, states[0])]
        return [self.act(0, self.add("Add", fed, self.linear(states[0], self.recurrence, self.bias)))]

    def _lstm(self, fed: Any, hidden: Any, cell: Any) -> list[Any]:
        total = self.add("Add", fed, self.linear(hidden, self.recurrence, self.bias))
        i, o, f, c = split_into(self.editor, self.node, total, [self.form.hidden] * 4, 1, self.form.opset)
        if self.peepholes is not None:
            i, f = (
                self.add("Add", i, self.add("Mul", self.peepholes[0], cell)),
                self.add("Add", f, self.add("Mul", self.peepholes[2], cell)),
            )
        i = self.act(0, i)
        if self.node.attributes.get_int("input_forget", 0):
            f = self.add("Sub", self.editor.constant(self.node, np.ones((), np.float32)), i)
        else:
            f = self.act(0, f)
        cell = self.add("Add", self.add("Mul", f, cell), self.add("Mul", i, self.act(1, c)))
        if self.peepholes is not None:
            o = self.add("Add", o, self.add("Mul", self.peepholes[1], cell))
        return [self.add("Mul", self.act(0, o), self.add(self.activations[2], cell)), cell]

    def _gru(self, fed: Any, hidden: Any) -> Any:
        size = self.form.hidden
        gates, candidate = split_into(self.editor, self.node, fed, [2 * size, size], 1, self.form.opset)
        both = self.act(0, self.add("Add", gates, self.linear(hidden, self.recurrence[0], self.bias[0])))
        z, r = split_into(self.editor, self.node, both, [size, size], 1, self.form.opset)
        if self.after_reset:
            inner = self.add("Mul", r, self.linear(hidden, self.recurrence[1], self.bias[1]))
        else:
            inner = self.linear(self.add("Mul", r, hidden), self.recurrence[1], self.bias[1])
        new = self.act(1, self.add("Add", candidate, inner))
        one = self.editor.constant(self.node, np.ones((), np.float32))
        return self.add("Add", self.add("Mul", self.add("Sub", one, z), new), self.add("Mul", z, hidden))


def _zeros(editor: Editor, node: Any, form: Recurrent) -> Any:
    if form.batch is not None:
        return editor.constant(node, np.zeros((form.batch, form.hidden), np.float32))
    batch = editor.add(
        node, "Gather", editor.add(node, "Shape", node.inputs[0]), integers(editor, node, 1), axis=0
    )
    shape = editor.add(node, "Concat", batch, integers(editor, node, form.hidden), axis=0)
    return editor.add(node, "Expand", editor.constant(node, np.zeros((1, 1), np.float32)), shape)


def _number(editor: Editor, node: Any, number: int, dtype: Any = np.int64) -> Any:
    return editor.constant(node, np.array(number, dtype))


def _stack(editor: Editor, node: Any, parts: list[Any], opset: int) -> Any:
    parts = [unsqueezed(editor, node, part, 0, opset) for part in parts]
    return editor.add(node, "Concat", *parts, axis=0) if len(parts) > 1 else parts[0]


def _used(node: Any, place: int) -> bool:
    return (
        place < len(node.outputs)
        and bool(node.outputs[place].name)
        and bool(node.outputs[place].uses() or node.outputs[place].is_graph_output())
    )
