"""The step that takes a body of control flow (If, Loop) out of an ONNX model.

It gives the inputs that the body is run on as well.

What the body takes from outside becomes inputs, with the values that the reference has there.  Semantics:
onnx's docs/Operators.md (Loop: the body takes the iteration, the condition and what is carried, and gives the
condition, what is carried and what is collected).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.excerpt import Excerpt, empty_like, input_info, write_piece
from mnnprep.formats.onnx.net import open_session
from mnnprep.formats.onnx.outline import captured, taken
from mnnprep.formats.onnx.skeleton import fetch, skeleton
from mnnprep.model.files import Arrays, FileRef, file_ref, load_arrays, save_arrays
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import GraphProto, NodeProto, TensorProto

ITERATIONS = 8  # of a Loop that are looked at


class BodyJob(msgspec.Struct, frozen=True, kw_only=True):
    """Take the body that node ``node`` of ``model`` runs.

    The npz ``values`` holds everything that the node takes, constants of the model aside.
    """

    model: ReadPath
    node: int
    values: ReadPath
    directory: WritePath


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A body of control flow; ``attribute`` is the body that is run.

    ``cases`` are the inputs of each run of it: one for an If, one an iteration for a Loop, the first
    ITERATIONS of them; none if it is not run at all.
    """

    attribute: str
    excerpt: Excerpt
    cases: list[FileRef]


def body(job: BodyJob) -> Body:
    """Write the body as a model.

    Inputs of its own that nothing takes are left out, and so are outputs that it only passes through.
    """
    doing("taking a body out of the model")
    model = skeleton(job.model)
    node = model.graph.node[job.node]
    initializers = {t.name: t for t in model.graph.initializer}
    constants = {n.output[0]: n for n in model.graph.node if n.op_type == "Constant"}
    values = load_arrays(job.values)
    values |= {
        n: _array(initializers[n], job.model) for n in node.input if n in initializers and n not in values
    }
    attribute = (
        "body"
        if node.op_type == "Loop"
        else "then_branch"
        if bool(np.all(values[node.input[0]]))
        else "else_branch"
    )
    graph = next(a.g for a in node.attribute if a.name == attribute)
    outer = captured(graph)
    given = {n: values[n] for n in outer if n in values}
    if node.op_type == "Loop":
        given |= _first(node, graph, values)
    piece = empty_like(model)
    piece.graph.initializer.extend(
        [*graph.initializer, *(initializers[n] for n in outer if n in initializers)]
    )
    piece.graph.node.extend([*(constants[n] for n in outer if n in constants), *graph.node])
    made = {o for n in graph.node for o in n.output}
    used = {n for inner in graph.node for n in taken(inner)}
    inputs = [
        n
        for n in [
            *(i.name for i in graph.input),
            *(n for n in outer if n not in initializers and n not in constants),
        ]
        if n in used
    ]
    piece.graph.input.extend([input_info(name, given, {}, False) for name in inputs])
    piece.graph.output.extend([o for o in graph.output if o.name in made])
    outputs = [o.name for o in piece.graph.output]
    directory = Path(job.directory)
    files = write_piece(piece, job.model, directory, linked=False)
    runs = (
        [given] if node.op_type == "If" else _iterations(files[0].path, node, graph, values, given, outputs)
    )
    cases = []
    for number, arrays in enumerate(runs):
        path = directory / f"case-{number}.npz"
        save_arrays(path, {f"inputs/{n}": arrays[n] for n in inputs})
        cases.append(file_ref(path))
    return Body(
        attribute=attribute, excerpt=Excerpt(files=files, inputs=inputs, outputs=outputs), cases=cases
    )


def _array(tensor: TensorProto, path: str) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = require("onnx.numpy_helper").to_array(fetch(tensor, path))
    return array


def _first(node: NodeProto, graph: GraphProto, values: Arrays) -> Arrays:
    """Return the inputs of a Loop's body in its first iteration."""
    names = [i.name for i in graph.input]
    carried = {name: values[outside] for name, outside in zip(names[2:], list(node.input)[2:], strict=True)}
    return {names[0]: np.array(0, np.int64), names[1]: np.array(True), **carried}


def _iterations(
    path: str, node: NodeProto, graph: GraphProto, values: Arrays, first: Arrays, outputs: list[str]
) -> list[Arrays]:
    """Return the body's inputs in each of the first iterations, by running it in onnxruntime."""
    names = [i.name for i in graph.input]
    count = ITERATIONS
    if node.input[0]:
        count = min(count, int(values[node.input[0]].reshape(())))
    if len(node.input) > 1 and node.input[1] and not bool(values[node.input[1]].reshape(())):
        count = 0
    session = open_session(path, optimize=False)
    fed = [i.name for i in session.get_inputs()]
    runs: list[Arrays] = []
    state = first
    while len(runs) < count:
        runs.append(state)
        results = state | dict(zip(outputs, session.run(outputs, {n: state[n] for n in fed}), strict=True))
        given = [results.get(o.name) for o in graph.output]
        if given[0] is not None and not bool(given[0].reshape(())):
            break
        carried = zip(names[2:], given[1 : len(names) - 1], strict=True)
        state = {
            **state,
            names[0]: np.array(len(runs), np.int64),
            **{n: v for n, v in carried if v is not None},
        }
    return runs


BODY = Step.of(body, RUNTIME)
