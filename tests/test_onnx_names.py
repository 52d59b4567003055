"""The ONNX graph that tf2onnx makes of a source has the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from evaluation.nets.tf_models import QUIET, needs_tensorflow
from mnnprep.formats.tensorflow.onnx_names import settle
from support.command import environment

ROUTE = """
import sys
from pathlib import Path
from mnnprep.model.messages import Source
from mnnprep.model.request import make_wants
from mnnprep.formats.tensorflow.load import load
from mnnprep.formats.tensorflow.onnx_route import to_onnx
to_onnx(load(Source(kind="keras", path=sys.argv[1]), make_wants()).skeleton(), Path(sys.argv[2]), 13)
"""
NET = """
import sys, keras
ids = keras.Input((None,), dtype="int32", name="ids")
x = keras.layers.LSTM(6)(keras.layers.Embedding(20, 5)(ids))
keras.Model(ids, keras.layers.Dense(3, name="score")(x)).save(sys.argv[1])
"""


def made(numbers: tuple[int, int, int], turned: bool) -> ModelProto:
    """One net as tf2onnx may number and order it."""
    a, b, c = (f"Step__{number}" for number in numbers)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"unk__{numbers[0]}"])
        for name in ("x__9", "y")
    ]
    inner = helper.make_graph(
        [helper.make_node("Add", [a, c], [b], name=b)],
        f"branch__{a}",
        [],
        [helper.make_tensor_value_info(b, 1, None)],
    )
    nodes = [
        helper.make_node("Neg", ["x__9"], [a], name=a),
        helper.make_node("Abs", ["x__9"], ["net__1:0"], name="net__1"),
    ]
    end = helper.make_node("If", ["flag"], ["picked"], name="If", then_branch=inner, else_branch=inner)
    nodes = [
        *(reversed(nodes) if turned else nodes),
        end,
        helper.make_node("Add", ["picked", "net__1:0"], ["y"], name="y"),
    ]
    weights = [
        numpy_helper.from_array(np.ones(1, np.float32), c),
        numpy_helper.from_array(np.array(True), "flag"),
    ]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights[::-1] if turned else weights)
    return helper.make_model(graph)


def test_order_and_numbers_do_not_hang_on_those_that_tf2onnx_gave() -> None:
    models = [made((5, 17, 40), False), made((81, 3, 7), True)]
    for model in models:
        settle(model, {"net__1"})
    assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(deterministic=True)
    graph = models[0].graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    assert {"x__9", "y", "net__1:0"} <= set(names)  # of ports, and of the source
    outputs = [name for node in (*graph.node, *graph.node[1].attribute[0].g.node) for name in node.output]
    assert len(outputs) == len(set(outputs))


@needs_tensorflow
def test_other_hashes_give_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "net.keras"
    subprocess.run(
        [sys.executable, "-c", NET, str(source)], env=environment(**QUIET), check=True, capture_output=True
    )
    found = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        out.mkdir()
        variables = environment(PYTHONHASHSEED=seed, **QUIET)
        subprocess.run(
            [sys.executable, "-c", ROUTE, str(source), str(out)],
            env=variables,
            check=True,
            capture_output=True,
        )
        found.append((out / "model.onnx").read_bytes())
    assert found[0] == found[1]
