"""Operators of a graph that do more than compute, told from its protobuf before the graph is imported or run.

A node is judged if it can run: what the outputs need, control inputs and the functions it calls included.  In
a SavedModel those are the signatures, what initializes it, what restores its variables, and every function
that the object graph may call.
Format facts: tensorflow/core/protobuf/{saved_model,meta_graph,saver}.proto;
tensorflow/python/saved_model/load.py and load_v1_in_v2.py (what runs while a SavedModel is loaded: creators
and initializers of its resources, else the initializing operations and the saver's restoring one).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.operators import ALLOWED, EAGER
from mnnprep.text import listed

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import ConcreteFunction, GraphDef, MetaGraphDef, SavedObjectGraph

# what loading a SavedModel of TensorFlow 1 runs: its own initializing operation, else those of tables and
# local variables
INITIALIZERS = ("saved_model_main_op", "legacy_init_op", "table_initializer")
LOCAL_VARIABLES = "local_variables"


def refuse(effects: Iterable[str]) -> None:
    """Raise RefusedError naming *effects*, ``OPERATOR node`` each, if there are any."""
    found = sorted(set(effects))
    if found:
        raise RefusedError(
            "the graph has operators that may do more than compute (read or write files, run other code)",
            seen=listed(found, 5),
            next="pass --trust if you trust where it comes from, or save the model without them",
        )


def of_graph(graph: GraphDef, roots: Iterable[str] | None = None) -> Iterator[str]:
    """Return the effects of what the nodes *roots* of a GraphDef need.

    Without them, of all its nodes and functions.
    """
    library = {f.signature.name for f in graph.library.function}
    if roots is not None:
        return _not_allowed(graphs.reached(graph, roots, control=True), library)
    inner = ((node.name, node) for f in graph.library.function for node in f.node_def)
    return _not_allowed(itertools.chain(((node.name, node) for node in graph.node), inner), library)


def of_function(function: ConcreteFunction) -> Iterator[str]:
    """The effects of what a ConcreteFunction runs: what its outputs need, and what runs besides."""
    roots = [t.op.name for t in function.outputs] + [o.name for o in function.graph.control_outputs]
    return of_graph(function.graph.as_graph_def(), roots)


def of_saved_model(directory: str) -> list[str]:
    """Return the effects that loading and running a SavedModel may have, as TensorFlow reads them.

    All its meta graphs count.
    """
    parse = require("tensorflow.python.saved_model.loader_impl").parse_saved_model
    return [effect for meta in parse(directory).meta_graphs for effect in of_meta_graph(meta)]


def of_meta_graph(meta: MetaGraphDef) -> Iterator[str]:
    """The effects of a MetaGraphDef of a SavedModel."""
    graph, saver = meta.graph_def, meta.saver_def
    yield from of_graph(graph, _roots(meta))
    yield from restoring(
        graph, graphs.producer(saver.restore_op_name), graphs.producer(saver.filename_tensor_name)
    )
    yield from (f"{node.op} {node.name}" for node in graph.node if node.op in EAGER)
    named = _named_by_objects(meta.object_graph_def)
    savers = (
        _savers(graph, [graphs.producer(n) for n in (saver.restore_op_name, saver.save_tensor_name)]) - named
    )
    library = {f.signature.name for f in graph.library.function}
    for function in graph.library.function:
        name = function.signature.name
        if (meta.HasField("object_graph_def") or "api_implements" in function.attr) and name not in savers:
            yield from _not_allowed(((node.name, node) for node in function.node_def), library)


def _roots(meta: MetaGraphDef) -> set[str]:
    """The nodes that running a signature or loading the model asks for, restoring aside."""
    variable_pb2 = require("tensorflow.core.framework.variable_pb2")
    collections = dict(meta.collection_def.items())
    roots = [t.name for s in meta.signature_def.values() for t in _tensors(s.outputs.values())]
    roots += [name for key in INITIALIZERS if key in collections for name in collections[key].node_list.value]
    if LOCAL_VARIABLES in collections:
        stored = collections[LOCAL_VARIABLES].bytes_list.value
        roots += [variable_pb2.VariableDef.FromString(content).initializer_name for content in stored]
    return set(map(graphs.producer, roots))


def _named_by_objects(objects: SavedObjectGraph) -> set[str]:
    """The functions that the objects of a SavedModel name, which loading it may call."""
    named = set(objects.concrete_functions)
    for node in objects.nodes:
        named |= {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name}
    return named


def restoring(graph: GraphDef, root: str, filename: str) -> Iterator[str]:
    """Return the effects of the operation *root*, which may read variables from a file.

    The tensor *filename* names the file.
    """
    kept = graphs.ancestors(graph, [root], control=True)
    library = {f.signature.name: f for f in graph.library.function}
    waiting: list[tuple[str, list[Any], Callable[[str], bool]]] = [
        ("", [n for n in graph.node if n.name in kept], lambda text: graphs.producer(text) == filename)
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        place, nodes, is_filename = waiting.pop()
        for node in nodes:
            if node.op == "RestoreV2" and node.input and is_filename(node.input[0]):
                continue
            yield from _not_allowed([(f"{place}{node.name}", node)], library)
            for name in graphs.called(node, library):
                arguments = [a.name for a in library[name].signature.input_arg]
                given = frozenset(a for a, i in zip(arguments, node.input, strict=False) if is_filename(i))
                if (name, given) not in seen:
                    seen.add((name, given))
                    waiting.append((f"{name}/", list(library[name].node_def), given.__contains__))


def _savers(graph: GraphDef, roots: list[str]) -> set[str]:
    """The functions that the nodes *roots* need and nothing else of the graph does."""
    mine = graphs.ancestors(graph, roots, control=True)
    return _called_by(graph, mine) - _called_by(graph, {n.name for n in graph.node} - mine)


def _called_by(graph: GraphDef, names: set[str]) -> set[str]:
    """The functions that the nodes *names* call, and what those call."""
    library = {f.signature.name: f for f in graph.library.function}
    waiting = [name for node in graph.node if node.name in names for name in graphs.called(node, library)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [n for inner in library[name].node_def for n in graphs.called(inner, library)]
    return found


def _not_allowed(nodes: Iterable[tuple[str, Any]], library: Container[str]) -> Iterator[str]:
    return (
        f"{node.op} {place}" for place, node in nodes if node.op not in ALLOWED and node.op not in library
    )


def _tensors(infos: Iterable[Any]) -> Iterator[Any]:
    """The tensors in a signature's values: a composite or sparse one is made of several."""
    for info in infos:
        kind = info.WhichOneof("encoding")
        if kind == "composite_tensor":
            yield from _tensors(info.composite_tensor.components)
        elif kind == "coo_sparse":
            parts = info.coo_sparse
            names = (parts.values_tensor_name, parts.indices_tensor_name, parts.dense_shape_tensor_name)
            yield from (type(info)(name=name) for name in names)
        else:
            yield info
