"""Variables to values: every read of a captured variable becomes a use of a plain tensor.

A variable is captured as a placeholder of type resource, read by ReadVariableOp, looked up by ResourceGather,
and handed as it is to the bodies of If, Case, While and calls that stay calls.  All of these are rewritten;
the placeholder then stands for the value (tensorflow/core/ops/resource_variable_ops.cc).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import graphs

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import FunctionDef, GraphDef, NodeDef

Kind = tuple[int, list[int]]  # (DataType, shape)
TYPE_LISTS = {
    "While": ("T",),
    "StatelessWhile": ("T",),
    "If": ("Tin",),
    "StatelessIf": ("Tin",),
    "Case": ("Tin",),
    "StatelessCase": ("Tin",),
    "PartitionedCall": ("Tin",),
    "StatefulPartitionedCall": ("Tin",),
}
SKIPPED_INPUTS = {
    "If": 1,
    "StatelessIf": 1,
    "Case": 1,
    "StatelessCase": 1,
}  # the condition precedes the arguments


def dereference(graph: GraphDef, kinds: dict[str, Kind]) -> None:
    """Rewrite *graph* so that the placeholders *kinds* (by node) are values of that dtype and shape.

    Raises:
        RefusedError: an operator uses a variable in another way; it is named.
    """
    library = {f.signature.name: f for f in graph.library.function}
    for node in graph.node:
        if node.name in kinds:
            dtype, shape = kinds[node.name]
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.Clear()
            for size in shape:
                node.attr["shape"].shape.dim.add().size = size
    extra = _rewrite(graph.node, {f"{n}:0": k for n, k in kinds.items()}, library, set())
    graph.node.extend(extra)


def name_functions(graph: GraphDef) -> None:
    """Name the library's functions by their order, not by the counters of the process that traced them.

    So the same source gives the same bytes, and a rewritten body never meets its original in one process.
    """
    names = {f.signature.name: f"function_{i}" for i, f in enumerate(graph.library.function)}
    for nodes in (graph.node, *(f.node_def for f in graph.library.function)):
        for node in nodes:
            for attribute in node.attr.values():
                for function in (
                    (attribute.func, *attribute.list.func)
                    if attribute.HasField("func") or attribute.list.func
                    else ()
                ):
                    function.name = names.get(function.name, function.name)
    for function in graph.library.function:
        function.signature.name = names[function.signature.name]
    del graph.library.gradient[:]


def _rewrite(
    nodes: Iterable[NodeDef],
    known: dict[str, Kind],
    library: dict[str, FunctionDef],
    done: set[str],
    *,
    body: bool = False,
) -> list[Any]:
    """Rewrite *nodes*, *known* mapping resource tensors to what they hold.

    The nodes are the graph's or a body's. Returns the nodes to add.
    """
    resource = require("tensorflow.core.framework.types_pb2").DT_RESOURCE
    extra: list[Any] = []
    changed = True
    while changed:
        changed = False
        for node in nodes:
            held = {
                i: k
                for i, name in enumerate(node.input)
                if (k := known.get(graphs.tensor(name) if not body else name)) is not None
            }
            if not held:
                continue
            if node.op == "Identity" and node.attr["T"].type == resource:
                node.attr["T"].type = held[0][0]
                known[f"{node.name}:output:0" if body else f"{node.name}:0"] = held[0]
                changed = True
            elif node.op == "ReadVariableOp":
                _to_identity(node, held[0][0])
            elif node.op == "ResourceGather":
                extra.append(_to_gather(node))
            elif node.op in TYPE_LISTS and _pass_on(node, held, library, done, resource):
                if "While" in node.op:  # a variable leaves a loop as it went in
                    for index, kind in held.items():
                        known[f"{node.name}:output:{index}" if body else f"{node.name}:{index}"] = kind
                changed = True
    _require_plain(nodes, known, body)
    return extra


def _to_identity(node: NodeDef, dtype: int) -> None:
    node.op = "Identity"
    node.attr.clear()
    node.attr["T"].type = dtype


def _to_gather(node: NodeDef) -> NodeDef:
    """ResourceGather as GatherV2 along axis 0; gives the node of the axis."""
    types_pb2 = require("tensorflow.core.framework.types_pb2")
    if node.attr["batch_dims"].i:
        raise RefusedError(
            "a batched lookup in a variable can't be frozen",
            seen=f"ResourceGather {node.name}",
            next="use tf.gather on a tensor",
        )
    axis = type(node)(name=f"{node.name}/axis", op="Const")
    axis.attr["dtype"].type = axis.attr["value"].tensor.dtype = types_pb2.DT_INT32
    axis.attr["value"].tensor.tensor_shape.SetInParent()
    axis.attr["value"].tensor.int_val.append(0)
    dtype, index = node.attr["dtype"].type, node.attr["Tindices"].type
    node.op = "GatherV2"
    node.attr.clear()
    node.attr["Tparams"].type, node.attr["Tindices"].type, node.attr["Taxis"].type = (
        dtype,
        index,
        types_pb2.DT_INT32,
    )
    del node.input[2:]
    node.input.append(axis.name)
    return axis


def _pass_on(
    node: NodeDef, held: dict[int, Kind], library: dict[str, FunctionDef], done: set[str], resource: int
) -> bool:
    """Give a functional node's bodies values in place of variables; whether something was left to do."""
    offset = SKIPPED_INPUTS.get(node.op, 0)
    lists = [node.attr[key].list.type for key in TYPE_LISTS[node.op]]
    if all(types[i - offset] != resource for types in lists for i in held):
        return False
    for types in lists:
        for index, (dtype, _) in held.items():
            types[index - offset] = dtype
    if "output_shapes" in node.attr and "While" not in node.op:
        del node.attr["output_shapes"]
    for name in graphs.called(node, library):
        function = library[name]
        arguments = {index - offset: kind for index, kind in held.items()}
        if name in done:
            if any(function.signature.input_arg[i].type != k[0] for i, k in arguments.items()):
                raise RefusedError(
                    "one function is called with variables of different types",
                    seen=name,
                    next="save the model with its functions inlined",
                )
            continue
        done.add(name)
        known = {}
        for index, kind in arguments.items():
            argument = function.signature.input_arg[index]
            argument.type = kind[0]
            argument.ClearField("handle_data")
            function.arg_attr.pop(index, None)
            known[argument.name] = kind
        function.node_def.extend(_rewrite(function.node_def, known, library, done, body=True))
        _fix_body(function, known)
    return True


def _fix_body(function: FunctionDef, known: dict[str, Kind]) -> None:
    """Rename outputs in a body, which names an operator's output by its argument.

    ReadVariableOp's ``value`` is Identity's ``output``.
    """
    renamed = {
        f"{n.name}:value:0": f"{n.name}:output:0"
        for n in function.node_def
        if n.op in ("Identity", "GatherV2")
    }
    for node in function.node_def:
        for index, text in enumerate(node.input):
            node.input[index] = renamed.get(text, text)
        if node.op == "GatherV2" and node.input[2] == f"{node.name}/axis":
            node.input[2] = f"{node.name}/axis:output:0"
    for key, text in list(function.ret.items()):
        function.ret[key] = renamed.get(text, text)
        for output in function.signature.output_arg:
            if output.name == key and function.ret[key] in known:
                output.type = known[function.ret[key]][0]
                output.ClearField("handle_data")


def _require_plain(nodes: Iterable[NodeDef], known: dict[str, Kind], body: bool) -> None:
    plain = {"Identity", "GatherV2", *TYPE_LISTS}
    for node in nodes:
        if (
            node.op not in plain
            and node.op not in graphs.ASSIGN_OPS
            and any((graphs.tensor(i) if not body else i) in known for i in node.input)
        ):
            if node.op in ("VarIsInitializedOp", "VariableShape"):
                raise RefusedError(
                    "an operator asks about a variable that would be a constant",
                    seen=f"{node.op} {node.name}",
                    next="take it out of the signature",
                )
            if node.op.startswith("Resource"):
                raise RefusedError(
                    "an operator writes or reads a variable in a way that can't be frozen",
                    seen=f"{node.op} {node.name}",
                    next="save an inference signature",
                )
