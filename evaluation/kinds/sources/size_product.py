"""Writes a division by a number made of sizes, and the product."""

import onnx
from onnx import TensorProto as T
from onnx import helper as h


def save(last, name):
    n = [h.make_node("Size", ["x"], ["p"]), h.make_node("Cast", ["p"], ["f"], to=1), *last]
    g = h.make_graph(
        n,
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, ["b", 4])],
        [h.make_tensor_value_info("y", T.FLOAT, ["b", 4])],
    )
    onnx.save(h.make_model(g, opset_imports=[h.make_opsetid("", 13)], ir_version=8), name)


save([h.make_node("Div", ["x", "f"], ["y"])], "div.onnx")
save([h.make_node("Reciprocal", ["f"], ["r"]), h.make_node("Mul", ["x", "r"], ["y"])], "mul.onnx")
