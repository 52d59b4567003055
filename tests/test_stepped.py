"""Which outputs of an ONNX graph are rounded on the way, and at which step."""

from __future__ import annotations

import pytest
from onnx import parser

from mnnprep.formats.onnx.stepped import input_scales, step_sizes

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
