"""Which outputs of an ONNX graph are rounded on the way, and at which step."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from mnnprep.formats.onnx.stepped import input_scales, step_sizes
from mnnprep.model.net import Case

HEAD = '<ir_version: 8, opset_import: ["": 13]> g (float[2,4] x) => ({kind}[2,4] y)'
NUMBERS = "<float s = {{0.5}}, float t = {{0.25}}, int8 z = {{3}}>".replace("{{", "{").replace("}}", "}")
BODIES = {
    "behind a DequantizeLinear": (
        "float",
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, t, z) y = Identity(d)",
        {"y": 0.25},
    ),
    "stored": ("int8", "y = QuantizeLinear(x, s, z)", {"y": 1.0}),
    "of no scale": (
        "float",
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, t, z) y = Exp(d)",
        {"y": 0.0},
    ),
    "dynamic": (
        "float",
        "q, f, p = DynamicQuantizeLinear(x) y = DequantizeLinear(q, f, p)",
        {"y": 0.0},
    ),
    "a choice": (
        "int64",
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, t, z) y = NonZero(d)",
        {},
    ),
    "not rounded": ("float", "y = Exp(x)", {}),
}


@pytest.mark.parametrize("name", BODIES)
def test_sizes(name: str) -> None:
    kind, body, sizes = BODIES[name]
    model = parser.parse_model(f"{HEAD.format(kind=kind)} {NUMBERS} {{ {body} }}")
    assert step_sizes(model) == pytest.approx(sizes)


def test_inputs_that_are_quantized_at_once() -> None:
    body = "m = Transpose(x) q = QuantizeLinear(m, s, z) d = DequantizeLinear(q, t, z) y = Transpose(d)"
    head = f"{HEAD.format(kind='float')} {NUMBERS}"
    assert input_scales(parser.parse_model(f"{head} {{ {body} }}")) == {"x": 0.5}
    late = "m = Exp(x) q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, t, z)"
    assert not input_scales(parser.parse_model(f"{head} {{ {late} }}"))


def test_a_tensorflow_graph_that_rounds_is_judged_by_the_step() -> None:
    tf = pytest.importorskip("tensorflow")
    from mnnprep.formats.tensorflow.net import TensorFlowNet
    from mnnprep.formats.tensorflow.skeleton import of_graph

    class Loaded:
        inputs, example = (), None

        def skeleton(self) -> object:
            with tf.Graph().as_default() as graph:
                x = tf.compat.v1.placeholder(tf.float32, (2, 3), name="x")
                tf.quantization.fake_quant_with_min_max_args(x, name="rounded")
                tf.nn.relu(graph.get_tensor_by_name("rounded:0"), name="y")
                tf.nn.relu(x, name="z")
            return of_graph(graph.as_graph_def(), {"x": "x"}, {"y": "y", "z": "z"})

    array = np.zeros((2, 3), np.float32)
    case = Case("seed 0", {}, {"x": array}, {"y": array, "z": array})
    assert list(TensorFlowNet(Loaded()).steps([case])) == ["y"]
