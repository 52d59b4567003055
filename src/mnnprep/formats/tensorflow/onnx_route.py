"""The method ``onnx``: tf2onnx on the inference graph, its weights beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import loop_invariants, onnx_names, same_padding
from mnnprep.formats.tensorflow.skeleton import Skeleton
from mnnprep.model.files import FileRef
from mnnprep.safety.error_text import cause

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import Graph, GraphDef

EXTERNAL_THRESHOLD = (
    1_800_000_000  # bytes of weights past which an ONNX file gets its data outside (protobuf holds 2 GiB)
)


def to_onnx(skeleton: Skeleton, directory: Path, opset: int) -> list[FileRef]:
    """Write the skeleton as ONNX; inputs keep TensorFlow's layout.

    Raises:
        RefusedError: tf2onnx can't express an operator, which is named.
    """
    v1 = require("tensorflow").compat.v1
    tfonnx = require("tf2onnx.tfonnx")
    graph = v1.Graph()
    definition = expressible(skeleton.graph)
    with graph.as_default():
        v1.import_graph_def(definition, name="")

    def convert() -> Graph:
        names = [*skeleton.inputs, *skeleton.outputs]
        return tfonnx.process_tf_graph(
            graph,
            opset=opset,
            input_names=[f"{n}:0" for n in skeleton.inputs],
            output_names=[f"{n}:0" for n in skeleton.outputs],
            const_node_values={n: value().tobytes() for n, value in skeleton.values.items()},
            tensors_to_rename={f"{n}:0": n for n in names},
        )

    return write(run(convert), directory, _names(definition), external=skeleton.nbytes() > EXTERNAL_THRESHOLD)


def _names(graph: GraphDef) -> set[str]:
    """The names of a GraphDef's nodes, those in its functions included."""
    inner = (node for function in graph.library.function for node in function.node_def)
    return {node.name for node in (*graph.node, *inner)}


def expressible(graph: GraphDef) -> GraphDef:
    """Return *graph* with 1 - Erf in place of Erfc.

    ONNX has no Erfc, and tf2onnx leaves a node for it that no runtime knows.
    """
    if all(node.op != "Erfc" for node in graph.node):
        return graph
    made = type(graph)()
    made.CopyFrom(graph)
    tensors = require("tensorflow.python.framework.tensor_util")
    for node in [n for n in made.node if n.op == "Erfc"]:
        dtype = node.attr["T"].type
        one, erf = f"{node.name}/one", f"{node.name}/erf"
        value = tensors.make_tensor_proto(1.0, dtype)
        made.node.add(name=one, op="Const").attr["dtype"].type = dtype
        made.node[-1].attr["value"].tensor.CopyFrom(value)
        made.node.add(name=erf, op="Erf", input=list(node.input)).attr["T"].type = dtype
        node.op = "Sub"
        node.input[:] = [one, erf]
    return made


def run(convert: Callable[[], Graph]) -> Graph:
    """Call tf2onnx, its log kept; what it can't express is a RefusedError."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    onnx_names.steady()
    try:
        return convert()
    except Exception as error:  # tf2onnx raises ValueError, RuntimeError, KeyError, AssertionError and more
        raise RefusedError(
            "tf2onnx can't express the model", seen=cause(error), next="try another method"
        ) from error


def write(graph: Graph, directory: Path, names: Collection[str], *, external: bool) -> list[FileRef]:
    """Optimize tf2onnx's graph and save it; *names* are those in the source, of nodes or tensors.

    Its fusion of Conv and BatchNormalization is left out, so that the file holds the source's parameters (MNN
    fuses them itself).
    """
    from mnnprep.formats.onnx.steps import save

    optimizer = require("tf2onnx.optimizer")
    back_to_back = require("tf2onnx.optimizer.back_to_back_optimizer")
    fusion = ("Conv", "BatchNormalization")
    functions = back_to_back._func_map
    kept = {key: function for key, function in functions.items() if key != fusion}
    functions.clear()
    functions.update(kept)
    model = run(lambda: optimizer.optimize_graph(graph, catch_errors=False).make_model("mnnprep"))
    same_padding.as_tensorflow_pads(model)
    loop_invariants.read_outside(model.graph)
    onnx_names.settle(model, names)
    model.producer_name, model.producer_version, model.doc_string = (
        "tf2onnx",
        require("tf2onnx").__version__,
        "",
    )
    return save(require("onnx_ir").serde.deserialize_model(model), directory, external=external)
