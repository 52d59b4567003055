"""Resize written out for sizes that are open: the places and weights of every axis computed in the graph.

Coordinates and weights as ONNX's operator document gives them (Resize-19, and Resize-10 for opset 10).  A
nearest place at a scale that is a ratio of small integers is found by integers alone; any other is float32
arithmetic, as in the runtimes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.opsets import RESIZE_COORDINATES
from mnnprep.repair.support.reading import ModelView, producer, tensor
from mnnprep.repair.support.resize_weights import Form, form_of, nearest
from mnnprep.repair.support.sizes import counting

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

PLAIN = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
FOR_NEAREST = ("tf_half_pixel_for_nn",)
LARGEST_PART = 64  # of a scale that is a ratio
SIMPLE = "simple"  # opset 10's rounding in onnxruntime: up where the axis shrinks, else down
MOST_TAPS = 64  # of one place of the output


@dataclass(frozen=True)
class OpenAxis:
    """Axis *number* of *rank*, resized by ``scale``; None: to entry ``entry`` of the wanted sizes."""

    number: int
    rank: int
    scale: float | None
    entry: int


@dataclass(frozen=True)
class OpenResize:
    """What an open Resize computes: the axes that change, and how."""

    axes: tuple[OpenAxis, ...]
    form: Form
    dtype: str


def read(node: ir.Node, opset: int, view: ModelView) -> OpenResize | None:
    """Read a Resize whose sizes are open; None if its form can't be computed in the graph."""
    rank, attributes = view.rank(node.inputs[0]), node.attributes
    form = form_of(node)
    if opset < RESIZE_COORDINATES:
        form = replace(form, coordinates="asymmetric", nearest_mode=SIMPLE)
    known = form.coordinates in PLAIN or (form.mode == "nearest" and form.coordinates in FOR_NEAREST)
    if rank is None or not known or attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    numbers = [axis % rank for axis in attributes.get_ints("axes", range(rank))]
    scales = given(node, 2 if opset >= RESIZE_COORDINATES else 1)
    sized = given(node, 3) if opset >= RESIZE_COORDINATES else None
    if sized is not None:
        axes = [
            OpenAxis(number, rank, None, entry)
            for entry, number in enumerate(numbers)
            if not _kept(node, number, entry, view)
        ]
        if form.antialias or any(axis.number < 2 for axis in axes):
            return None
        return OpenResize(tuple(axes), form, view.dtype(node.inputs[0]))
    factors = tensor(scales)
    if factors is None or factors.size != len(numbers):
        return None
    pairs = enumerate(zip(numbers, map(float, factors.numpy()), strict=True))
    axes = [OpenAxis(number, rank, scale, entry) for entry, (number, scale) in pairs if scale != 1]
    if not all(_computable(axis.scale or 0.0, form) for axis in axes):
        return None
    return OpenResize(tuple(axes), form, view.dtype(node.inputs[0]))


def _kept(node: ir.Node, number: int, entry: int, view: ModelView) -> bool:
    """Whether the wanted size *entry* is that which axis *number* has."""
    before, after = view.dims(node.inputs[0]), view.dims(node.outputs[0])
    old, new = (dims[number] if dims is not None else None for dims in (before, after))
    if old is not None and old == new:
        return True
    joined = producer(node.inputs[3], "Concat")
    first = joined.inputs[0] if joined is not None else None
    part = producer(first, "Slice")
    if part is None or producer(part.inputs[0], "Shape") is None or entry > 1:
        return False
    whole = producer(part.inputs[0], "Shape")
    bounds = [tensor(given(part, place)) for place in (1, 2)]
    numbers = [int(bound.numpy().reshape(-1)[0]) for bound in bounds if bound is not None and bound.size == 1]
    return whole is not None and whole.inputs[0] is node.inputs[0] and numbers == [0, 2]


def _computable(scale: float, form: Form) -> bool:
    """Whether places and weights of an axis that grows by *scale* can be computed in the graph.

    Not with align_corners and a part of a place: there onnxruntime and ONNX's document differ.
    """
    whole = form.coordinates != "align_corners" or scale == round(scale)
    return math.isfinite(scale) and scale > 0 and whole and _taps(form, scale) <= MOST_TAPS


def _taps(form: Form, scale: float) -> int:
    """How many places of the input one of the output takes."""
    reach = {"nearest": 0.5, "linear": 1.0, "cubic": 2.0}[form.mode]
    stretch = min(scale, 1.0) if form.antialias else 1.0
    return math.ceil(2 * reach / stretch) + (1 if stretch < 1 else 0)


def written_out(build: Builder, found: OpenResize) -> ir.Value:
    """The result of the Resize that *build* stands before."""
    x: Operand = build.op("Identity", build.node.inputs[0])
    for axis in found.axes:
        x = _Axis(build, x, axis, found).resized()
    assert x is not None
    return x


class _Axis:
    """One axis on its way: its sizes before and after, and the places between as float32."""

    def __init__(self, build: Builder, x: Operand, axis: OpenAxis, found: OpenResize) -> None:
        self.build, self.x, self.axis = build, x, axis
        self.form, self.dtype = found.form, found.dtype
        if self.form.nearest_mode == SIMPLE:
            shrinks = axis.scale is not None and axis.scale < 1
            self.form = replace(self.form, nearest_mode="ceil" if shrinks else "floor")
        self.op = build.op

    def resized(self) -> ir.Value:
        """The value with this axis resized."""
        if self.form.mode == "nearest":
            ratio = _ratio(self.axis.scale) if self.form.coordinates != "align_corners" else None
            fits = ratio is not None and self.form.coordinates != "half_pixel_symmetric"
            place = self._by_ratio(ratio) if fits and ratio is not None else self._rounded(self.coordinates)
            return self._taken(place)
        low, taps = self.op("Floor", self.coordinates), self._tap_places()
        places = [low if not tap else self.op("Add", low, self.number(tap)) for tap in taps]
        weights = [self._weight(place) for place in places]
        if self.form.antialias or self.form.exclude:
            total = reduce(lambda a, b: self.op("Add", a, b), weights)
            weights = [self.op("Div", weight, total) for weight in weights]
        shape = [-1, *[1] * (self.axis.rank - 1 - self.axis.number)]
        parts = [
            self.op("Mul", self._taken(place), self._typed(self.build.reshape(weight, *shape)))
            for place, weight in zip(places, weights, strict=True)
        ]
        return reduce(lambda a, b: self.op("Add", a, b), parts)

    def number(self, number: float) -> ir.Value:
        """A float32 constant."""
        return self.build.constant(np.array(number, np.float32))

    @cached_property
    def before(self) -> ir.Value:
        """The size before, as float32 in a list of one."""
        shape, axis = self.op("Shape", self.x), self.axis.number
        return self.build.cast(self.build.slice(shape, 0, axis, axis + 1), "FLOAT")

    @cached_property
    def after(self) -> ir.Value:
        """The size afterwards, likewise."""
        if self.axis.scale is not None:
            return self.op("Floor", self.op("Mul", self.before, self.number(self.axis.scale)))
        wanted = self.build.slice(self.build.node.inputs[3], 0, self.axis.entry, self.axis.entry + 1)
        return self.build.cast(wanted, "FLOAT")

    @cached_property
    def scale(self) -> ir.Value:
        """How much the axis grows."""
        scale = self.axis.scale
        return self.op("Div", self.after, self.before) if scale is None else self.number(scale)

    @cached_property
    def counted(self) -> ir.Value:
        """The places afterwards, as int64."""
        return counting(self.build, self.build.cast(self.after, "INT64"))

    @cached_property
    def coordinates(self) -> ir.Value:
        """Where each place afterwards was before."""
        mode, op = self.form.coordinates, self.op
        place = self.build.cast(self.counted, "FLOAT")
        if mode == "asymmetric":
            return op("Div", place, self.scale)
        if mode == "align_corners":
            whole = self.after if self.axis.scale is None else op("Mul", self.before, self.scale)
            one = self.number(1)
            gaps = op("Max", op("Sub", whole, one), self.number(float(np.finfo(np.float32).tiny)))
            at = op("Div", op("Mul", place, op("Sub", self.before, one)), gaps)
            return op("Where", op("Greater", whole, one), at, self.number(0))
        half = self.number(0.5)
        at = op("Div", op("Add", place, half), self.scale)
        if mode == "tf_half_pixel_for_nn":
            return at
        at = op("Sub", at, half)
        if mode == "pytorch_half_pixel":
            return op("Where", op("Greater", self.after, self.number(1)), at, self.number(0))
        if mode == "half_pixel_symmetric":
            share = op("Div", self.after, op("Mul", self.scale, self.before))
            middle = op("Mul", op("Mul", self.before, half), op("Sub", self.number(1), share))
            return op("Add", middle, at)
        return at

    def _by_ratio(self, ratio: Fraction) -> ir.Value:
        """The nearest places of a scale that is a *ratio*: they repeat after as many as its numerator."""
        op, build, period = self.op, self.build, ratio.numerator
        table = [nearest(Fraction(i), ratio, self.form) for i in range(period)]
        cycle = build.constant(np.array(period, np.int64))
        times = op("Div", self.counted, cycle)
        rest = op("Sub", self.counted, op("Mul", times, cycle))
        base = op("Mul", times, build.constant(np.array(ratio.denominator, np.int64)))
        found = op("Add", base, op("Gather", build.ints(*table), rest, axis=0))
        return build.cast(found, "FLOAT")

    def _rounded(self, at: ir.Value) -> ir.Value:
        mode, half = self.form.nearest_mode, self.number(0.5)
        if mode == "round_prefer_floor":
            return self.op("Ceil", self.op("Sub", at, half))
        if mode == "round_prefer_ceil":
            return self.op("Floor", self.op("Add", at, half))
        return self.op("Floor" if mode == "floor" else "Ceil", at)

    def _tap_places(self) -> list[int]:
        """How far the taps are from the place below a coordinate."""
        if self.form.antialias:
            assert self.axis.scale is not None  # else the form was not read
            reach = (1 if self.form.mode == "linear" else 2) / min(self.axis.scale, 1.0)
            return list(range(-math.ceil(reach), math.ceil(reach) + 2))
        return [0, 1] if self.form.mode == "linear" else [-1, 0, 1, 2]

    def _weight(self, place: ir.Value) -> ir.Value:
        """The weight of the places *place* for the coordinates."""
        op, scale = self.op, self.axis.scale
        distance = op("Abs", op("Sub", place, self.coordinates))
        if self.form.antialias and scale is not None and scale < 1:
            distance = op("Mul", distance, self.number(scale))
        weight = self._kernel(distance)
        if self.form.exclude:
            inside = op("And", op("Greater", place, self.number(-0.5)), op("Less", place, self._end()))
            weight = op("Where", inside, weight, self.number(0))
        return weight

    def _end(self) -> ir.Value:
        return self.op("Sub", self.before, self.number(0.5))

    def _kernel(self, d: ir.Value) -> ir.Value:
        op, number, a = self.op, self.number, self.form.a
        if self.form.mode == "linear":
            return op("Max", op("Sub", number(1), d), number(0))
        near = self._polynomial(d, (a + 2, -(a + 3), 0, 1))
        far = self._polynomial(d, (a, -5 * a, 8 * a, -4 * a))
        outside = op("Where", op("Greater", number(2), d), far, number(0))
        return op("Where", op("Greater", d, number(1)), outside, near)

    def _polynomial(self, d: ir.Value, factors: tuple[float, ...]) -> ir.Value:
        value = self.number(factors[0])
        for factor in factors[1:]:
            value = self.op("Mul", value, d)
            value = self.op("Add", value, self.number(factor)) if factor else value
        return value

    def _taken(self, place: ir.Value) -> ir.Value:
        """The value at the *place*s of the axis, each the nearest that is inside."""
        last = self.op("Sub", self.before, self.number(1))
        inside = self.op("Min", self.op("Max", place, self.number(0)), last)
        return self.op("Gather", self.x, self.build.cast(inside, "INT64"), axis=self.axis.number)

    def _typed(self, weight: ir.Value) -> ir.Value:
        return weight if self.dtype == "FLOAT" else self.build.cast(weight, self.dtype)


def _ratio(scale: float | None) -> Fraction | None:
    """*scale* as a ratio of small integers, if float32 can't tell it from one."""
    if scale is None:
        return None
    found = Fraction(scale).limit_denominator(LARGEST_PART)
    near = found > 0 and np.float32(found.numerator / found.denominator) == np.float32(scale)
    return found if near and found.numerator <= LARGEST_PART**2 else None
