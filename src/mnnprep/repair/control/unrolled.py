"""Scan, and the Loop and If whose course is fixed, written out.

Measured with MNN 3.6.1: Scan is refused; a Loop or If that hands on a sequence is refused or gives nothing.
A Scan over a length that is the same for every input becomes as many copies of its body; so does a Loop of a
constant count whose condition is always true, if a sequence is among its values; of an If with a constant
condition the branch that is taken stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SCAN_UNBATCHED
from mnnprep.repair.support.reading import ModelView, producer, scalar
from mnnprep.repair.support.splicing import insert, splice

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "unrolled"
MOST_NODES = 20_000


def _find(view: ModelView) -> Iterator[Match[int]]:
    for node, opset in view.nodes("Scan"):
        count = _scan_length(node, opset, view)
        yield Match(at=node, opset=opset, found=count, repairable=count is not None and _fits(node, count))
    for node, opset in view.nodes("Loop"):
        if any(_is_sequence(v) for v in (*node.inputs, *node.outputs)) or _has_sequences(node):
            count = _loop_count(node)
            yield Match(
                at=node,
                detail="a sequence",
                opset=opset,
                found=count,
                repairable=count is not None and _fits(node, count),
            )
    for node, _ in view.nodes("If"):
        condition = scalar(node.inputs[0])
        if condition is not None or any(_is_sequence(v) for v in node.outputs) or _has_sequences(node):
            taken = None if condition is None else int(bool(condition))
            yield Match(at=node, found=taken, repairable=condition is not None)


def _apply(editor: Editor, match: Match[int]) -> bool:
    node = match.node
    if node.op_type == "If":
        branch = node.attributes["then_branch" if match.plan else "else_branch"].value
        splice(editor, node, _copy(editor, node, branch), [])
    elif node.op_type == "Scan":
        _scan(editor, node, match.plan, match.opset)
    else:
        _loop(editor, node, match.plan, match.opset)
    return True


def _scan(editor: Editor, node: ir.Node, count: int, opset: int) -> None:
    body = node.attributes["body"].value
    scanned = node.attributes.get_int("num_scan_inputs")
    first = len(node.inputs) - scanned
    states, sequences = [fed(node, i) for i in range(first)], [fed(node, first + i) for i in range(scanned)]
    axes = node.attributes.get_ints("scan_input_axes", [0] * scanned)
    backwards = node.attributes.get_ints("scan_input_directions", [0] * scanned)
    stacked = len(node.outputs) - len(states)
    steps: list[list[ir.Value]] = [[] for _ in range(stacked)]
    for step in range(count):
        parts = [
            editor.add(
                node,
                "Gather",
                value,
                editor.constant(node, np.array(count - 1 - step if back else step, np.int64)),
                axis=axis,
            )
            for value, axis, back in zip(sequences, axes, backwards, strict=True)
        ]
        results = insert(editor, node, _copy(editor, node, body), [*states, *parts])
        states = results[: len(states)]
        for collected, result in zip(steps, results[len(states) :], strict=True):
            collected.append(result)
    out_axes = node.attributes.get_ints("scan_output_axes", [0] * stacked)
    out_backwards = node.attributes.get_ints("scan_output_directions", [0] * stacked)
    joined = [
        _stack(editor, node, parts[::-1] if back else parts, axis, opset)
        for parts, axis, back in zip(steps, out_axes, out_backwards, strict=True)
    ]
    _finish(editor, node, [*states, *joined])


def _loop(editor: Editor, node: ir.Node, count: int, opset: int) -> None:
    body = node.attributes["body"].value
    states = [fed(node, i) for i in range(2, len(node.inputs))]
    collected: list[list[ir.Value]] = [[] for _ in range(len(node.outputs) - len(states))]
    true = editor.constant(node, np.array(True))
    shape = body.inputs[0].shape  # torch's exporter counts in a tensor of one element
    counted = shape is not None and len(shape) == 1
    for step in range(count):
        results = insert(
            editor,
            node,
            _copy(editor, node, body),
            [editor.constant(node, np.array([step] if counted else step, np.int64)), true, *states],
        )[1:]
        states = results[: len(states)]
        for parts, result in zip(collected, results[len(states) :], strict=True):
            parts.append(result)
    _finish(editor, node, [*states, *[_stack(editor, node, parts, 0, opset) for parts in collected]])


def _finish(editor: Editor, node: ir.Node, results: list[ir.Value]) -> None:
    """Let the results be the node's outputs, each by a value of its own."""
    wanted = [
        (value, editor.add(node, "Identity", result))
        for value, result in zip(node.outputs, results, strict=True)
        if value.name
    ]
    for value, copy in wanted:
        copy.type = copy.type or value.type
    editor.replace_outputs(node, dict(wanted))


def _stack(editor: Editor, node: ir.Node, parts: list[ir.Value], axis: int, opset: int) -> ir.Value:
    return editor.add(
        node, "Concat", *[Builder(editor, node, opset).unsqueeze(part, axis) for part in parts], axis=axis
    )


def _copy(editor: Editor, node: ir.Node, body: ir.Graph) -> ir.Graph:
    """A copy of a body whose initializers are constants before *node*."""
    copy: ir.Graph = body.clone(allow_outer_scope_values=True)
    for value in list(copy.initializers.values()):
        assert value.const_value is not None  # an initializer of a body
        value.replace_all_uses_with(
            editor.constant(node, value.const_value.numpy()), replace_graph_outputs=True
        )
    copy.initializers.clear()
    return copy


def _scan_length(node: ir.Node, opset: int, view: ModelView) -> int | None:
    if opset < SCAN_UNBATCHED:
        return None
    scanned = node.attributes.get_int("num_scan_inputs")
    axes = node.attributes.get_ints("scan_input_axes", [0] * scanned)
    for value, axis in zip(node.inputs[len(node.inputs) - scanned :], axes, strict=True):
        dims = view.dims(value)
        if dims is not None and isinstance(size := dims[axis], int) and size > 0:
            return size
    return None


def _loop_count(node: ir.Node) -> int | None:
    count = scalar(node.inputs[0])
    if count is None or count < 1 or (node.inputs[1] is not None and not scalar(node.inputs[1])):
        return None
    body = node.attributes["body"].value
    go_on = body.outputs[0]
    for _ in range(4):
        if go_on is body.inputs[1]:
            return int(count)
        if producer(go_on, "Identity") is None:
            break
        go_on = go_on.producer().inputs[0]
    return int(count) if scalar(go_on) else None


def _fits(node: ir.Node, count: int) -> bool:
    return count * sum(1 for _ in node.attributes["body"].value.all_nodes()) <= MOST_NODES


def _is_sequence(value: Operand) -> bool:
    ir = require("onnx_ir")
    return value is not None and isinstance(value.type, (ir.SequenceType, ir.OptionalType))


def _has_sequences(node: ir.Node) -> bool:
    inner = [n for a in node.attributes.values() if a.type.name == "GRAPH" for n in a.value.all_nodes()]
    return any(
        n.op_type.startswith(("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence")) for n in inner
    )


RULE = Rule(
    name=NAME,
    severity="refused",
    operators=frozenset({"Scan", "Loop", "If"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    preparation=True,
    hazard="MNN refuses Scan, and a Loop or If that passes on a sequence",
    remedy="export for a fixed length, so that the loop is written out",
)
