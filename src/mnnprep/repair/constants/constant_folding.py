"""Folding: a model's computations on constants and on fixed sizes are done beforehand.

No hazard by itself: it shows the rules after it the constants that their rewrites need (the sizes of a Split,
the pads of a Pad, the limits of a Range), and takes away what MNN computes in 32 bits or by operators that it
does not read.

A node is folded where all it reads is constant, and a Shape or Size where the sizes it gives are known for
every input; the results by ONNX's reference implementation, up to LARGEST elements each and MOST in all,
which is known before one is computed (:mod:`mnnprep.repair.support.result_size`): a Range of a few bytes may
be as long as an int64.  Initializers stay as they are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, bodies, scopes, tensor
from mnnprep.repair.support.result_size import result_elements

if TYPE_CHECKING:
    import onnx_ir as ir


NAME = "constant-folding"
LARGEST = 1 << 16
MOST = 1 << 24
CLAMPED = 1 << 30  # int64 constants beyond are clamped by MNN
PLAIN = "biuf"  # NumPy's own kinds that a Constant may hold


def _find(view: ModelView) -> Iterator[Match[dict[ir.Value, Array]]]:
    known: dict[ir.Value, Array] = {}
    left = MOST
    for top, opset in scopes(view.model):
        for node in top.all_nodes():
            if node.domain not in STANDARD_DOMAINS or any(
                a.is_ref() or bodies(a) for a in node.attributes.values()
            ):
                continue
            results = _sizes(node, view) if node.op_type in ("Shape", "Size") else None
            if results is None:
                results = _computed(node, opset, known, min(left, LARGEST))
            if results is not None:
                known.update(zip(node.outputs, results, strict=True))
                left -= sum(array.size for array in results)
    for node, _ in view.everything:
        if all(value in known for value in node.outputs) and any(
            _is_read(value, known) for value in node.outputs
        ):
            yield Match(
                at=node,
                found={
                    value: known[value] for value in node.outputs if value.uses() or value.is_graph_output()
                },
            )


def _apply(editor: Editor, match: Match[dict[ir.Value, Array]]) -> bool:
    node = match.node
    if node.graph is None:
        return False
    editor.replace_outputs(node, {value: editor.constant(node, array) for value, array in match.plan.items()})
    return True


def _is_read(value: ir.Value, known: dict[ir.Value, Array]) -> bool:
    """Whether something that is not folded itself needs the value."""
    return value.is_graph_output() or any(
        any(out not in known for out in use.node.outputs) for use in value.uses()
    )


def _sizes(node: ir.Node, view: ModelView) -> list[Array] | None:
    dims = view.dims(node.inputs[0])
    if dims is None:
        return None
    if node.op_type == "Shape":
        dims = dims[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(dims))]
    numbers = static(dims)
    if numbers is None:
        return None
    return [np.array(numbers if node.op_type == "Shape" else math.prod(numbers), np.int64)]


def _computed(node: ir.Node, opset: int, known: dict[ir.Value, Array], largest: int) -> list[Array] | None:
    inputs = [_held(value, known) if value is not None else None for value in node.inputs]
    left_out = [value is None for value in node.inputs]
    if [array is None for array in inputs] != left_out or not inputs:
        return None
    elements = result_elements(node, inputs) if all(value.name for value in node.outputs) else None
    if elements is None or elements > largest:
        return None
    try:
        results = _evaluate(node, opset, [a for a in inputs if a is not None])
    except Exception:  # not in the reference implementation, or an error that the model would meet as well
        return None
    if node.op_type == "Cast" and any(array is not None and _beyond(array) for array in inputs):
        return None  # so it is written where int64 would be clamped
    plain = [
        np.asarray(r) for r in results if isinstance(r, np.ndarray | np.generic) and r.dtype.kind in PLAIN
    ]
    return plain if len(plain) == len(results) and all(r.size <= largest for r in plain) else None


def _beyond(array: Array) -> bool:
    """Whether these are int32 numbers that MNN would clamp as int64."""
    if array.dtype != np.int32 or not array.size:
        return False
    return bool((np.abs(array.astype(np.int64)) > CLAMPED).any())


def _held(value: ir.Value, known: dict[ir.Value, Array]) -> Array | None:
    if value in known:
        return known[value]
    found = tensor(value)
    if found is None or found.size > LARGEST or found.dtype.name == "STRING":
        return None
    array: Array = found.numpy()
    return array if array.dtype.kind in PLAIN else None


def _evaluate(node: ir.Node, opset: int, inputs: list[Array]) -> list[object]:
    """Return what ONNX's reference implementation computes of *inputs*: arrays, or a sequence or None."""
    ir, helper = require("onnx_ir"), require("onnx.helper")
    proto = ir.to_proto(node)
    names = iter(range(len(node.inputs)))
    fed: dict[str, Array] = {}
    del proto.input[:], proto.output[:]
    left = iter(inputs)
    for value in node.inputs:
        name = f"i{next(names)}" if value is not None else ""
        proto.input.append(name)
        if value is not None:
            fed[name] = next(left)
    proto.output.extend(f"o{i}" for i in range(len(node.outputs)))
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in fed.items()
    ]
    given = [require("onnx").ValueInfoProto(name=name) for name in proto.output]
    model = helper.make_model(
        helper.make_graph([proto], "n", infos, given), opset_imports=[helper.make_opsetid("", opset)]
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(require("onnx.reference").ReferenceEvaluator(model).run(None, fed))


RULE = Rule(
    name=NAME,
    severity="wrong",
    operators=frozenset(),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    preparation=True,
    hazard="computing with constants and fixed sizes hides them from the other repairs",
    remedy="fold constants when exporting",
)
