"""Rewriting a GraphDef: what reaches the outputs, what of it is training, which names it has.

Format facts: tensorflow/core/framework/{graph,node_def,function}.proto.  A node's input is ``NODE``,
``NODE:PORT`` or ``^NODE`` (control); in a function body ``NODE:ARG:PORT``.  A Switch gives its data at port 0
if the predicate is false and at port 1 where it is true; a Merge gives the one input that is alive
(tensorflow/core/ops/control_flow_ops.cc).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import GraphDef, NodeDef

VARIABLE_OPS = frozenset({"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable", "AutoReloadVariable"})
ASSIGN_OPS = frozenset(
    {
        "Assign",
        "AssignAdd",
        "AssignSub",
        "AssignVariableOp",
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "ResourceScatterUpdate",
    }
)
TABLE_OPS = (
    "HashTable",
    "HashTableV2",
    "MutableHashTable",
    "MutableHashTableV2",
    "LookupTableFind",
    "LookupTableFindV2",
)
INPUT_OPS = ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")
PIPELINE = re.compile(r"Iterator|Dataset|Queue|Reader|ReadFile|ParseExample|DecodeJpeg|DecodePng")
RANDOM = re.compile(
    r"^(Stateless|Stateful)?(Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial)"
)
FLAG = re.compile(
    r"(^|[/_])(is_?)?train(ing)?(_?phase|_?mode|_?flag)?(_\d+)?$|learning_phase|phase_train|is_train",
    re.IGNORECASE,
)


def producer(name: str) -> str:
    """The node that an input text names."""
    return name.lstrip("^").partition(":")[0]


def tensor(name: str) -> str:
    """An input text as ``NODE:PORT``."""
    return name if ":" in name else f"{name}:0"


def nodes_of(graph: GraphDef) -> dict[str, NodeDef]:
    """Return the nodes of the main graph by name."""
    return {node.name: node for node in graph.node}


def ancestors(graph: GraphDef, roots: Iterable[str], *, control: bool) -> set[str]:
    """The names of the nodes that *roots* (node names) need, themselves included."""
    nodes = nodes_of(graph)
    found: set[str] = set()
    waiting = [r for r in roots if r in nodes]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [
            p for i in nodes[name].input if (control or not i.startswith("^")) and (p := producer(i)) in nodes
        ]
    return found


def called(node: NodeDef, library: Container[str]) -> Iterator[str]:
    """Return the functions of the *library* that a node calls, by its attributes or its operator.

    A function hides an operator of its name.
    """
    names = [node.op]
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            names.append(attribute.func.name)
        names += [f.name for f in attribute.list.func]
    return (name for name in names if name in library)


def reached(graph: GraphDef, roots: Iterable[str], *, control: bool = True) -> Iterator[tuple[str, NodeDef]]:
    """Every node that *roots* need, with its place: those of function bodies as ``FUNCTION/NODE``."""
    library = {f.signature.name: f for f in graph.library.function}
    seen: set[str] = set()
    kept = ancestors(graph, roots, control=control)
    waiting: list[tuple[str, Any]] = [(node.name, node) for node in graph.node if node.name in kept]
    while waiting:
        place, node = waiting.pop(0)
        yield place, node
        for name in called(node, library):
            if name not in seen:
                seen.add(name)
                waiting += [(inner.name, inner) for inner in library[name].node_def]


def in_training(node: NodeDef) -> bool:
    """Whether a fused batch norm takes the batch's own statistics.

    Also if the attribute was left out, for its default is true.
    """
    return "is_training" not in node.attr or bool(node.attr["is_training"].b)


def leftovers(graph: GraphDef, roots: Iterable[str]) -> list[str]:
    """Name what behaves as in training on the way to *roots*, each with its operator, node and reason."""
    found = []
    for place, node in reached(graph, roots):
        if node.op.startswith("FusedBatchNorm") and "Grad" not in node.op and in_training(node):
            found.append(f"{node.op} {place} has is_training set")
        elif node.op in ASSIGN_OPS:
            found.append(f"{node.op} {place} writes a variable")
        elif RANDOM.match(node.op) and "dropout" in place.lower():
            found.append(f"{node.op} {place} draws a dropout mask")
    return sorted(found)


def before_pipeline(graph: GraphDef, roots: Iterable[str]) -> set[str]:
    """The last nodes on the way to *roots* that an input of the graph reaches and no data pipeline does."""
    reads: dict[str, tuple[bool, bool]] = {}  # (an input, a pipeline)
    for node in in_order(graph):
        behind = [reads.get(producer(i), (False, False)) for i in node.input]
        reads[node.name] = (
            node.op in INPUT_OPS or any(b[0] for b in behind),
            bool(PIPELINE.search(node.op)) or any(b[1] for b in behind),
        )
    kept = ancestors(graph, roots, control=False)
    clean = {n for n in kept if reads[n] == (True, False)}
    last = {producer(i) for node in graph.node if node.name in kept - clean for i in node.input} & clean
    return {node.name for node in graph.node if node.name in last and node.op not in INPUT_OPS}


def prune(graph: GraphDef, roots: Iterable[str], *, control: bool = False) -> GraphDef:
    """A GraphDef with what *roots* need, and the functions that it calls.

    Without *control* the control inputs go: in inference nothing waits for a side effect.
    """
    graph_pb2 = require("tensorflow.core.framework.graph_pb2")
    kept = ancestors(graph, roots, control=control)
    pruned = graph_pb2.GraphDef(versions=graph.versions)
    library = {f.signature.name: f for f in graph.library.function}
    needed: list[str] = []
    for node in graph.node:
        if node.name in kept:
            copy = pruned.node.add()
            copy.CopyFrom(node)
            data = [i for i in node.input if control or not i.startswith("^")]
            if len(data) != len(node.input):
                del copy.input[:]
                copy.input.extend(data)
            needed += called(node, library)
    taken: set[str] = set()
    while needed:
        name = needed.pop(0)
        if name not in taken:
            taken.add(name)
            for inner in library[name].node_def:
                needed += called(inner, library)
    pruned.library.function.extend(library[name] for name in sorted(taken))
    return pruned


def state_defaults(graph: GraphDef) -> None:
    """Write the attributes that nodes leave out because they are at their default.

    MNN's converter knows no defaults.
    """
    registry = require("tensorflow.python.framework.op_def_registry")
    for node in graph.node:
        definition = registry.get(node.op)
        for attribute in definition.attr if definition is not None else ():
            if attribute.HasField("default_value") and attribute.name not in node.attr:
                node.attr[attribute.name].CopyFrom(attribute.default_value)


def is_flag(node: NodeDef) -> bool:
    """Whether a node is an input that switches training on: boolean, and called so."""
    types_pb2 = require("tensorflow.core.framework.types_pb2")
    return (
        node.op in INPUT_OPS and node.attr["dtype"].type == types_pb2.DT_BOOL and bool(FLAG.search(node.name))
    )


def resolve_flags(graph: GraphDef, flags: Iterable[str]) -> None:
    """Set the inputs *flags* to False for good: the branches of Switch and Merge that training takes go."""
    found = _Resolved(flags)
    for node in in_order(graph):
        found.follow(node)
    redirect(graph, found.alias)


def redirect(graph: GraphDef, alias: Mapping[str, str]) -> None:
    """Let what reads a tensor of *alias* read the one that stands for it."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if not name.startswith("^") and tensor(name) in alias:
                node.input[index] = _short(_follow(alias, tensor(name)))


class _Resolved:
    """The consequences of flags that are False.

    They are the values known, the tensors that stand for others, and those that nothing computes any more
    (with a caret, nodes).
    """

    def __init__(self, flags: Iterable[str]) -> None:
        self.known: dict[str, bool] = {f"{name}:0": False for name in flags}
        self.alias: dict[str, str] = {}
        self.dead: set[str] = set()

    def follow(self, node: NodeDef) -> None:
        """Note what *node* gives, whose inputs were followed before it."""
        data = [self.alias.get(tensor(i), tensor(i)) for i in node.input if not i.startswith("^")]
        awaited = [f"^{producer(i)}" for i in node.input if i.startswith("^")]
        if node.op != "Merge" and self.dead & {*data, *awaited}:
            self.dead |= {f"^{node.name}", *(f"{node.name}:{port}" for port in range(16))}
        elif f"{node.name}:0" in self.known:
            set_constant(node, False)
        elif node.op in _RESOLVERS:
            _RESOLVERS[node.op](self, node.name, data)

    def _identity(self, name: str, data: list[str]) -> None:
        if data[0] in self.known:
            self.known[f"{name}:0"] = self.known[data[0]]

    def _not(self, name: str, data: list[str]) -> None:
        if data[0] in self.known:
            self.known[f"{name}:0"] = not self.known[data[0]]

    def _switch(self, name: str, data: list[str]) -> None:
        if data[1] not in self.known:
            return
        taken = int(self.known[data[1]])
        self.alias[f"{name}:{taken}"] = data[0]
        self.dead.add(f"{name}:{1 - taken}")
        if data[0] in self.known:
            self.known[f"{name}:{taken}"] = self.known[data[0]]

    def _merge(self, name: str, data: list[str]) -> None:
        alive = [d for d in data if d not in self.dead]
        if len(alive) == 1 < len(data):
            self.alias[f"{name}:0"] = alive[0]

    def _select(self, name: str, data: list[str]) -> None:
        if data[0] in self.known:
            self.alias[f"{name}:0"] = data[1 if self.known[data[0]] else 2]


_RESOLVERS = {
    "Identity": _Resolved._identity,
    "LogicalNot": _Resolved._not,
    "Switch": _Resolved._switch,
    "Merge": _Resolved._merge,
    "Select": _Resolved._select,
}


def set_constant(node: NodeDef, value: bool | float) -> None:
    """Make *node* a scalar constant: a truth value, or a number in float32."""
    types_pb2 = require("tensorflow.core.framework.types_pb2")
    truth = isinstance(value, bool)
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = types_pb2.DT_BOOL if truth else types_pb2.DT_FLOAT
    tensor.tensor_shape.SetInParent()
    (tensor.bool_val if truth else tensor.float_val).append(value)


def _follow(alias: Mapping[str, str], name: str) -> str:
    while name in alias:
        name = alias[name]
    return name


def _short(name: str) -> str:
    return name.removesuffix(":0")


def in_order(graph: GraphDef) -> list[NodeDef]:
    """The nodes, each after what it needs (a NextIteration closes a loop and comes where it stands)."""
    nodes = nodes_of(graph)
    done: set[str] = set()
    order: list[Any] = []
    for first in graph.node:
        stack: list[tuple[Any, bool]] = [(first, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif node.name not in done:
                done.add(node.name)
                stack.append((node, True))
                stack += [
                    (nodes[p], False) for i in node.input if (p := producer(i)) in nodes and p not in done
                ]
    return order


def rename(graph: GraphDef, names: Mapping[str, str]) -> None:
    """Rename nodes, and what names them among the inputs of the top level."""
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for index, text in enumerate(node.input):
            old = producer(text)
            if old in names:
                node.input[index] = text.replace(old, names[old], 1)
