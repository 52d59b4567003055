"""A frozen graph with its numbers rounded to half precision: the price of the type alone.

A pair of Casts, to the type and back, follows each floating result, and TensorFlow's graph optimizer, which
might remove it, is off.  As in `formats.onnx.half`, values stay as they are that only sizes follow from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.graph_files import open_session, read_artifact
from mnnprep.formats.tensorflow.net import SHAPE_ONLY, session_call
from mnnprep.model.files import Arrays
from mnnprep.model.half import HalfType, rounded
from mnnprep.model.messages import HalfJob, RunResult
from mnnprep.model.running import run_cases
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import Graph, GraphDef

DATA_TYPES = {"float16": 19, "bfloat16": 14}  # types.proto: DT_HALF, DT_BFLOAT16
FLOATING = frozenset({1, 2, 14, 19})  # DT_FLOAT, DT_DOUBLE, DT_BFLOAT16, DT_HALF
# Results that are their operands' values; frames of loops are entered and left by the others.
MOVES = frozenset(
    {
        "Enter",
        "Exit",
        "ExpandDims",
        "Identity",
        "Merge",
        "NextIteration",
        "Placeholder",
        "PlaceholderWithDefault",
        "RefEnter",
        "RefExit",
        "RefMerge",
        "RefNextIteration",
        "RefSwitch",
        "Reshape",
        "Squeeze",
        "StopGradient",
        "Switch",
        "Transpose",
    }
)


def run_half(job: HalfJob) -> RunResult:
    """Run a frozen graph with inputs, constants and results rounded to ``job.rounding``.

    Raises:
        RefusedError: the graph calls functions, whose insides would not be rounded.
    """
    doing(f"rounding the graph to {job.rounding}")
    graph = read_artifact(job.model)
    calls = sorted({f"{n.op} {n.name}" for n in graph.node if any(graphs.called(n, _names(graph)))})
    if calls:
        raise RefusedError(
            "a graph that calls functions can't be rounded to half precision",
            seen=", ".join(calls[:5]),
            next="freeze it with its control flow lowered and its functions inlined",
        )
    inputs, outputs = [s.name for s in job.signature.inputs], [s.name for s in job.signature.outputs]
    session = open_session(rounding(graph, job.rounding), trust=False, optimize=False)
    call = session_call(session, inputs, outputs)

    def run(arrays: Arrays) -> Arrays:
        return call({name: rounded(array, job.rounding) for name, array in arrays.items()})

    return run_cases(job, lambda: run)


def _names(graph: GraphDef) -> set[str]:
    return {function.signature.name for function in graph.library.function}


def rounding(graph: GraphDef, to: HalfType) -> GraphDef:
    """Return *graph* with the Casts in it; the names of its nodes stay those of the rounded values."""
    made = _imported(graph)
    exact = _exact(graph)
    result = type(graph)(versions=graph.versions, library=graph.library)
    ports: dict[str, str] = {}  # what reads a result of the graph is to read
    casts: list[tuple[str, str, int]] = []  # the name of the rounded value, what it rounds, its type
    for node in graph.node:
        copy = result.node.add()
        copy.CopyFrom(node)
        kinds = [t.dtype.as_datatype_enum for t in made.get_operation_by_name(node.name).outputs]
        if node.op in MOVES or node.name in exact or FLOATING.isdisjoint(kinds):
            continue
        copy.name = f"{node.name}/exact"
        for port, kind in enumerate(kinds):
            last = node.name if port == 0 else f"{node.name}/port_{port}"
            casts.append((last, f"{copy.name}:{port}", kind))
            ports[f"{node.name}:{port}"] = last
    for node in result.node:
        node.input[:] = [i if i.startswith("^") else ports.get(graphs.tensor(i), i) for i in node.input]
    for name, source, kind in casts:
        if kind in FLOATING:
            _node(result, "Cast", f"{name}/half", source, SrcT=kind, DstT=DATA_TYPES[to])
            _node(result, "Cast", name, f"{name}/half", SrcT=DATA_TYPES[to], DstT=kind)
        else:
            _node(result, "Identity", name, source, T=kind)
    return result


def _node(graph: GraphDef, op: str, name: str, source: str, **types: int) -> None:
    node = graph.node.add(name=name, op=op, input=[source])
    for attribute, kind in types.items():
        node.attr[attribute].type = kind


def _imported(graph: GraphDef) -> Graph:
    v1 = require("tensorflow").compat.v1
    made = v1.Graph()
    with made.as_default():
        v1.import_graph_def(graph, name="")
    return made


def _exact(graph: GraphDef) -> set[str]:
    """The nodes that compute with sizes and constants alone on their way to an integer."""
    free: set[str] = set()
    for node in graphs.in_order(graph):
        data = [graphs.producer(i) for i in node.input if not i.startswith("^")]
        if node.op in SHAPE_ONLY or (node.op not in graphs.INPUT_OPS and free.issuperset(data)):
            free.add(node.name)
    ends = [
        n.name
        for n in graph.node
        if n.op == "Cast" and n.name in free and n.attr["DstT"].type not in FLOATING
    ]
    return graphs.ancestors(graph, ends, control=False) & free
