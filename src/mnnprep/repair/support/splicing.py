"""Putting the body of a function in the place of a node that calls it.

A body is an ONNX function: one that ONNX itself defines an operator by, or a text in ONNX's own notation
(``onnx.parser``), which says best what an operator computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.support.editor import Editor, graph_of
from mnnprep.repair.support.reading import ModelView, bodies

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Number, Operand

CALL = "_call"


def write_out(
    editor: Editor,
    node: ir.Node,
    lines: str,
    inputs: Mapping[str, Operand],
    outputs: Sequence[str],
    constants: Mapping[str, Number],
) -> None:
    """Let *lines*, statements in ONNX's notation at the opset of *node*'s graph, take its place.

    *inputs* names the values that the lines use, *constants* the numbers (a Python float is a float32, an int
    or a list of them an int64);
    *outputs* are the names in the lines of the node's outputs, in its order.  An input that is None must not
    be used.
    """
    parser, ir = require("onnx.parser"), require("onnx_ir")
    values = {name: value for name, value in inputs.items() if value is not None}
    for name, number in constants.items():
        dtype = {float: np.float32, int: np.int64, bool: np.bool_, list: np.int64}.get(type(number))
        values[name] = editor.constant(node, np.asarray(number, dtype))
    head = f'<domain: "mnnprep", opset_import: ["" : 1]> body ({", ".join(values)}) => ({", ".join(outputs)})'
    function = ir.from_proto(parser.parse_function(f"{head} {{\n{lines}\n}}"))
    splice(editor, node, function, [values[v.name] for v in function.inputs])


def schema_body(node: ir.Node, version: int, view: ModelView, keep: frozenset[str]) -> ir.Graph | None:
    """Return the graph that ONNX defines *node* by at this version of its domain.

    The operators inside that are not in *keep* are written out as well.

    None if ONNX has no body for the operator at this opset, for these attributes or for what is known of
    its inputs.
    """
    ir, inliner, onnx = require("onnx_ir"), require("onnx.inliner"), require("onnx")
    if any(value is not None and not view.dtype(value) for value in node.inputs):
        return None
    helper, schema = onnx.helper, onnx.defs.get_schema(node.op_type, version, node.domain)
    call = ir.to_proto(node)
    del call.input[:], call.output[:], call.metadata_props[:]
    call.input.extend(f"{CALL}_in{i}" if value is not None else "" for i, value in enumerate(node.inputs))
    call.output.extend(f"{CALL}_out{i}" if _wanted(value) else "" for i, value in enumerate(node.outputs))
    for name, attribute in schema.attributes.items():
        if (
            name not in node.attributes and attribute.default_value.type
        ):  # the inliner takes an absent one for none at all
            call.attribute.append(attribute.default_value)
    infos = [
        _info(name, value, view) if value is not None else None
        for name, value in zip(call.input, node.inputs, strict=True)
    ]
    function = _function(
        call, version, [info.type.SerializeToString() if info is not None else b"" for info in infos]
    )
    if function is None:
        return None
    function.name, function.domain, call.op_type, call.domain = CALL, CALL, CALL, CALL
    given = [onnx.ValueInfoProto(name=name) for name in call.output if name]
    graph = helper.make_graph([call], CALL, [info for info in infos if info is not None], given)
    versions = {**view.model.opset_imports, node.domain: version, CALL: 1}
    model = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid(*pair) for pair in versions.items()]
    )
    try:
        model = inliner.inline_selected_functions(
            model, [("", name) for name in sorted(keep)], exclude=True, inline_schema_functions=True
        )
    except Exception:  # a body that can't be written out with what is known
        return None
    return _graph(model)


def _graph(model: onnx.ModelProto) -> ir.Graph:
    graph: ir.Graph = require("onnx_ir").from_proto(model).graph
    return graph


def _function(call: onnx.NodeProto, version: int, types: list[bytes]) -> onnx.FunctionProto | None:
    """The newest FunctionProto of the called operator that serves this version; None if there is none."""
    schema = require("onnx").defs.get_schema(call.op_type, version, call.domain)
    try:
        if schema.has_function:
            text = schema.get_function_with_opset_version(
                max(v for v in schema.function_opset_versions if v <= version)
            )
        else:
            versions = [v for v in schema.context_dependent_function_opset_versions if v <= version]
            text = schema.get_context_dependent_function_with_opset_version(
                max(versions), call.SerializeToString(), types
            )
    except (ValueError, RuntimeError):  # no version is as old, or the attributes are none that it takes
        return None
    function: onnx.FunctionProto = require("onnx").FunctionProto()
    function.ParseFromString(text)
    return function if function.node else None


def _info(name: str, value: ir.Value, view: ModelView) -> onnx.ValueInfoProto:
    helper, types = require("onnx.helper"), require("onnx").TensorProto.DataType
    info: onnx.ValueInfoProto = helper.make_tensor_value_info(
        name, types.Value(view.dtype(value)), view.dims(value)
    )
    return info


def splice(editor: Editor, node: ir.Node, body: ir.Graph | ir.Function, inputs: Sequence[ir.Value]) -> None:
    """Put the nodes of *body* in the place of *node*, its inputs being *inputs*.

    *body* is an onnx-ir graph or function.

    Its outputs become those of *node*'s outputs that have a use.
    """
    results = insert(editor, node, body, inputs)
    wanted = [value for value in node.outputs if _wanted(value)]
    if len(results) == len(node.outputs) != len(wanted):
        results = [result for value, result in zip(node.outputs, results, strict=True) if _wanted(value)]
    for index, result in enumerate(results):
        if (
            result.producer() is None
            or result in inputs
            or result in results[:index]
            or result.is_graph_output()
        ):  # a value has one name
            results[index] = editor.add(node, "Identity", result)
    editor.replace_outputs(node, dict(zip(wanted, results, strict=True)))


def insert(
    editor: Editor, node: ir.Node, body: ir.Graph | ir.Function, inputs: Sequence[ir.Value]
) -> list[ir.Value]:
    """Move the nodes of *body* before *node*, its inputs being *inputs*; the values that are its outputs."""
    formal, results, inner = list(body.inputs), list(body.outputs), list(body)
    for value, actual in zip(formal, inputs, strict=True):
        value.replace_all_uses_with(actual, replace_graph_outputs=True)
        results = [actual if result is value else result for result in results]
    body.outputs.clear()
    body.remove(inner)
    for new in inner:
        _rename(editor, node, new)
    graph_of(node).insert_before(node, inner)
    for new in reversed(inner):
        if not any(value in results for value in new.outputs):
            editor.discard(new.outputs[0])
    return results


def _wanted(value: ir.Value) -> bool:
    return bool(value.name) and bool(value.uses() or value.is_graph_output())


def _rename(editor: Editor, node: ir.Node, new: ir.Node) -> None:
    new.name = editor.name(node)
    for value in new.outputs:
        if value.name:
            value.name = editor.name(node)
    for attribute in new.attributes.values():
        for graph in bodies(attribute):
            for value in graph.inputs:
                value.name = editor.name(node)
            for inner in graph:
                _rename(editor, node, inner)
