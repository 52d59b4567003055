"""The inference graph of a source, its large weights kept beside it.

A ConcreteFunction becomes a GraphDef in which every captured variable is a Const without its content; the
contents are read one at a time when the graph is written.  So a freeze costs the weights once more than
loading them, and the graph can be folded without a weight being touched: the artifact holds the source's
values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import functional, graphs
from mnnprep.model.files import Arrays
from mnnprep.wire.protobuf import delimited, encoded

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import ConcreteFunction, GraphDef, NodeDef, OpDef, TensorProto

Value = Callable[[], npt.NDArray[Any]]
GRAPH_LIMIT = (1 << 31) - (1 << 24)  # bytes: protobuf reads no message of 2 GiB
NODE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*$")  # tensorflow/core/graph/graph_constructor.cc
DROPPED_ATTRIBUTES = (
    "_class",
    "_output_shapes",
    "_gradient_op_type",
    "_XlaMustCompile",
    "_lower_using_switch_merge",
    "_num_original_outputs",
)
FOLDING = ("constfold", "dependency", "pruning")


@dataclass
class Skeleton:
    """A graph without its values, which ``values`` holds by Const node.

    They are the contents of the Const nodes that have none. ``inputs`` are the nodes that are inputs,
    ``outputs`` the names of the outputs: all as the user knows them, in order.
    """

    graph: GraphDef
    inputs: list[str]
    outputs: list[str]
    values: dict[str, Value] = field(default_factory=dict)

    def nbytes(self) -> int:
        """The bytes of the graph once its values are in it."""
        sizes = {
            name: _tensor_bytes(node.attr["value"].tensor)
            for name, node in graphs.nodes_of(self.graph).items()
            if name in self.values
        }
        return int(self.graph.ByteSize()) + sum(sizes.values())

    def write(self, path: Path) -> None:
        """Write the frozen GraphDef: the same skeleton always gives the same bytes.

        Raises:
            RefusedError: the graph takes 2 GiB or more, which no reader of protobuf takes.
        """
        if self.nbytes() >= GRAPH_LIMIT:
            raise RefusedError(
                "the frozen graph would be larger than protobuf can hold in one message (2 GiB)",
                seen=f"{self.nbytes()} bytes",
                next="prepare --to onnx: its weights lie in a file beside the model",
            )
        with path.open("wb") as file:
            for node in self.graph.node:
                _write_node(file, node, self.values.get(node.name))
            for number, part in ((2, self.graph.library), (4, self.graph.versions)):
                if part.ByteSize():
                    file.write(delimited(number, part.SerializeToString(deterministic=True)))

    def ended(self) -> Skeleton:
        """Return the same with every output at an end of the graph.

        MNN gives no tensor that something else goes on from.

        Such an output gets a Maximum with itself (for booleans LogicalOr), which changes no value and which
        MNN's converter keeps; Identity, Mul by 1, Add of 0 and a second node of the same kind it folds (MNN
        3.6.1).
        """
        used = {graphs.producer(i) for node in self.graph.node for i in node.input}
        types = {n.name: _output_type(n, 0) for n in self.graph.node if n.name in used & set(self.outputs)}
        if not types:
            return self
        graph = type(self.graph)()
        graph.CopyFrom(self.graph)
        moved = _rename_all(graph, dict.fromkeys(types, ""), {})
        boolean = require("tensorflow.core.framework.types_pb2").DT_BOOL
        for name, dtype in types.items():
            end = graph.node.add(
                name=name, op="LogicalOr" if dtype == boolean else "Maximum", input=[moved[name]] * 2
            )
            if dtype != boolean:
                end.attr["T"].type = dtype
        return Skeleton(
            graph, self.inputs, self.outputs, {moved.get(n, n): v for n, v in self.values.items()}
        )

    def constants(self) -> Arrays:
        """Every constant of the graph by its node's name."""
        tensor_util = require("tensorflow.python.framework.tensor_util")
        found: Arrays = {}
        for node in self.graph.node:
            if node.op == "Const":
                value = self.values.get(node.name)
                found[node.name] = value() if value else tensor_util.MakeNdarray(node.attr["value"].tensor)
        return found


def _tensor_bytes(proto: TensorProto) -> int:
    dtypes = require("tensorflow").dtypes
    return int(np.prod([d.size for d in proto.tensor_shape.dim], dtype=np.int64)) * int(
        dtypes.as_dtype(proto.dtype).size
    )


def _write_node(file: BinaryIO, node: NodeDef, value: Value | None) -> None:
    """Write a node (GraphDef.node = 1).

    With a value, its attribute ``value`` comes last and its bytes straight from the array (NodeDef.attr = 5,
    its entry's value = 2, AttrValue.tensor = 8, TensorProto.tensor_content = 4).
    """
    if value is None:
        file.write(delimited(1, node.SerializeToString(deterministic=True)))
        return
    content: memoryview = np.ascontiguousarray(value()).reshape(-1).view(np.uint8).data
    head = type(node)()
    head.CopyFrom(node)
    tensor = head.attr["value"].tensor.SerializeToString(deterministic=True)
    del head.attr["value"]
    body = head.SerializeToString(deterministic=True)
    tensor += encoded(4 << 3 | 2) + encoded(len(content))
    inner = encoded(8 << 3 | 2) + encoded(len(tensor) + len(content)) + tensor
    entry = b"\x0a\x05value" + encoded(2 << 3 | 2) + encoded(len(inner) + len(content)) + inner
    body += encoded(5 << 3 | 2) + encoded(len(entry) + len(content)) + entry
    file.write(encoded(1 << 3 | 2) + encoded(len(body) + len(content)) + body)
    file.write(content)


def of_function(function: ConcreteFunction, inputs: list[str], outputs: list[str]) -> Skeleton:
    """The skeleton of a ConcreteFunction whose flat inputs and outputs are called so.

    Raises:
        RefusedError: a captured resource is not a variable (a table, an iterator); it is named.
    """
    graph = function.graph.as_graph_def()
    count = len(function.inputs) - len(function.captured_inputs)
    feeds = [t.op.name for t in function.inputs[:count]]
    fetches = [t.name for t in function.outputs]
    captured = dict(zip([t.op.name for t in function.inputs[count:]], function.captured_inputs, strict=True))
    variables = {id(v.handle): v for v in function.graph.variables}
    _clean(graph)
    graph = optimize(graph, [*feeds, *captured, *map(graphs.producer, fetches)], ("function",))
    values: dict[str, Value] = {}
    kinds: dict[str, tuple[int, list[int]]] = {}
    needed = graphs.ancestors(graph, map(graphs.producer, fetches), control=False)
    for name, tensor in captured.items():
        if name not in needed:
            continue
        variable = variables.get(id(tensor))
        if variable is None and tensor.dtype.name in ("resource", "variant"):
            lookups = [n for _, n in graphs.reached(graph, needed) if n.op in graphs.TABLE_OPS]
            users = lookups or [
                n for _, n in graphs.reached(graph, needed) if name in map(graphs.producer, n.input)
            ]
            raise RefusedError(
                "the model uses a table or another resource that can't become a constant",
                seen=f"{', '.join(f'{u.op} {u.name}' for u in users[:3]) or name}",
                next="remove the lookup from the graph: save a signature that starts from numbers",
            )
        source = tensor if variable is None else variable
        values[name] = lambda source=source: np.asarray(source.numpy())  # type: ignore[misc]
        kinds[name] = source.dtype.as_datatype_enum, source.shape.as_list()
    functional.dereference(graph, kinds)
    functional.name_functions(graph)
    graph = graphs.prune(graph, map(graphs.producer, fetches))
    graph = graphs.prune(
        optimize(graph, [*feeds, *kinds, *map(graphs.producer, fetches)], FOLDING),
        map(graphs.producer, fetches),
    )
    _clean(graph)
    for node in graph.node:
        if node.name in kinds:
            _empty_constant(node, *kinds[node.name])
    values = {n: v for n, v in values.items() if any(node.name == n for node in graph.node)}
    return _named(
        Skeleton(graph, [], [], values),
        dict(zip(inputs, feeds, strict=True)),
        dict(zip(outputs, fetches, strict=True)),
    )


def of_graph(graph: GraphDef, inputs: dict[str, str], outputs: dict[str, str]) -> Skeleton:
    """The skeleton of a frozen GraphDef: names of inputs to nodes, of outputs to tensors.

    Nothing of it is folded.
    """
    nodes = graphs.nodes_of(graph)
    for name in inputs.values():
        node = nodes[name]
        if node.op == "PlaceholderWithDefault":
            node.op = "Placeholder"
            del node.input[:]
    return _named(
        Skeleton(graphs.prune(graph, map(graphs.producer, outputs.values())), [], []), inputs, outputs
    )


def _clean(graph: GraphDef) -> None:
    """Remove what says where and how the graph was made, and would run: devices, colocation, debug traces."""
    for nodes in (graph.node, *(f.node_def for f in graph.library.function)):
        for node in nodes:
            node.device = ""
            node.ClearField("experimental_debug_info")
            for key in DROPPED_ATTRIBUTES:
                if key in node.attr:
                    del node.attr[key]


def optimize(graph: GraphDef, keep: Iterable[str], optimizers: tuple[str, ...]) -> GraphDef:
    """*graph* after Grappler's *optimizers* alone; the nodes *keep* stay.

    ``function`` inlines calls, also those marked stateful; control flow stays functional
    (tensorflow/python/framework/convert_to_constants.py does the same).
    """
    config_pb2 = require("tensorflow.core.protobuf.config_pb2")
    meta_graph_pb2 = require("tensorflow.core.protobuf.meta_graph_pb2")
    rewriter_config_pb2 = require("tensorflow.core.protobuf.rewriter_config_pb2")
    tf_optimizer = require("tensorflow.python.grappler.tf_optimizer")
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1
    rewrite.optimizers.extend(optimizers)
    if "function" in optimizers:
        rewrite.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    meta.collection_def["train_op"].node_list.value.extend(dict.fromkeys(keep))
    return tf_optimizer.OptimizeGraph(config, meta)


def _empty_constant(node: NodeDef, dtype: int, shape: list[int]) -> None:
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.dtype = dtype
    node.attr["value"].tensor.tensor_shape.SetInParent()
    for size in shape:
        node.attr["value"].tensor.tensor_shape.dim.add().size = size


def _named(skeleton: Skeleton, inputs: dict[str, str], outputs: dict[str, str]) -> Skeleton:
    """Give inputs and outputs their users' names.

    MNN drops an Identity at the end and shows the name before it, so the node that computes an output takes
    its name; an Identity is added only if one node gives several outputs or is an input or a constant.
    """
    for name in (*inputs, *outputs):
        if not NODE_NAME.match(name):
            raise RefusedError(
                "this name is not valid for a node of a graph",
                seen=repr(name),
                next="name the inputs and outputs with letters, digits and _",
            )
    graph = skeleton.graph
    nodes = graphs.nodes_of(graph)
    for feed in inputs.values():
        if feed not in nodes:  # declared, and used by no output: kept, so that the signature stays whole
            raise RefusedError(
                "an input of the model reaches none of its outputs",
                seen=feed,
                next="save a signature without it",
            )
    owners = dict(inputs)
    claimed = set(inputs.values())
    added: dict[str, str] = {}
    for name, text in outputs.items():
        origin = _origin(nodes, text)
        node = nodes[graphs.producer(origin)]
        if node.name in claimed or not origin.endswith(":0") or node.op == "Const" or _ports(node) != 1:
            added[name] = origin
        else:
            claimed.add(node.name)
            owners[name] = node.name
    names = {node: name for name, node in owners.items()}
    spared = dict(owners)
    for name in (*owners, *added):  # a stranger that has the name gives way
        spared.setdefault(name, "")
    moved = _rename_all(graph, spared, names)
    for name, origin in added.items():
        node = graph.node.add(name=name, op="Identity")
        source = graphs.producer(origin)
        node.input.append(f"{moved.get(source, source)}:{origin.partition(':')[2]}".removesuffix(":0"))
        node.attr["T"].type = _output_type(
            nodes[source] if source in nodes else nodes[origin], int(origin.partition(":")[2] or 0)
        )
    kept = graphs.prune(graph, (*outputs, *inputs))
    values = {moved.get(n, n): v for n, v in skeleton.values.items()}
    present = {node.name for node in kept.node}
    return Skeleton(kept, list(inputs), list(outputs), {n: v for n, v in values.items() if n in present})


def _origin(nodes: dict[str, Any], text: str) -> str:
    """The tensor behind a chain of Identities."""
    text = graphs.tensor(text)
    while (node := nodes[graphs.producer(text)]).op == "Identity":
        text = graphs.tensor(node.input[0])
    return text


def _rename_all(graph: GraphDef, owners: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    """Rename nodes to *names*; others that have such a name get a number. Gives old names to new."""
    taken = {node.name for node in graph.node} | set(owners)
    moved = dict(names)
    for node in graph.node:
        if node.name in owners and node.name not in names:
            number = 1
            while f"{node.name}_{number}" in taken:
                number += 1
            moved[node.name] = f"{node.name}_{number}"
            taken.add(moved[node.name])
    moved = {old: new for old, new in moved.items() if old != new}
    graphs.rename(graph, moved)
    return moved


def _op_def(node: NodeDef) -> OpDef:
    return require("tensorflow.python.framework.op_def_registry").get(node.op)


def _ports(node: NodeDef) -> int:
    """How many tensors a node gives; 0 when its operator is not known."""
    definition = _op_def(node)
    if definition is None:
        return 0
    return sum(
        int(node.attr[o.number_attr].i)
        if o.number_attr
        else len(node.attr[o.type_list_attr].list.type)
        if o.type_list_attr
        else 1
        for o in definition.output_arg
    )


def _output_type(node: NodeDef, port: int) -> int:
    types: list[int] = []
    for o in _op_def(node).output_arg:
        if o.type_list_attr:
            types += list(node.attr[o.type_list_attr].list.type)
        else:
            types += [o.type or int(node.attr[o.type_attr].type)] * (
                int(node.attr[o.number_attr].i) if o.number_attr else 1
            )
    return types[port]
