"""A TensorFlow file's own account of itself, read from its bytes.

It may be a SavedModel, a graph or a Keras file. No TensorFlow, nothing executed.

Format facts: tensorflow/core/protobuf/saved_model.proto (SavedModel: 2 meta_graphs) and meta_graph.proto
(MetaGraphDef: 2 graph_def, 5 signature_def; SignatureDef: 1 inputs, 2 outputs; TensorInfo: 1 name, 2 dtype, 3
tensor_shape), core/framework/graph.proto (GraphDef: 1 node, 2 library), node_def.proto (1 name, 2 op, 3
input, 5 attr), function.proto (1 signature, 3 node_def), attr_value.proto (1 list, 5 b, 6 type, 7 shape, 8
tensor, 10 func), tensor_shape.proto (2 dim, 3 unknown_rank), types.proto.  A map is a repeated message of 1
key and 2 value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.formats.tensorflow.graphs import ASSIGN_OPS, INPUT_OPS, RANDOM, TABLE_OPS, VARIABLE_OPS
from mnnprep.formats.tensorflow.operators import ALLOWED
from mnnprep.weights import tensorflow as checkpoints
from mnnprep.weights.places import Files
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields, signed, text

DTYPES = checkpoints.DTYPES | {7: "string", 20: "resource", 21: "variant"}
Extent = tuple[int, int]


class GraphSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A graph in figures; ``signatures`` are its inputs and outputs, by name.

    A frozen graph's only signature is called ``""``. ``ops`` counts what the signatures need, functions
    included; ``leftovers`` name what behaves as in training, ``tables`` what looks up text or numbers,
    ``variables`` what a graph has not frozen, ``effects`` what may do more than compute; ``parameters`` are
    elements, None if the weights can't be read.
    """

    signatures: dict[str, tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]]
    ops: dict[str, int]
    parameters: int | None
    leftovers: tuple[str, ...]
    tables: tuple[str, ...]
    variables: tuple[str, ...]
    effects: tuple[str, ...]


@dataclass
class _Node:
    name: str = ""
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    training: bool = True  # as the operators' definition says where the attribute was left out as a default
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None
    elements: int = 0  # of a constant


@dataclass
class _Graph:
    nodes: dict[str, _Node] = field(default_factory=dict)
    library: dict[str, list[_Node]] = field(default_factory=dict)


def scan_saved_model(directory: Path) -> GraphSummary:
    """Read ``saved_model.pb`` and the index of the variables.

    Raises:
        RefusedError: the file is damaged.
    """
    path = directory / "saved_model.pb"
    with _open(path) as data:
        meta = next((e for e in _messages(data, (0, len(data)), 2)), None)
        if meta is None:
            raise RefusedError("the SavedModel has no graph", seen=path.name, next="save it again")
        return _meta_graph(data, meta, directory / "variables" / "variables.index")


def scan_meta_graph(path: Path) -> GraphSummary:
    """Read the ``.meta`` file of a TF1 checkpoint and the index beside it.

    Raises:
        RefusedError: the file is damaged.
    """
    with _open(path) as data:
        return _meta_graph(data, (0, len(data)), path.with_suffix(".index"))


def scan_graph(path: Path) -> GraphSummary:
    """Read a GraphDef: its inputs are its placeholders, its outputs what nothing uses.

    Raises:
        RefusedError: the file is damaged.
    """
    with _open(path) as data:
        graph = _graph(data, [(0, len(data))])
    used = {_producer(i) for node in graph.nodes.values() for i in node.inputs}
    inputs = [n for n in graph.nodes.values() if n.op in INPUT_OPS]
    idle = {*INPUT_OPS, "NoOp", "Const", "Assert", *ASSIGN_OPS}
    ends = [n for n in graph.nodes.values() if n.name not in used and n.op not in idle]
    ports = (
        tuple(TensorInfo(n.name, n.dtype, n.shape) for n in inputs),
        tuple(TensorInfo(n.name) for n in ends),
    )
    elements = sum(n.elements for n in graph.nodes.values())
    return _summary({"": ports}, list(_everything(graph)), elements, graph.library)


class _open:
    """The bytes of a file, mapped; what is wrong with them is a RefusedError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped = mapped(path)

    def __enter__(self) -> Buffer:
        return self._mapped.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._mapped.__exit__(None, None, None)
        if isinstance(error, WireError):
            raise RefusedError(
                "the graph is truncated or damaged",
                seen=f"{self._path.name}: {error}",
                next="download or save it again",
            ) from error


def _meta_graph(data: Buffer, meta: Extent, index: Path) -> GraphSummary:
    graph = _graph(data, _messages(data, meta, 2))
    signatures = {}
    roots: set[str] = set()
    for name, extent in _map(data, meta, 5):
        inputs, outputs = (_ports(data, extent, number) for number in (1, 2))
        if name != "__saved_model_init_op":
            signatures[name] = tuple(i for _, i in inputs), tuple(o for _, o in outputs)
            roots |= {_producer(t) for t, _ in outputs}
    nodes = list(_reached(graph, roots) if roots else _everything(graph))
    return _summary(signatures, nodes, _variables(index), graph.library, ends_known=bool(roots))


def _variables(index: Path) -> int | None:
    """The elements of a checkpoint's numbers; None if it has no index."""
    if not index.is_file():
        return None
    with Files() as files:
        tree = checkpoints.read(files.at(index)).tree
    return sum(
        int(t.elements)
        for name, t in tree.items()
        if not name.startswith(("save_counter", "_CHECKPOINTABLE"))
    )


def _summary(
    signatures: dict[str, tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]],
    nodes: list[_Node],
    parameters: int | None,
    library: Container[str],
    *,
    ends_known: bool = True,
) -> GraphSummary:
    ops = Counter(node.op for node in nodes if node.op not in ("NoOp", "Const", *INPUT_OPS))
    leftovers = [
        f"{n.op} {n.name}: is_training is set"
        for n in nodes
        if n.training and n.op.startswith("FusedBatchNorm") and "Grad" not in n.op
    ]
    if ends_known:  # else the nodes that initialize and restore are among them
        leftovers += [f"{n.op} {n.name}: writes a variable" for n in nodes if n.op in ASSIGN_OPS]
    leftovers += [
        f"{n.op} {n.name}: draws a dropout mask"
        for n in nodes
        if RANDOM.match(n.op) and "dropout" in n.name.lower()
    ]
    return GraphSummary(
        signatures=signatures,
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        parameters=parameters,
        leftovers=tuple(leftovers),
        tables=tuple(f"{n.op} {n.name}" for n in nodes if n.op in TABLE_OPS),
        variables=tuple(f"{n.op} {n.name}" for n in nodes if n.op in VARIABLE_OPS),
        effects=tuple(f"{n.op} {n.name}" for n in nodes if n.op not in ALLOWED and n.op not in library),
    )


def _everything(graph: _Graph) -> Iterator[_Node]:
    yield from graph.nodes.values()
    for nodes in graph.library.values():
        yield from nodes


def _reached(graph: _Graph, roots: Iterable[str]) -> Iterator[_Node]:
    """The nodes that *roots* need, and those of the functions that they call, each function once."""
    seen: set[str] = set()
    called: set[str] = set()
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in graph.nodes:
            continue
        seen.add(name)
        waiting += [_producer(i) for i in graph.nodes[name].inputs]
    queue = [node for name, node in graph.nodes.items() if name in seen]
    for node in queue:  # grows while it is walked
        yield node
        for function in (node.op, *node.functions):
            if function not in called:
                called.add(function)
                queue += graph.library.get(function, [])


def _producer(name: str) -> str:
    return name.lstrip("^").partition(":")[0]


def _messages(data: Buffer, extent: Extent, number: int) -> Iterator[Extent]:
    """The extents of the occurrences of a message field."""
    for found, kind, first, last in fields(data, *extent):
        if found == number and kind == LENGTH:
            yield first, last


def _texts(data: Buffer, extent: Extent, number: int) -> list[str]:
    return [text(data, *e) for e in _messages(data, extent, number)]


def _number(data: Buffer, extent: Extent, number: int) -> int:
    return next(
        (first for found, kind, first, _ in fields(data, *extent) if found == number and kind == VARINT), 0
    )


def _map(data: Buffer, extent: Extent, number: int) -> list[tuple[str, Extent]]:
    """A map of text to messages, in the order of its keys."""
    entries = []
    for entry in _messages(data, extent, number):
        key = next(iter(_texts(data, entry, 1)), "")
        entries.append((key, next(_messages(data, entry, 2), (0, 0))))
    return sorted(entries)


def _ports(data: Buffer, extent: Extent, number: int) -> list[tuple[str, TensorInfo]]:
    """The tensors of a signature, each with the name it has in the graph."""
    found = []
    for name, info in _map(data, extent, number):
        tensor = next(iter(_texts(data, info, 1)), "")
        found.append(
            (
                tensor,
                TensorInfo(
                    name,
                    DTYPES.get(_number(data, info, 2), ""),
                    _shape(data, next(_messages(data, info, 3), None)),
                ),
            )
        )
    return found


def _shape(data: Buffer, extent: Extent | None) -> tuple[int | None, ...] | None:
    if extent is None or _number(data, extent, 3):
        return None
    sizes = [signed(_number(data, dim, 1)) for dim in _messages(data, extent, 2)]
    return tuple(None if size < 0 else size for size in sizes)


def _graph(data: Buffer, extents: Iterable[Extent]) -> _Graph:
    """A graph in one message, or in several that protobuf would join."""
    graph = _Graph()
    for extent in extents:
        for node in (_node(data, e) for e in _messages(data, extent, 1)):
            graph.nodes[node.name] = node
        for library in _messages(data, extent, 2):
            for function in _messages(data, library, 1):
                name = next((t for s in _messages(data, function, 1) for t in _texts(data, s, 1)), "")
                graph.library[name] = [_node(data, e) for e in _messages(data, function, 3)]
    return graph


def _node(data: Buffer, extent: Extent) -> _Node:
    node = _Node()
    for number, kind, first, last in fields(data, *extent):
        if kind != LENGTH:
            continue
        if number == 1:
            node.name = text(data, first, last)
        elif number == 2:
            node.op = text(data, first, last)
        elif number == 3:
            node.inputs.append(text(data, first, last))
        elif number == 5:
            _attribute(data, (first, last), node)
    return node


def _attribute(data: Buffer, entry: Extent, node: _Node) -> None:
    key = next(iter(_texts(data, entry, 1)), "")
    value = next(_messages(data, entry, 2), (0, 0))
    if key == "is_training":
        node.training = bool(_number(data, value, 5))
    elif key == "dtype":
        node.dtype = DTYPES.get(_number(data, value, 6), "")
    elif key == "shape":
        node.shape = _shape(data, next(_messages(data, value, 7), None))
    elif key == "value":
        for tensor in _messages(data, value, 8):
            sizes = _shape(data, next(_messages(data, tensor, 2), None))
            node.elements = element_count(tuple(s or 0 for s in sizes)) if sizes else 1
    for function in _messages(data, value, 10):
        node.functions += _texts(data, function, 1)
    for listed in _messages(data, value, 1):
        node.functions += [
            name for function in _messages(data, listed, 9) for name in _texts(data, function, 1)
        ]
