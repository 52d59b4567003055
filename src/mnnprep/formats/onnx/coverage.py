"""Which nodes of an ONNX graph the cases run: what no case reached, no comparison says anything of.

onnxruntime's profile names every node it ran, those in the bodies of If, Loop and Scan, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure
from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.net import OnnxNet, open_session
from mnnprep.model.messages import CoverageJob
from mnnprep.model.net import Refused
from mnnprep.model.running import case_inputs
from mnnprep.text import listed

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
SHOWN = 5
Sources = dict[str, frozenset[str]]


@dataclass(frozen=True)
class Body:
    """A graph inside a node.

    ``owner`` is the node's label, ``name`` the attribute's, ``deciders`` the inputs whose values decide
    whether it runs, ``nodes`` the names of its own nodes, ``outer`` the body that the owner is in.
    """

    owner: str
    name: str
    deciders: frozenset[str]
    nodes: tuple[str, ...]
    outer: Body | None


def coverage(job: CoverageJob) -> Check:
    """The ``coverage`` check: every branch and loop body that the inputs' values decide ran in some case.

    One that shapes and constants decide is counted and no obstacle; so is one that only inputs in
    ``job.fixed`` decide, whose one value the user declared.
    """
    model = graph.load_graph(job.model)
    bodies, names = _named(model)
    ran = _ran(model, Path(job.model).parent, job)
    idle = [
        b
        for b in bodies
        if b.nodes and not ran & set(b.nodes) and (b.outer is None or ran & set(b.outer.nodes))
    ]
    numbers: dict[str, Figure] = {
        "nodes": len(names),
        "ran": len(ran & names),
        "bodies": len(bodies),
        "idle": [_words(b) for b in idle],
    }
    open_ = [b for b in idle if b.deciders - set(job.fixed)]
    if not open_:
        return catalog.COVERAGE.passed(numbers=numbers)
    told = [
        f"{_words(b)}, which {' and '.join(sorted(b.deciders))} decide{'s' * (len(b.deciders) == 1)}"
        for b in open_
    ]
    wanted = ", ".join(sorted(frozenset().union(*(b.deciders for b in open_))))
    return catalog.COVERAGE.failed(
        f"no case runs {listed(told, SHOWN, '; ')}; give values of {wanted} that do with --samples, or fix it"
        " with --range NAME=VALUE:VALUE",
        subject=open_[0].owner,
        numbers=numbers,
    )


def _words(body: Body) -> str:
    return f"the {body.name} of {body.owner}"


def _named(model: ModelProto) -> tuple[list[Body], set[str]]:
    """Give every node of *model* a name of its own.

    Returns its bodies, and the names of the nodes that compute (constants don't).
    """
    bodies: list[Body] = []
    names: set[str] = set()
    sources: Sources = {}
    fixed = {t.name for t in model.graph.initializer}
    sources.update({i.name: frozenset({i.name}) for i in model.graph.input if i.name not in fixed})

    def visit(graph_proto: GraphProto, outer: Body | None) -> tuple[str, ...]:
        own = []
        for node in graph_proto.node:
            label, node.name = graph.label(node), f"n{len(names)}_{node.op_type}"
            if node.op_type != "Constant":
                names.add(node.name)
                own.append(node.name)
            deciding = (
                node.input[:1] if node.op_type == "If" else node.input[:2] if node.op_type == "Loop" else []
            )
            deciders = frozenset().union(*(sources.get(name, frozenset()) for name in deciding))
            inner: frozenset[str] = frozenset()
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    for value, given in zip(attribute.g.input, _entering(node), strict=False):
                        sources[value.name] = sources.get(given, frozenset())
                    place = len(bodies)
                    body = Body(label, attribute.name, deciders, (), outer)
                    bodies.append(body)
                    bodies[place] = body = Body(
                        label, attribute.name, deciders, visit(attribute.g, body), outer
                    )
                    inner |= frozenset().union(
                        *(sources.get(o.name, frozenset()) for o in attribute.g.output)
                    )
            reached = frozenset().union(*(sources.get(name, frozenset()) for name in node.input), inner)
            for name in node.output:
                sources[name] = frozenset() if node.op_type in graph.SHAPE_ONLY else reached
        return tuple(own)

    visit(model.graph, None)
    return bodies, names


def _entering(node: NodeProto) -> Iterator[str]:
    """Return what the inputs of a node's body are given, in order.

    A Loop's body first gets the iteration and the condition.
    """
    if node.op_type == "Loop":
        yield ""
    yield from node.input[1:] if node.op_type == "Loop" else node.input


def _ran(model: ModelProto, directory: Path, job: CoverageJob) -> set[str]:
    """The names of the nodes that ran in any case."""
    named = Path(job.directory) / "named.onnx"
    named.write_bytes(model.SerializeToString())
    session = open_session(
        str(named),
        optimize=False,
        data_directory=str(directory),
        profile=str(Path(job.directory) / "profile"),
    )
    for case in job.cases:
        with suppress(Refused):  # what it does not compute, the comparison tells
            OnnxNet.compute(session, case_inputs(case.file.path))
    with open(session.end_profiling(), encoding="utf-8") as profile:
        events = json.load(profile)
    return {
        e["name"].removesuffix("_kernel_time")
        for e in events
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")
    }


def decisive_values(model: ModelProto) -> list[tuple[str, float]]:
    """Return values of graph inputs that may send an If the other way.

    They are the constants that the inputs are compared with, and those next to them.

    Only inputs that reach the comparison unchanged (through casts and reshapes) are followed.
    """
    if not any(node.op_type in CONTROL_FLOW for node in model.graph.node):
        return []
    constants = graph.scalar_constants(model.graph)
    origin = {i.name: i.name for i in model.graph.input}
    found: list[tuple[str, float]] = []
    for node in graph.all_nodes(model.graph):
        if node.op_type in graph.INDEX_PRESERVING and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
            for value, bound in (node.input, reversed(node.input)):
                number = constants.get(bound)
                if value in origin and isinstance(number, (int, float)):
                    found += [(origin[value], float(v)) for v in (number, number - 1, number + 1)]
    return list(dict.fromkeys(found))
