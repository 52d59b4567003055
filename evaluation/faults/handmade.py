"""ONNX models written by hand: right ones that no exporter of the fault benchmark writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: dict[str, Any],
    version: int = 13,
) -> Path:
    info = [[helper.make_tensor_value_info(*v) for v in group] for group in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "net", *info, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8), path)
    return path


def handmade(
    directory: Path,
) -> Iterator[tuple[str, Path, tuple[str, ...], tuple[str, ...], tuple[str, ...], bool]]:
    """Name, file, and what is declared of each; the last says whether it belongs to the clean models (MNN is
    known to do it right).
    """
    random = np.random.default_rng(3)
    node, real, whole = helper.make_node, TensorProto.FLOAT, TensorProto.INT64

    def array(*shape: int) -> np.ndarray[Any, Any]:
        return (random.standard_normal(shape) / np.sqrt(max(1, shape[0]))).astype(np.float32)

    rows = ("batch=1:6",)
    yield (
        "softmax3",
        _model(
            directory / "softmax3.onnx",
            [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"], axis=1)],
            [("x", real, ["batch", 5, 8])],
            [("y", real, ["batch", 5, 6])],
            {"w": array(8, 6)},
        ),
        (),
        rows,
        (),
        True,
    )
    yield (
        "logsoftmax3",
        _model(
            directory / "logsoftmax3.onnx",
            [node("MatMul", ["x", "w"], ["h"]), node("LogSoftmax", ["h"], ["y"], axis=1)],
            [("x", real, ["batch", 4, 8])],
            [("y", real, ["batch", 4, 6])],
            {"w": array(8, 6)},
        ),
        (),
        rows,
        (),
        True,
    )
    yield (
        "clipped",
        _model(
            directory / "clipped.onnx",
            [
                node("Gemm", ["x", "w", "b"], ["h"]),
                node("Clip", ["h", "lo", "hi"], ["c"]),
                node("Mul", ["c", "k"], ["y"]),
            ],
            [("x", real, ["batch", 8])],
            [("y", real, ["batch", 6])],
            {
                "w": array(8, 6),
                "b": array(6),
                "lo": np.float32(-0.8),
                "hi": np.float32(0.9),
                "k": np.float32(1.5),
            },
        ),
        (),
        rows,
        (),
        True,
    )
    yield (
        "offsets",
        _model(
            directory / "offsets.onnx",
            [
                node("Mul", ["x", "big"], ["m"]),
                node("Div", ["m", "div"], ["d"]),
                node("Cast", ["d"], ["f"], to=real),
                node("MatMul", ["f", "w"], ["y"]),
            ],
            [("x", whole, ["batch", 8])],
            [("y", real, ["batch", 4])],
            {"big": np.array([2**31 + 11], np.int64), "div": np.array([2**28], np.int64), "w": array(8, 4)},
        ),
        (),
        rows,
        ("x=0:20",),
        False,
    )
    then = helper.make_graph(
        [node("Add", ["h", "one"], ["t"])], "then", [], [helper.make_tensor_value_info("t", real, None)]
    )
    other = helper.make_graph(
        [node("Tanh", ["h"], ["e"])], "else", [], [helper.make_tensor_value_info("e", real, None)]
    )
    yield (
        "decides",
        _model(
            directory / "decides.onnx",
            [
                node("MatMul", ["x", "w"], ["h"]),
                node("ReduceSum", ["x"], ["s"], keepdims=0),
                node("Greater", ["s", "zero"], ["c"]),
                node("If", ["c"], ["y"], then_branch=then, else_branch=other),
            ],
            [("x", real, [3, 8])],
            [("y", real, [3, 6])],
            {"w": array(8, 6), "one": np.float32(1), "zero": np.float32(0)},
        ),
        (),
        (),
        (),
        True,
    )
    yield (
        "lookup",
        _model(
            directory / "lookup.onnx",
            [
                node("Gather", ["table", "x"], ["g"]),
                node("ReduceMean", ["g"], ["m"], axes=[1], keepdims=0),
                node("MatMul", ["m", "w"], ["y"]),
            ],
            [("x", whole, ["batch", "length"])],
            [("y", real, ["batch", 4])],
            {"table": array(20, 8), "w": array(8, 4)},
        ),
        (),
        ("batch=1:4", "length=2:12"),
        ("x=0:19",),
        True,
    )
    yield (
        "joined",
        _model(
            directory / "joined.onnx",
            [
                node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
                node("LeakyRelu", ["a"], ["b"], alpha=0.1),
                node("Concat", ["a", "b"], ["c"], axis=1),
                node(
                    "AveragePool",
                    ["c"],
                    ["p"],
                    kernel_shape=[3, 3],
                    pads=[1, 1, 1, 1],
                    strides=[1, 1],
                    count_include_pad=1,
                ),
                node("Sub", ["c", "p"], ["y"]),
            ],
            [("x", real, ["batch", 3, "side", "side"])],
            [("y", real, ["batch", 8, "side", "side"])],
            {"w": array(4, 3, 3, 3)},
        ),
        (),
        ("batch=1:4", "side=4:20"),
        (),
        True,
    )
    for op, extra in (("Add", {}), ("Max", {}), ("Min", {}), ("Mul", {}), ("Sub", {}), ("Pow", {})):
        second = np.abs(array(6)) + 0.5
        first = [node("Abs", ["h"], ["i"])] if op == "Pow" else [node("Identity", ["h"], ["i"])]
        yield (
            f"binary_{op.lower()}",
            _model(
                directory / f"binary_{op.lower()}.onnx",
                [node("MatMul", ["x", "w"], ["h"]), *first, node(op, ["i", "s"], ["y"], **extra)],
                [("x", real, ["batch", 8])],
                [("y", real, ["batch", 6])],
                {"w": array(8, 6), "s": second},
            ),
            (),
            rows,
            (),
            True,
        )
    for op in ("ReduceMax", "ReduceMin", "ReduceMean"):
        yield (
            op.lower(),
            _model(
                directory / f"{op.lower()}.onnx",
                [node("MatMul", ["x", "w"], ["h"]), node(op, ["h"], ["y"], axes=[1], keepdims=1)],
                [("x", real, ["batch", 5, 8])],
                [("y", real, ["batch", 1, 6])],
                {"w": array(8, 6)},
            ),
            (),
            rows,
            (),
            True,
        )
    for op in ("Erf", "Exp", "Sqrt", "Sin", "Ceil", "Softplus", "Sign"):
        first = [node("MatMul", ["x", "w"], ["h"])] + (
            [node("Abs", ["h"], ["i"])] if op == "Sqrt" else [node("Identity", ["h"], ["i"])]
        )
        yield (
            f"unary_{op.lower()}",
            _model(
                directory / f"unary_{op.lower()}.onnx",
                [*first, node(op, ["i"], ["y"])],
                [("x", real, ["batch", 8])],
                [("y", real, ["batch", 6])],
                {"w": array(8, 6)},
            ),
            (),
            rows,
            (),
            True,
        )
