"""The guard ``Where(IsNaN(Softmax(x)), other, Softmax(x))`` that exporters put around attention.

A row of ``x`` that is ``-inf`` throughout (everything masked) has NaN as its softmax; the guard puts
``other`` there. MNN 3.6.1 refuses IsNaN.  The same is computed from the row's maximum: a row whose maximum is
not above ``-inf`` is replaced by zeros before the softmax and by ``other`` after it.  Measured: off by 6e-8,
at rows partly, wholly and not masked.

The same bits in onnxruntime for rows of finite numbers and ``-inf``.  A row with ``+inf`` or NaN, which the
guard would also have hidden, is not recognised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ONE_AXIS
from mnnprep.repair.support.reading import ModelView, producer

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "softmax-isnan-guard"
FLOATS: dict[str, type[np.floating[Any]]] = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16}


class Guard(NamedTuple):
    """The Softmax that is guarded, the axes that it sums over, and NumPy's type for its dtype."""

    softmax: ir.Node
    axes: list[int]
    number: type[np.floating[Any]]


def _find(view: ModelView) -> list[Match[Guard]]:
    matches = []
    for test, opset in view.nodes("IsNaN"):
        softmax = _guarded(test)
        if softmax is None:
            continue
        dtype = view.dtype(softmax.inputs[0]) or view.dtype(softmax.outputs[0])
        axes = _axes(softmax, opset, view)
        if axes is not None and dtype in FLOATS:
            matches.append(Match(at=test, opset=opset, found=Guard(softmax, axes, FLOATS[dtype])))
    return matches


def _apply(editor: Editor, match: Match[Guard]) -> bool:
    test = match.node
    softmax, axes, number = match.plan
    x = softmax.inputs[0]
    top = Builder(editor, softmax, match.opset).reduce("ReduceMax", x, axes, keep=True)
    alive = editor.add(softmax, "Greater", top, editor.constant(softmax, np.array(-np.inf, number)))
    finite = editor.add(softmax, "Where", alive, x, editor.constant(softmax, np.array(0, number)))
    safe = editor.add(softmax, "Softmax", finite, **attributes_of(softmax))
    for where in [use.node for use in test.outputs[0].uses()]:
        other = where.inputs[1]
        for index, value in enumerate((alive, safe, other)):
            where.replace_input_with(index, value)
    editor.discard(test.outputs[0])  # and with it the softmax, if nothing else uses it
    return True


def _guarded(test: ir.Node) -> ir.Node | None:
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


def _axes(softmax: ir.Node, opset: int, view: ModelView) -> list[int] | None:
    """The axes that *softmax* sums over, or None if that needs a rank that is not known."""
    axis = softmax.attributes.get_int("axis", -1 if opset >= ONE_AXIS else 1)
    if opset >= ONE_AXIS or axis == -1:
        return [axis]
    dims = view.dims(softmax.inputs[0])
    return None if dims is None else list(range(axis % len(dims), len(dims)))


RULE = Rule(
    name=NAME,
    hazard="MNN refuses IsNaN, which exporters put around the softmax of an attention with masks",
    severity="refused",
    operators=frozenset({"IsNaN"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    remedy="mask with a large negative number instead of -inf, or guard by the row's maximum",
)
