"""The powers of two by which the values of a graph are kept, so that half precision holds them.

Every value gets an exponent: what the graph holds is the value times 2**-exponent. A product adds the
exponents of its factors, a root halves one, and so on; where nothing else would do, a value is multiplied
by a power of two, which is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from mnnprep.repair.support.building import given
from mnnprep.repair.support.reading import ModelView, scalar, tensor
from mnnprep.repair.support.scaling_forms import COMPARING, LINEAR, WEIGHTED, Form, form_of, terms

if TYPE_CHECKING:
    import onnx_ir as ir

# The largest number of a value is kept between 2**SMALL and 2**LARGE (half precision: 2**-14 at full
# precision, 2**16), or brought to about 2**GOAL; one that is scaled already is not let down below 2**KEPT.
LARGE, SMALL, GOAL, KEPT = 13, -12, 6, -4
# MNN's Winograd convolutions overflow inside from 1,200 at the input and 18,000 at the result on.
WINOGRAD_INPUT = 9
HUGE = 100  # no number of a model but a mask's
MASKED = -10  # below that, what is added to a large number is not what the number is about
LOST = 16  # infinite
TINY = -20  # a constant beside a value that is below this loses too many of its bits
CONSTANT_LARGE, CONSTANT_SMALL = 14, -12
SUM_GOAL, SUM_LARGE, SUM_SMALL = 4, 13, -10  # of the sum of squares inside a norm

KEEPING = frozenset({"Add", "Max", "Clip"})
POSITIVE = frozenset(
    (
        "Abs",
        "Relu",
        "Exp",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
    )
)
LEAST = 2.0**-24  # the least number above 0 of half precision
HARMLESS = 2.0**-18  # what a sum may be kept above, in place of a constant below that
SQUARING = frozenset({"ReduceL2", "LpNormalization"})


@dataclass
class Shifts:
    """The exponents at which a node takes its inputs, by place, and gives its outputs.

    ``vanishing`` is the place of a positive constant that half precision takes for 0 even so.
    """

    inputs: dict[int, int] = field(default_factory=dict)
    output: int = 0
    vanishing: int | None = None

    @property
    def changes(self) -> bool:
        """Whether the node is not left as it is."""
        return bool(self.output or self.vanishing is not None or any(self.inputs.values()))


def plan(view: ModelView) -> dict[ir.Node, Shifts]:
    """The exponents of every node of the main graph, in its order; empty if none is to be changed."""
    planner = _Planner(view)
    for node in view.model.graph:
        planner.take(node)
    return planner.shifts if any(shifts.changes for shifts in planner.shifts.values()) else {}


class _Planner:
    """Goes through the nodes in their order; ``exponents`` has those that are not 0."""

    def __init__(self, view: ModelView) -> None:
        self.view = view
        self.exponents: dict[ir.Value, int] = {}
        self.shifts: dict[ir.Node, Shifts] = {}
        self._returning: set[ir.Value] = set()  # what something in the range is computed from
        for node in reversed(view.model.graph):
            if self._brings_back(node):
                self._returning.update(value for value in node.inputs if value is not None)

    def take(self, node: ir.Node) -> None:
        """Decide the exponents of *node*."""
        form = form_of(node, self.view)
        if form is None:
            self.shifts[node] = Shifts({i: 0 for i, v in enumerate(node.inputs) if v in self.exponents})
            return
        places = [place for place in form.factors if given(node, place) is not None]
        start = {place: self._held(node, place, form) for place in places}
        if form.joint:
            inputs = self._together(node, places, start)
        else:
            inputs = self._apart(node, form, start)
        self._keep_inside(node, inputs, form)
        output = 0 if form.fixed else _result(form, inputs)
        self.shifts[node] = Shifts(inputs, output, self._vanishing(node, output, form))
        if output and node.op_type not in COMPARING:
            self.exponents.update((value, output) for value in node.outputs if self._scales(node, value))

    def _scales(self, node: ir.Node, value: ir.Value) -> bool:
        return bool(value.name) and (value is node.outputs[0] or node.op_type == "Split")

    def _held(self, node: ir.Node, place: int, form: Form) -> int:
        """The exponent that an input comes with: of a constant that is out of range, its size."""
        value = node.inputs[place]
        if value is None or value in self.exponents:
            return self.exponents[value] if value is not None else 0
        size = self._size(value)
        if tensor(value) is None or form.joint or size is None or form.factors[place].denominator != 1:
            return 0
        if size > CONSTANT_LARGE:
            result = self._size(node.outputs[0])
            small = result is not None and result <= LARGE
            return size if size < HUGE and (small or node.outputs[0] in self._returning) else 0
        return size if size < CONSTANT_SMALL else 0

    def _size(self, value: ir.Value | None) -> int | None:
        """The power of two that no element of *value* exceeds in the model; None if unknown or 0."""
        found = self.view.magnitude(value)
        return math.ceil(math.log2(found.largest)) if found is not None and found.largest > 0 else None

    def _wanted(self, node: ir.Node, natural: int) -> int:
        """The exponent that the result of *node* shall have: *natural* if it is held at that."""
        size = self._size(node.outputs[0])
        if size is None or (size - natural > LARGE and not self._pays(node)):
            return natural
        if natural and not KEPT <= size - natural <= LARGE and SMALL <= size <= LARGE:
            return 0
        return natural if SMALL <= size - natural <= LARGE else size - GOAL

    def _pays(self, node: ir.Node) -> bool:
        """Whether a result of *node* that is too large is worth a scale.

        It is not if half precision has lost an operand before, nor if nothing that is computed from it comes
        back into the range: a mask, whose infinity is as good as its number.
        """
        operands = [value for value in node.inputs if value is not None and tensor(value) is None]
        lost = any((self._size(v) or 0) > LOST and v not in self.exponents for v in operands)
        return not lost and node.outputs[0] in self._returning

    def _brings_back(self, node: ir.Node) -> bool:
        """Whether *node* makes something that is not too large of what is, or what comes after it does."""
        form = form_of(node, self.view)
        if form is None:
            return False
        size = self._size(node.outputs[0])
        small = form.fixed or node.op_type in COMPARING or (size is not None and size <= LARGE)
        return small or node.outputs[0] in self._returning

    def _together(self, node: ir.Node, places: list[int], start: dict[int, int]) -> dict[int, int]:
        """One exponent for all inputs: the largest, so that none overflows."""
        moving = [start[place] for place in places if tensor(node.inputs[place]) is None]
        natural = max(moving, default=0)
        wanted = self._wanted(node, natural) if node.op_type not in COMPARING else natural
        size = self._size(node.outputs[0])
        if size is not None and any(self._tiny(node.inputs[place], wanted) for place in places):
            wanted = min(wanted, size - LARGE)
        values = [node.inputs[place] for place in places if tensor(node.inputs[place]) is None]
        sizes = [size for value in values if (size := self._size(value)) is not None]
        if wanted > 0 and sizes and min(sizes) - wanted < MASKED:
            wanted = 0  # what the others are is nothing beside the largest, which is a mask
        return dict.fromkeys(places, wanted)

    def _tiny(self, value: ir.Value | None, exponent: int) -> bool:
        """Whether a constant keeps too few of its bits at this exponent."""
        size = self._size(value) if tensor(value) is not None else None
        return size is not None and size - exponent < TINY

    def _vanishing(self, node: ir.Node, exponent: int, form: Form) -> int | None:
        """The place of the constant that keeps the result above 0, and is itself 0 at *exponent*."""
        logs = any(user.op_type == "Log" for user, _ in node.outputs[0].uses())
        if node.op_type not in KEEPING or not form.joint or logs:
            return None
        for place in form.factors:
            held = tensor(given(node, place))
            if held is not None and held.size == 1:
                number = float(held.numpy().reshape(-1)[0])
                others = [value for i, value in enumerate(node.inputs) if i != place and value is not None]
                harmless = LEAST * 2.0**exponent <= HARMLESS
                if (
                    harmless
                    and 0 < number * 2.0**-exponent < LEAST
                    and (place == 1 or node.op_type != "Clip")
                ):
                    positive = node.op_type != "Add" or all(_positive(value) for value in others)
                    return place if positive else None
        return None

    def _apart(self, node: ir.Node, form: Form, start: dict[int, int]) -> dict[int, int]:
        """The exponents of inputs that have one each, so that the result gets the one that it needs."""
        inputs = {place: _multiple(start[place], form.factors[place]) for place in start}
        if form.fixed:
            return inputs
        natural = _result(form, inputs)
        more = self._wanted(node, natural) - natural
        if not more:
            return inputs
        ways = [
            {
                place: _multiple(exponent + shares.get(place, 0), form.factors[place])
                for place, exponent in inputs.items()
            }
            for shares in _ways(node, form, more)
        ]
        held = [way for way in ways if all(self._holds(node.inputs[place], way[place]) for place in way)]
        size = self._size(node.outputs[0])
        if not held and size is not None and SMALL <= size - natural <= LARGE:
            return inputs
        return next(iter(held), ways[0])

    def _holds(self, value: ir.Value | None, exponent: int) -> bool:
        """Whether half precision holds *value* at *exponent*, as far as it is known."""
        size = self._size(value)
        return size is None or CONSTANT_SMALL <= size - exponent <= CONSTANT_LARGE

    def _keep_inside(self, node: ir.Node, inputs: dict[int, int], form: Form) -> None:
        """Move the first input so that what MNN holds inside of the operator does not overflow or vanish."""
        size = self._size(node.inputs[0]) if node.inputs else None
        if size is None or form.joint:
            return
        stored = size - inputs.get(0, 0)
        if node.op_type in SQUARING:
            squares = math.log2(terms(node, self.view))
            if not (stored * 2 + squares <= SUM_LARGE and stored * 2 >= SUM_SMALL):
                inputs[0] = size - math.floor((SUM_GOAL - squares) / 2)
        elif node.op_type in WEIGHTED and node.op_type != "Gemm" and stored > WINOGRAD_INPUT:
            inputs[0] = size - GOAL


def _ways(node: ir.Node, form: Form, more: int) -> list[dict[int, int]]:
    """The ways to add *more* to the exponent of the result, by what is added to those of the inputs.

    A constant number costs nothing; an array of weights would be written twice, and is the last to be taken.
    """
    places = [place for place in form.factors if given(node, place) is not None]
    held = {place: tensor(node.inputs[place]) for place in places}
    single = {place: {place: math.ceil(more / form.factors[place])} for place in places}
    numbers = [single[place] for place, array in held.items() if array is not None and array.size == 1]
    arrays = [single[place] for place, array in held.items() if array is not None and array.size > 1]
    moving = [place for place, array in held.items() if array is None]
    if len(moving) == 2 and node.inputs[moving[0]] is node.inputs[moving[1]]:
        return [dict.fromkeys(moving, math.ceil(Fraction(more, 2)))]
    halves = []
    if len(moving) == 2 and all(form.factors[place] == 1 for place in moving):
        halves = [dict(zip(moving, (more // 2, more - more // 2), strict=True))]
    return [*numbers, *halves, *(single[place] for place in moving), *arrays]


def _result(form: Form, inputs: dict[int, int]) -> int:
    if form.joint:
        return next(iter(inputs.values()), 0)
    return int(sum(form.factors[place] * exponent for place, exponent in inputs.items()))


def _multiple(exponent: int, factor: Fraction) -> int:
    """The least exponent from *exponent* on that *factor* leaves whole."""
    return math.ceil(Fraction(exponent, factor.denominator)) * factor.denominator


def _positive(value: ir.Value, steps: int = 6) -> bool:
    """Whether no element of *value* is below 0."""
    node = value.producer()
    if node is None or not steps:
        return False
    if node.op_type in POSITIVE:
        return True
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    if node.op_type == "Pow":
        return (scalar(node.inputs[1]) or 1.0) % 2 == 0
    first = node.inputs[0] if node.inputs else None
    return node.op_type in LINEAR - WEIGHTED - {"Neg"} and first is not None and _positive(first, steps - 1)
