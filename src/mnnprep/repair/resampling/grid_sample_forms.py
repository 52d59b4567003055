"""GridSample that is cubic, nearest or reflects.

Measured with MNN 3.6.1: cubic is computed as linear; nearest rounds a half another way; reflection folds at
other places.

In two dimensions of fixed size it is written out: the places of the input that each point takes, gathered and
weighted.  Numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

Sizes = tuple[int, ...]
CUBIC = -0.75
LINEAR = ("linear", "bilinear")


def _find(view: ModelView) -> Iterator[Match[tuple[Sizes, Sizes]]]:
    for node, opset in view.nodes("GridSample"):
        mode = node.attributes.get_string("mode", "linear")
        reflects = node.attributes.get_string("padding_mode", "zeros") == "reflection"
        if mode in LINEAR and not reflects:
            continue
        image, grid = (static((0, *(view.dims(node.inputs[index]) or ())[1:])) for index in (0, 1))
        plain = all(view.dtype(value) == "FLOAT" for value in node.inputs)
        found = (
            (image, grid) if image is not None and len(image) == 4 and grid is not None and plain else None
        )
        yield Match(
            at=node,
            detail=mode if mode not in LINEAR else "reflection",
            opset=opset,
            found=found,
            repairable=found is not None,
        )


def _apply(editor: Editor, match: Match[tuple[Sizes, Sizes]]) -> bool:
    node, opset, (image, grid) = match.node, match.opset, match.plan
    Sampling(Builder(editor, node, opset), image, grid).write()
    return True


class Sampling:
    """A GridSample written out.

    ``image`` is (0, channels, height, width), ``grid`` (0, rows, columns, 2): the batch may be any.
    """

    def __init__(self, build: Builder, image: Sizes, grid: Sizes) -> None:
        self.build, self.image, self.grid = build, image, grid
        self.padding = build.node.attributes.get_string("padding_mode", "zeros")
        self.corners = bool(build.node.attributes.get_int("align_corners", 0))
        self.mode = build.node.attributes.get_string("mode", "linear")
        self.points = grid[1] * grid[2]
        self.flat = build.reshape(build.node.inputs[0], 0, image[1], image[2] * image[3])

    def write(self) -> None:
        """Let what is sampled take the node's place."""
        build = self.build
        x, y = (self._unscaled(axis) for axis in (0, 1))
        if self.mode == "nearest":
            total = self._taken(build.op("Round", self._inside(y, 0)), build.op("Round", self._inside(x, 1)))
        else:
            taps = [
                self._taps(self._inside(value, axis) if self.mode in LINEAR else value)
                for axis, value in ((0, y), (1, x))
            ]
            rows = [
                self._row([(weight_x, self._taken(at_y, at_x)) for at_x, weight_x in taps[1]], weight_y)
                for at_y, weight_y in taps[0]
            ]
            total = reduce(lambda a, b: build.op("Add", a, b), rows)
        build.replace(build.reshape(total, 0, self.image[1], self.grid[1], self.grid[2]))

    def _row(self, parts: list[tuple[ir.Value, ir.Value]], weight: Operand) -> ir.Value:
        build = self.build
        return build.op(
            "Mul",
            reduce(lambda a, b: build.op("Add", a, b), [build.op("Mul", value, w) for w, value in parts]),
            weight,
        )

    def _number(self, value: float) -> ir.Value:
        return self.build.constant(np.array(value, np.float32))

    def _unscaled(self, axis: int) -> ir.Value:
        """Coordinates in places of the input, (batch, 1, points); *axis* 0 is x."""
        build, size = self.build, self.image[3 - axis]
        raw = build.reshape(build.slice(build.node.inputs[1], 3, axis, axis + 1), 0, 1, self.points)
        if self.corners:
            return build.op("Mul", build.op("Add", raw, self._number(1)), self._number((size - 1) / 2))
        moved = build.op(
            "Sub", build.op("Mul", build.op("Add", raw, self._number(1)), self._number(size)), self._number(1)
        )
        return build.op("Mul", moved, self._number(0.5))

    def _inside(self, value: ir.Value, axis: int) -> ir.Value:
        """Clamped or reflected; *axis* 0 is y."""
        build, size = self.build, self.image[2 + axis]
        if self.padding == "zeros":
            return value
        if self.padding == "reflection":
            low, high = (0.0, size - 1.0) if self.corners else (-0.5, size - 0.5)
            value = self._reflected(value, low, high - low)
        return build.op("Min", build.op("Max", value, self._number(0)), self._number(size - 1))

    def _reflected(self, value: ir.Value, low: float, span: float) -> ir.Value:
        build = self.build
        if span <= 0:
            return build.op("Mul", value, self._number(0))
        away = build.op("Abs", build.op("Sub", value, self._number(low)))
        turns = build.op("Floor", build.op("Div", away, self._number(span)))
        rest = build.op("Sub", away, build.op("Mul", turns, self._number(span)))
        half = build.op("Mul", turns, self._number(0.5))
        odd = build.op("Greater", build.op("Sub", half, build.op("Floor", half)), self._number(0.25))
        return build.op(
            "Add", build.op("Where", odd, build.op("Sub", self._number(span), rest), rest), self._number(low)
        )

    def _taps(self, value: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
        """The places around *value*, each with its weight."""
        build = self.build
        low = build.op("Floor", value)
        t = build.op("Sub", value, low)
        if self.mode in LINEAR:
            return [(low, build.op("Sub", self._number(1), t)), (build.op("Add", low, self._number(1)), t)]
        far = [(step, build.op("Abs", build.op("Sub", t, self._number(step)))) for step in (-1, 0, 1, 2)]
        return [(build.op("Add", low, self._number(step)), self._cubic(away, step)) for step, away in far]

    def _cubic(self, d: Operand, step: int) -> ir.Value:
        """The weight at the distance *d*: within 1 for the two places around, else up to 2."""
        a = CUBIC
        factors = (a + 2, -(a + 3), 0.0, 1.0) if step in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
        build = self.build
        return reduce(
            lambda total, factor: build.op("Add", build.op("Mul", total, d), self._number(factor)),
            factors[1:],
            self._number(factors[0]),
        )

    def _taken(self, y: ir.Value, x: ir.Value) -> ir.Value:
        """Return the input's values at whole places, (batch, channels, points).

        They are 0 outside if the padding is zeros.
        """
        build, (_, channels, _, width) = self.build, self.image
        inside_y, inside_x = (self._whole(value, axis) for axis, value in ((0, y), (1, x)))
        flat = build.cast(build.op("Add", build.op("Mul", inside_y, self._number(width)), inside_x), "INT32")
        index = build.op("Expand", flat, build.ints(1, channels, self.points))
        found = build.op("GatherElements", self.flat, index, axis=2)
        if self.padding != "zeros":
            return found
        seen = [
            build.op("Greater", self._number(0.5), build.op("Abs", build.op("Sub", a, b)))
            for a, b in ((y, inside_y), (x, inside_x))
        ]
        return build.op("Mul", found, build.cast(build.op("And", *seen), "FLOAT"))

    def _whole(self, value: ir.Value, axis: int) -> ir.Value:
        build, size = self.build, self.image[2 + axis]
        if self.padding == "reflection":
            return self._inside(value, axis)
        return build.op("Min", build.op("Max", value, self._number(0)), self._number(size - 1))


RULE = Rule(
    name="grid-sample-forms",
    severity="wrong",
    operators=frozenset({"GridSample"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's GridSample is right for linear with zeros or border only",
    remedy="use linear with padding_mode zeros or border",
)
