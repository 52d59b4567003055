"""Values that half precision does not hold, kept times a power of two.

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: what exceeds
65,504 is infinite, what is below 6e-8 is 0, and the constants of a model are rounded alike. Of a run that
was measured, the values that leave the range are kept times a power of two, and so is what is computed from
them as far as it goes on: a square sum and its root, a quotient, a convolution. Multiplying by a power of
two is exact, so that onnxruntime gives the same bits wherever no number is subnormal; but the logarithm of
a scaled value is a sum, a power is rounded anew, and a sum that an epsilon below 6e-8 keeps above 0 is kept
above that.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, bodies, scopes, tensor
from mnnprep.repair.support.scaling import Shifts, plan
from mnnprep.repair.support.scaling_forms import NORMS, WEIGHTED

if TYPE_CHECKING:
    import onnx_ir as ir

KEPT_ABOVE = 2.0**-22  # half precision holds it, and a quarter of it
FACTOR = 12  # the powers of two that are multiplied with are from 2**-FACTOR to 2**FACTOR
EPSILON = 1e-5  # of a norm that does not say its own


@dataclass
class Plan:
    """The exponents of every node, and whether they are written into the graph already."""

    shifts: dict[ir.Node, Shifts]
    written: bool = False


def _find(view: ModelView) -> list[Match[Plan]]:
    if not view.magnitudes:
        return []
    found = Plan(plan(view))
    opset = next(opset for _, opset in scopes(view.model))
    return [
        Match(at=node, opset=opset, found=found) for node, shifts in found.shifts.items() if shifts.changes
    ]


def _apply(editor: Editor, match: Match[Plan]) -> bool:
    if match.plan.written:
        return True
    match.plan.written = True
    scaler = _Scaler(editor, match.opset)
    for node, shifts in match.plan.shifts.items():
        scaler.scale(node, shifts)
    scaler.give_back()
    return True


class _Scaler:
    """Writes the exponents into the graph, node by node in its order."""

    def __init__(self, editor: Editor, opset: int) -> None:
        self.editor, self.opset = editor, opset
        self.exponents: dict[ir.Value, int] = {}
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}

    def scale(self, node: ir.Node, shifts: Shifts) -> None:
        """Give *node* its inputs at the exponents that it takes them at."""
        for attribute in node.attributes.values():
            for body in bodies(attribute):
                self._inside(node, body)
        for place, exponent in shifts.inputs.items():
            value = given(node, place)
            if value is not None and (more := exponent - self.exponents.get(value, 0)):
                node.replace_input_with(place, self._at(node, value, more))
        taken = shifts.inputs.get(0, 0)
        bias = given(node, 2) if node.op_type in WEIGHTED else None
        if bias is not None and shifts.output:
            node.replace_input_with(2, self._at(node, bias, shifts.output))
        if node.op_type in NORMS and taken:
            self._norm(node, taken)
        if shifts.output:
            outputs = list(node.outputs)[: None if node.op_type == "Split" else 1]
            self.exponents.update((value, shifts.output) for value in outputs if value.name)
        if node.op_type == "Log" and taken:
            self._after(node, "Add", taken * math.log(2.0))
        if shifts.vanishing is not None:
            self._keep(node, shifts.vanishing)

    def give_back(self) -> None:
        """Give the outputs of the graph as they are in the model; no value of it keeps its name but them."""
        for value, exponent in list(self.exponents.items()):
            node = value.producer()
            assert node is not None  # an input of the graph is not scaled where it stands
            if not value.is_graph_output():
                value.name = self.editor.name(node)
                continue
            scaled = list(value.uses())
            self.editor.after(node, value, functools.partial(self._mul, exponent=exponent))
            for user, place in scaled:
                user.replace_input_with(place, value)

    def _inside(self, node: ir.Node, body: ir.Graph) -> None:
        """Let what a body uses of this graph be as it is in the model."""
        for place, value in enumerate(body.outputs):
            if value in self.exponents:
                body.outputs[place] = self._at(node, value, -self.exponents[value])
        for inner in body.all_nodes():
            for place, used in enumerate(inner.inputs):
                if used is not None and used in self.exponents:
                    inner.replace_input_with(place, self._at(node, used, -self.exponents[used]))

    def _at(self, node: ir.Node, value: ir.Value, more: int) -> ir.Value:
        """*value* with *more* added to its exponent, made just before *node* or earlier."""
        held = tensor(value)
        if held is not None:
            return self.editor.constant(node, np.ldexp(held.numpy(), -more).astype(np.float32))
        if (value, more) not in self._made:
            self._made[value, more] = self._mul(node, value, -more)
        return self._made[value, more]

    def _mul(self, node: ir.Node, value: ir.Value, exponent: int) -> ir.Value:
        """*value* times two to the *exponent*, by factors that half precision holds."""
        while exponent:
            part = max(-FACTOR, min(FACTOR, exponent))
            constant = self.editor.constant(node, np.array(2.0**part, np.float32))
            value, exponent = self.editor.add(node, "Mul", value, constant), exponent - part
        return value

    def _after(self, node: ir.Node, op_type: str, number: float) -> None:
        """Let *op_type* with *number* follow on the first output of *node*."""
        constant = functools.partial(self.editor.constant, array=np.array(number, np.float32))
        self.editor.after(
            node,
            node.outputs[0],
            lambda before, kept: self.editor.add(before, op_type, kept, constant(before)),
        )

    def _norm(self, node: ir.Node, exponent: int) -> None:
        """Let a norm take its input at *exponent* and give its result as it is in the model."""
        if node.op_type == "LpNormalization":
            return
        epsilon = node.attributes.get_float("epsilon", EPSILON) * 4.0**-exponent
        node.attributes["epsilon"] = require("onnx_ir").AttrFloat32("epsilon", epsilon)
        if node.op_type == "BatchNormalization":
            for place, factor in ((3, 1), (4, 2)):
                value = node.inputs[place]
                assert value is not None  # as the plan saw it
                node.replace_input_with(place, self._at(node, value, factor * exponent))

    def _keep(self, node: ir.Node, place: int) -> None:
        """Keep the result of *node* above 0 by what half precision holds, where a constant did."""
        if node.op_type == "Add":
            value = node.outputs[0]
            exponent = self.exponents.pop(value, 0)
            self._after(node, "Max", KEPT_ABOVE)
            raised = next(user.outputs[0] for user, _ in value.uses() if user.op_type == "Max")
            if exponent:
                self.exponents[raised] = exponent
        else:
            node.replace_input_with(place, self.editor.constant(node, np.array(KEPT_ABOVE, np.float32)))


RULE = Rule(
    name="power-of-two",
    severity="narrowed",
    target="low",
    operators=frozenset(),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="half precision holds no number above 65,504 and none between 0 and 6e-8",
    remedy="scale the numbers before they are squared, multiplied or added up, and back afterwards",
)
