"""Graphs on disk: a GraphDef that should be frozen, and a TF1 checkpoint with its meta graph.

Format facts: tensorflow/core/framework/graph.proto, tensorflow/core/protobuf/meta_graph.proto; a checkpoint
``PREFIX`` is ``PREFIX.meta``, ``PREFIX.index`` and ``PREFIX.data-*`` (tensorflow/python/training/saver.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.tensorflow import dropout, effects, graphs
from mnnprep.formats.tensorflow.loaded import Loaded, guarded, refuse_texts, specs_of
from mnnprep.formats.tensorflow.skeleton import of_graph
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.safety.error_text import message
from mnnprep.text import listed

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import GraphDef, MetaGraphDef, Session, Tensor

M = TypeVar("M", "GraphDef", "MetaGraphDef")


def read_graph(path: str) -> GraphDef:
    """The GraphDef in a file.

    Raises:
        RefusedError: protobuf can't read it.
    """
    return _parse(require("tensorflow.core.framework.graph_pb2").GraphDef(), path, "graph")


def _parse(empty: M, path: str, title: str) -> M:
    """Return *empty*, a protobuf message, with what the file says; *title* is its name in a refusal."""
    try:
        empty.ParseFromString(Path(path).read_bytes())
    except Exception as error:  # google.protobuf.message.DecodeError
        raise RefusedError(
            f"the {title} can't be read", seen=message(error), next="download or save it again"
        ) from error
    return empty


def read_artifact(path: str) -> GraphDef:
    """The GraphDef in a file that nobody needs to trust.

    Raises:
        RefusedError: the file is damaged, or has operators that may do more than compute.
    """
    graph = read_graph(path)
    effects.refuse(effects.of_graph(graph))
    return graph


def load_graph(source: Source, wants: InputSpecs) -> Loaded:
    """Load a GraphDef as a source.

    Its inputs are its placeholders, its outputs ``--outputs``, else the nodes that nothing uses.

    TensorFlow is given what the outputs need and nothing else, so that no other node can run, and none needs
    to be judged.
    """
    graph = read_graph(source.path)
    graphs.state_defaults(graph)
    fetches = find_outputs(graph, source.outputs)
    refuse_unfrozen(graph, fetches)
    inference = in_inference(graph, fetches)
    alone = graphs.prune(
        fed(graph), [*map(graphs.producer, fetches.values()), *inference.feeds], control=True
    )
    return from_session(open_session(alone, trust=source.trust), inference, fetches, wants)


def load_checkpoint(source: Source, wants: InputSpecs) -> Loaded:
    """A TF1 checkpoint, by its ``.meta`` file: the variables restored in a session, and frozen from it.

    Of its graph only what restores the variables and what the outputs need is imported.
    """
    tf = require("tensorflow")
    v1 = tf.compat.v1
    prefix = source.path.removesuffix(".meta")
    if not Path(f"{prefix}.index").is_file():
        raise UsageError(
            "the checkpoint's index is not beside its meta graph",
            seen=f"{Path(prefix).name}.index",
            next="give the .meta file that has .index and .data files beside it",
        )
    meta = _read_meta(source.path)
    if not source.outputs:
        likely = [n for n in sinks(meta.graph_def) if not n.startswith("save/")]
        raise UsageError(
            "a checkpoint's meta graph does not say which nodes are its outputs",
            seen=", ".join(likely[:12]),
            next="name them with --outputs NODE,NODE",
        )
    fetches = find_outputs(meta.graph_def, source.outputs)
    roots = sorted({graphs.producer(t) for t in fetches.values()})
    saver = meta.saver_def
    restore, filename = graphs.producer(saver.restore_op_name), graphs.producer(saver.filename_tensor_name)
    if not source.trust:
        found = itertools.chain(
            effects.of_graph(fed(meta.graph_def), roots), effects.restoring(meta.graph_def, restore, filename)
        )
        effects.refuse(found)
    reads = [f"{node.name}/Read/ReadVariableOp" for node in meta.graph_def.node if node.op == "VarHandleOp"]
    alone = graphs.prune(meta.graph_def, [*roots, restore, filename, *reads], control=True)
    session = _session(v1.Graph())
    try:
        with session.graph.as_default():
            needed = type(meta)(meta_info_def=meta.meta_info_def, graph_def=alone, saver_def=saver)
            v1.train.import_meta_graph(needed, clear_devices=True).restore(session, prefix)
            pruned = graphs.prune(session.graph.as_graph_def(add_shapes=False), roots)
            frozen = v1.graph_util.convert_variables_to_constants(session, pruned, roots)
    except Exception as error:  # tf.errors.*, ValueError, KeyError
        raise RefusedError(
            "TensorFlow can't restore this checkpoint",
            seen=message(error),
            next="restore it where it was made, and freeze or save it as a SavedModel",
        ) from error
    return from_session(session, in_inference(frozen, fetches), fetches, wants)


def _read_meta(path: str) -> MetaGraphDef:
    return _parse(require("tensorflow.core.protobuf.meta_graph_pb2").MetaGraphDef(), path, "meta graph")


def _session(graph: GraphDef, *, optimize: bool = True) -> Session:
    v1 = require("tensorflow").compat.v1
    config = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    if not optimize:
        config.graph_options.optimizer_options.opt_level = -1  # OptimizerOptions.L0
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return v1.Session(graph=graph, config=config)


def open_session(graph: GraphDef, *, trust: bool, optimize: bool = True) -> Session:
    """A session on *graph*, one thread; without *optimize* it computes the graph as written.

    Raises:
        RefusedError: TensorFlow does not have an operator, or without *trust* one may do more than compute;
            it is named.
    """
    if not trust:
        effects.refuse(effects.of_graph(graph))
    v1 = require("tensorflow").compat.v1
    made = v1.Graph()
    try:
        with made.as_default():
            v1.import_graph_def(graph, name="")
    except Exception as error:  # ValueError, NotFoundError, InvalidArgumentError
        raise RefusedError(
            "TensorFlow can't load this graph",
            seen=message(error),
            next="an operator of your own must be built out of TensorFlow's, then save the graph again",
        ) from error
    return _session(made, optimize=optimize)


def sinks(graph: GraphDef) -> list[str]:
    """The nodes that an input reaches and whose result nothing uses, in the graph's order."""
    used = {graphs.producer(i) for node in graph.node for i in node.input}
    reached = {node.name for node in graph.node if node.op in graphs.INPUT_OPS and not graphs.is_flag(node)}
    for node in graphs.in_order(graph):
        if any(graphs.producer(i) in reached for i in node.input if not i.startswith("^")):
            reached.add(node.name)
    idle = (*graphs.INPUT_OPS, "NoOp", "Assert", *graphs.ASSIGN_OPS)
    return [
        node.name
        for node in graph.node
        if node.name in reached and node.name not in used and node.op not in idle
    ]


def find_outputs(graph: GraphDef, asked: tuple[str, ...]) -> dict[str, str]:
    """Names of outputs to tensors.

    Raises:
        UsageError: a name is not there.
        RefusedError: the graph has none.
    """
    nodes = graphs.nodes_of(graph)
    unknown = [a for a in asked if graphs.producer(a) not in nodes]
    if unknown:
        raise UsageError(
            f"the graph has no node {graphs.producer(unknown[0])}",
            seen=unknown[0],
            next="its ends are " + ", ".join(sinks(graph)[:12]),
        )
    names = list(asked) or sinks(graph)
    if not names:
        raise RefusedError(
            "the graph has no end node",
            seen=f"{len(nodes)} nodes",
            next="name the outputs with --outputs NODE,NODE",
        )
    return {name.removesuffix(":0").replace(":", "_"): graphs.tensor(name) for name in names}


def refuse_unfrozen(graph: GraphDef, fetches: dict[str, str]) -> None:
    """Refuse a graph whose outputs need variables or tables: their values are not in the file."""
    roots = [graphs.producer(t) for t in fetches.values()]
    found = [(place, node) for place, node in graphs.reached(graph, roots, control=False)]
    variables = [f"{node.op} {place}" for place, node in found if node.op in graphs.VARIABLE_OPS]
    if variables:
        raise RefusedError(
            "the graph is not frozen: its variables have no values in this file",
            seen=listed(variables, 3),
            next=(
                "give the checkpoint's .meta file with --outputs, or the SavedModel directory, or freeze the"
                " graph where the variables are"
            ),
        )
    tables = [f"{node.op} {place}" for place, node in found if node.op in graphs.TABLE_OPS]
    if tables:
        raise RefusedError(
            "the graph uses a lookup table that has no values in this file",
            seen=", ".join(tables[:3]),
            next="name outputs or inputs that need no table, with --outputs",
        )


@dataclass(frozen=True)
class Inference:
    """A graph set to inference.

    ``feeds`` are its inputs; ``fixed`` the inputs that switched training on, which are fed False, or said how
    much a dropout keeps, which are fed what keeps all.
    """

    graph: GraphDef
    feeds: list[str]
    fixed: dict[str, bool | float]
    notes: list[str]


def fed(graph: GraphDef) -> GraphDef:
    """*graph* with a Placeholder for every PlaceholderWithDefault: what fed it (a data pipeline) goes."""
    made = type(graph)()
    made.CopyFrom(graph)
    for node in made.node:
        if node.op == "PlaceholderWithDefault" and not graphs.is_flag(node):
            del node.input[:]
            node.op = "Placeholder"
    return made


def in_inference(graph: GraphDef, fetches: dict[str, str]) -> Inference:
    """*graph* with constants for the inputs that switch training on, or say how much a dropout keeps.

    Raises:
        RefusedError: an output reads from a pipeline.
    """
    notes: list[str] = []
    roots = [graphs.producer(t) for t in fetches.values()]
    shares = dropout.shares(graph)
    cut = fed(graph)
    flags = [n.name for n in cut.node if graphs.is_flag(n)]
    graphs.resolve_flags(cut, flags)
    if shares:
        dropout.resolve(cut, shares)
    kept = graphs.ancestors(cut, roots, control=False)
    removed = [
        n.name
        for n in graph.node
        if n.name not in kept
        and (n.op in ("Switch", "Merge") or graphs.PIPELINE.search(n.op) or n.name in flags)
    ]
    if flags:
        notes.append(f"set to inference: {', '.join(flags)}")
    if shares:
        told = (f"{name}={value:g}" for name, value in shares.items())
        notes.append(f"set to inference, so that dropout drops nothing: {', '.join(told)}")
    if removed:
        notes.append(f"removed as training or data pipeline: {listed(removed)}")
    pipeline = [f"{n.op} {n.name}" for n in cut.node if n.name in kept and graphs.PIPELINE.search(n.op)]
    if pipeline:
        free = sorted(graphs.before_pipeline(cut, roots))
        hint = (
            f"name outputs that do without it, for example --outputs {free[0]}"
            if free
            else "save the graph with a Placeholder in its place"
        )
        raise RefusedError(
            "an output of the graph reads from a data pipeline",
            seen=f"{', '.join(fetches)} need {', '.join(pipeline[:3])}",
            next=hint,
        )
    feeds = [n.name for n in cut.node if n.name in kept and n.op in graphs.INPUT_OPS]
    return Inference(cut, feeds, {**dict.fromkeys(flags, False), **shares}, notes)


def _stored(graph: GraphDef, roots: list[str]) -> int:
    """The elements of the constants that *roots* need."""
    kept = graphs.ancestors(graph, roots, control=False)
    shapes = [n.attr["value"].tensor.tensor_shape for n in graph.node if n.name in kept and n.op == "Const"]
    return sum(int(np.prod([d.size for d in shape.dim], dtype=np.int64)) for shape in shapes)


def from_session(
    session: Session, inference: Inference, fetches: dict[str, str], wants: InputSpecs
) -> Loaded:
    """A source that is a session and the frozen GraphDef that it stands for."""
    cut = inference.graph
    roots = [graphs.producer(t) for t in fetches.values()]
    present = {node.name for node in session.graph.as_graph_def().node}
    live = {n: value for n, value in inference.fixed.items() if n in present}

    def tensor(name: str) -> Tensor:
        return session.graph.get_tensor_by_name(graphs.tensor(name))

    refuse_texts(((n, tensor(n)) for n in inference.feeds), cut, "input")
    refuse_texts(((n, tensor(t)) for n, t in fetches.items()), None, "output")

    def call(arrays: Arrays) -> Arrays:
        fetched = {n: tensor(t) for n, t in fetches.items()}
        values = session.run(
            fetched,
            {
                **{tensor(n): arrays[n] for n in inference.feeds},
                **{tensor(n): value for n, value in live.items()},
            },
        )
        return {n: np.asarray(values[n]) for n in fetches}

    return Loaded(
        specs_of([(n, tensor(n)) for n in inference.feeds], wants),
        guarded(call),
        lambda: of_graph(cut, {n: n for n in inference.feeds}, fetches),
        graphs.leftovers(graphs.prune(cut, roots), roots),
        parameters=_stored(cut, roots),
        notes=inference.notes,
        keep=session,
    )
