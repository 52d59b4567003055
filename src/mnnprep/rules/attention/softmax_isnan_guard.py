"""The guard ``Where(IsNaN(Softmax(x)), other, Softmax(x))`` that exporters put around attention.

A row of ``x`` that is ``-inf`` throughout (everything masked) has NaN as its softmax; the guard puts
``other`` there. MNN 3.6.1 refuses IsNaN.  The same is computed from the row's maximum: a row whose maximum is
not above ``-inf`` is replaced by zeros before the softmax and by ``other`` after it.  Measured: off by 6e-8,
at rows partly, wholly and not masked.

The same bits in onnxruntime for rows of finite numbers and ``-inf``.  A row with ``+inf`` or NaN, which the
guard would also have hidden, is not recognised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, producer
from mnnprep.rules.rule import Place, Rewrite, Rule

NAME = "softmax-isnan-guard"
AXES_ARE_AN_INPUT = 18  # the opset from which ReduceMax has its axes as an input
ONE_AXIS = 13  # the opset from which Softmax goes over one axis; before, over all from it on
FLOATS = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16}


def find(reading: Reading) -> list[Place]:
    places = []
    for test, opset in reading.nodes("IsNaN"):
        softmax = _guarded(test)
        if softmax is None:
            continue
        dtype = reading.dtype(softmax.inputs[0]) or reading.dtype(softmax.outputs[0])
        axes = _axes(softmax, opset, reading)
        if axes is not None and dtype in FLOATS:
            places.append(Place(node=test, match=(opset, softmax, axes, FLOATS[dtype])))
    return places


def apply(editor: Editor, place: Place) -> bool:
    test = place.node
    opset, softmax, axes, number = place.match
    x = softmax.inputs[0]
    if opset >= AXES_ARE_AN_INPUT:
        top = editor.add(
            softmax, "ReduceMax", x, editor.constant(softmax, np.array(axes, np.int64)), keepdims=1
        )
    else:
        top = editor.add(softmax, "ReduceMax", x, axes=axes, keepdims=1)
    alive = editor.add(softmax, "Greater", top, editor.constant(softmax, np.array(-np.inf, number)))
    finite = editor.add(softmax, "Where", alive, x, editor.constant(softmax, np.array(0, number)))
    safe = editor.add(softmax, "Softmax", finite, **{name: a.value for name, a in softmax.attributes.items()})
    for where in [use.node for use in test.outputs[0].uses()]:
        other = where.inputs[1]
        for index, value in enumerate((alive, safe, other)):
            where.replace_input_with(index, value)
    editor.discard(test.outputs[0])  # and with it the softmax, if nothing else uses it
    return True


def _guarded(test: Any) -> Any:
    """The Softmax that *test*, an IsNaN, guards, if it does nothing else."""
    value, nan = test.inputs[0], test.outputs[0]
    softmax = producer(value, "Softmax")
    if softmax is None or nan.is_graph_output() or not nan.uses():
        return None
    chooses = all(
        producer(use.node.outputs[0], "Where") and use.idx == 0 and use.node.inputs[2] is value
        for use in nan.uses()
    )
    return softmax if chooses and not any(a.is_ref() for a in softmax.attributes.values()) else None


def _axes(softmax: Any, opset: int, reading: Reading) -> list[int] | None:
    """The axes that *softmax* sums over, or None where that needs a rank that is not known."""
    axis = softmax.attributes.get_int("axis", -1 if opset >= ONE_AXIS else 1)
    if opset >= ONE_AXIS or axis == -1:
        return [axis]
    dims = reading.dims(softmax.inputs[0])
    return None if dims is None else list(range(axis % len(dims), len(dims)))


RULE = Rule(
    name=NAME,
    hazard="MNN refuses IsNaN, which exporters put around the softmax of an attention with masks",
    severity="refused",
    operators=frozenset({"IsNaN"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    remedy="mask with a large negative number in place of -inf, or guard by the row's maximum",
)
