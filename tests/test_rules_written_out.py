"""Rules that write an operator out: MNN is wrong before and right after, onnxruntime computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import node
from mnnprep.repair.table import all_rules
from mnnprep.workers.host import Host
from support.rewriting import close, reference, through_mnn, written_out

Arrays = dict[str, Any]
RANDOM = np.random.default_rng(5)
INT64, FLOAT, UINT8 = TensorProto.INT64, TensorProto.FLOAT, TensorProto.UINT8


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def net(
    nodes: list[Any], feeds: Arrays, weights: Arrays, outputs: dict[str, int] | None = None, opset: int = 14
) -> tuple[Any, list[Arrays]]:
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in feeds.items()
        ],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in (outputs or {"y": FLOAT}).items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), [feeds]


def one(
    op_type: str,
    feeds: Arrays,
    weights: Arrays | None = None,
    opset: int = 14,
    kind: int = FLOAT,
    **attributes: Any,
) -> tuple[Any, list[Arrays]]:
    weights = weights or {}
    return net([node(op_type, [*feeds, *weights], ["y"], **attributes)], feeds, weights, {"y": kind}, opset)


def recurrent(
    op_type: str,
    outputs: list[str],
    *,
    open_length: bool = False,
    direction: str = "forward",
    batch_first: bool = False,
    lengths: Any = None,
    peepholes: bool = False,
    states: bool = True,
    **attributes: Any,
) -> tuple[Any, list[Arrays]]:
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 2 if direction == "bidirectional" else 1
    weights: Arrays = {
        "w": floats(directions, gates * 6, 4),
        "r": floats(directions, gates * 6, 6) * 0.5,
        "b": floats(directions, 2 * gates * 6),
    }
    inputs, state = ["x", "w", "r", "b"], (directions, 2, 6)
    if lengths is not None:
        weights["lengths"] = np.array(lengths, np.int32)
    inputs.append("lengths" if lengths is not None else "")
    feeds: Arrays = {"x": floats(5, 2, 4)}
    for name in ("h", "c")[: 1 + (op_type == "LSTM")]:
        if states:
            feeds[name] = floats(*state)
        inputs.append(name if states else "")
    if peepholes:
        weights["p"] = floats(directions, 18)
        inputs.append("p")
    if batch_first:
        feeds = {n: np.ascontiguousarray(a.swapaxes(0, 1)) for n, a in feeds.items()}
    made = node(
        op_type,
        inputs,
        outputs,
        hidden_size=6,
        direction=direction,
        **({"layout": 1} if batch_first else {}),
        **attributes,
    )
    model, cases = net([made], feeds, weights, {o: FLOAT for o in outputs if o})
    if open_length:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    return model, cases


def scan(backwards: bool = False) -> tuple[Any, list[Arrays]]:
    body = helper.make_graph(
        [node("Add", ["sum_in", "part"], ["sum_out"]), node("Mul", ["sum_out", "factor"], ["given"])],
        "body",
        [helper.make_tensor_value_info(n, FLOAT, (3,)) for n in ("sum_in", "part")],
        [helper.make_tensor_value_info(n, FLOAT, (3,)) for n in ("sum_out", "given")],
        [numpy_helper.from_array(np.float32(2), "factor")],
    )
    directions = {"scan_input_directions": [1], "scan_output_directions": [1]} if backwards else {}
    made = node("Scan", ["start", "x"], ["last", "y"], body=body, num_scan_inputs=1, **directions)
    return net([made], {"start": floats(3), "x": floats(4, 3)}, {}, {"last": FLOAT, "y": FLOAT})


def sequence_in_loop(counter: tuple[int, ...] = ()) -> tuple[Any, list[Arrays]]:
    """The squares of x, 2x and 3x gathered in a sequence by a Loop, then joined.

    *counter* is the shape of the number of the step; torch's exporter writes one of one element, which a
    Slice takes as it is.
    """
    held = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [
            node("Cast", ["i"], ["f"], to=FLOAT),
            node("Add", ["f", "one"], ["k"]),
            node("Mul", ["x", "k"], ["p"]),
            *(
                [node("Slice", ["p", "i", "end"], ["r"]), node("Mul", ["r", "r"], ["q"])]
                if counter
                else [node("Mul", ["p", "p"], ["q"])]
            ),
            node("SequenceInsert", ["s_in", "q"], ["s_out"]),
            node("Identity", ["c_in"], ["c_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, counter),
            helper.make_tensor_value_info("c_in", TensorProto.BOOL, ()),
            held("s_in", FLOAT, None),
        ],
        [helper.make_tensor_value_info("c_out", TensorProto.BOOL, ()), held("s_out", FLOAT, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    nodes = [
        node("SequenceEmpty", [], ["s0"]),
        node("Loop", ["n", "", "s0"], ["s"], body=body),
        node("ConcatFromSequence", ["s"], ["y"], axis=0 if counter else 1, new_axis=int(not counter)),
    ]
    return net(nodes, {"x": floats(4, 3)}, {"n": np.int64(3), "end": np.int64([4])})


def pooled_bytes() -> tuple[Any, list[Arrays]]:
    nodes = [
        node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        node("Cast", ["whole"], ["bytes"], to=TensorProto.UINT8),
        node("MaxPool", ["bytes"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Cast", ["pooled"], ["y"], to=FLOAT),
    ]
    return net(nodes, {"x": np.abs(floats(1, 2, 8, 8)) * 60}, {})


def split_and_chosen() -> tuple[Any, list[Arrays]]:
    nodes = [
        node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=0),
        node("SequenceErase", ["s", "first"], ["t"]),
        node("SequenceAt", ["t", "last"], ["y"]),
        node("SequenceLength", ["t"], ["n"]),
    ]
    return net(
        nodes, {"x": floats(2, 4, 3)}, {"first": np.int64(0), "last": np.int64(-1)}, {"y": FLOAT, "n": INT64}
    )


def pair(axis: bool, opset: int = 14) -> tuple[Any, list[Arrays]]:
    """Activations quantized to uint8 and weights kept in int8, as quantization-aware training leaves them."""
    scale = np.array([0.02, 0.03, 0.01, 0.02], np.float32) if axis else np.float32(0.02)
    weights = {
        "xs": np.float32(0.05),
        "xz": np.uint8(110),
        "w": RANDOM.integers(-128, 127, (6, 4), np.int8),
        "ws": scale,
        "wz": np.zeros(np.shape(scale), np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        node("DequantizeLinear", ["q", "xs", "xz"], ["d"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["v"], **({"axis": 1} if axis else {})),
        node("MatMul", ["d", "v"], ["y"]),
    ]
    return net(nodes, {"x": floats(3, 6) * 3}, weights, opset=opset)


def whole_numbers(nodes: list[Any], weights: Arrays, x: Any) -> tuple[Any, list[Arrays]]:
    return net(nodes, {"x": np.array(x)}, {n: np.int64(v) for n, v in weights.items()}, {"y": INT64})


def narrow_mask() -> tuple[Any, list[Arrays]]:
    model, feeds = net([node("Where", ["m", "x", "z"], ["y"])], {"x": floats(2, 3)}, {"z": np.float32(0)})
    model.graph.initializer.append(
        helper.make_tensor("m", TensorProto.BOOL, (2, 3), [True, False, True, True, False, True])
    )
    return model, feeds


X4 = {"x": floats(2, 4, 3, 3)}
HEADS = {n: floats(1, 2, 4, 8) for n in ("q", "k", "v")}
TURNS = {"cos": floats(5, 4), "sin": floats(5, 4), "places": np.array([[0, 2, 1, 4]])}
Q = {"x": RANDOM.integers(0, 255, (1, 2, 5, 5), np.uint8)}
QW = {"w": RANDOM.integers(0, 255, (3, 2, 3, 3), np.uint8), "xz": np.uint8(120), "wz": np.uint8(130)}
PRODUCT = {
    "as": np.float32(0.02),
    "az": np.uint8(110),
    "b": RANDOM.integers(0, 255, (6, 4), np.uint8),
    "bs": np.float32(0.03),
    "bz": np.uint8(128),
    "ys": np.float32(0.1),
    "yz": np.uint8(118),
}

# rule, model and cases, tolerance
CASES: dict[str, tuple[str, Callable[[], tuple[Any, list[Arrays]]], float]] = {
    "Mish": ("function-bodies", lambda: one("Mish", X4, opset=18), 1e-5),
    "Swish": ("function-bodies", lambda: one("Swish", X4, opset=24, alpha=0.5), 1e-5),
    "GroupNormalization": (
        "function-bodies",
        lambda: one("GroupNormalization", X4, {"s": floats(4), "b": floats(4)}, 21, num_groups=2),
        1e-4,
    ),
    "RMSNormalization": (
        "function-bodies",
        lambda: one("RMSNormalization", {"x": floats(3, 8)}, {"s": floats(8)}, 23),
        1e-4,
    ),
    "RotaryEmbedding": (
        "function-bodies",
        lambda: one("RotaryEmbedding", {"x": floats(1, 2, 4, 8)}, TURNS, 23),
        1e-5,
    ),
    "Attention": ("function-bodies", lambda: one("Attention", HEADS, opset=23, is_causal=1), 1e-4),
    "Scan": ("unrolled", scan, 1e-6),
    "Scan backwards": ("unrolled", lambda: scan(True), 1e-6),
    "Loop with a sequence": ("unrolled", sequence_in_loop, 1e-6),
    "Loop that counts in one element": ("unrolled", lambda: sequence_in_loop((1,)), 1e-6),
    "split, erased and chosen": ("sequences", split_and_chosen, 1e-6),
    "Split with a part of size 0": (
        "empty-parts",
        lambda: net(
            [
                node("Split", ["x", "n"], ["a", "b"], axis=1),
                node("Neg", ["a"], ["c"]),
                node("Concat", ["c", "b"], ["y"], axis=1),
            ],
            {"x": floats(2, 4)},
            {"n": np.array([4, 0])},
        ),
        0.0,
    ),
    "flip in four dimensions": (
        "slice-backwards",
        lambda: one(
            "Slice",
            {"x": floats(5, 3, 2, 6)},
            {n: np.array([v]) for n, v in (("s", -1), ("e", -(1 << 62)), ("a", 0), ("t", -1))},
        ),
        0.0,
    ),
    "GRU of ONNX's form": ("gru-linear-before-reset", lambda: recurrent("GRU", ["y", "h1"]), 1e-4),
    "GRU of ONNX's form, both ways": (
        "gru-linear-before-reset",
        lambda: recurrent("GRU", ["y", "h1"], direction="bidirectional", states=False),
        1e-4,
    ),
    "GRU backwards": (
        "recurrent-reverse",
        lambda: recurrent("GRU", ["y", "h1"], direction="reverse", linear_before_reset=1),
        1e-4,
    ),
    "LSTM backwards": (
        "recurrent-reverse",
        lambda: recurrent("LSTM", ["y", "h1", "c1"], direction="reverse"),
        1e-4,
    ),
    "GRU of open length": (
        "gru-open-length",
        lambda: recurrent("GRU", ["y", "h1"], open_length=True, linear_before_reset=1),
        1e-4,
    ),
    "GRU of open length and ONNX's form": (
        "gru-open-length",
        lambda: recurrent("GRU", ["y"], open_length=True, direction="bidirectional"),
        1e-4,
    ),
    "RNN batch first": ("recurrent-outputs", lambda: recurrent("RNN", ["", "h1"]), 1e-4),
    "LSTM of one output": ("recurrent-outputs", lambda: recurrent("LSTM", ["y"]), 1e-4),
    "LSTM with peepholes": (
        "recurrent-inputs",
        lambda: recurrent("LSTM", ["y", "h1", "c1"], peepholes=True),
        1e-4,
    ),
    "LSTM with lengths": (
        "recurrent-inputs",
        lambda: recurrent("LSTM", ["y", "h1", "c1"], lengths=[5, 3], direction="bidirectional"),
        1e-4,
    ),
    "RNN of ReLU": (
        "recurrent-inputs",
        lambda: recurrent("RNN", ["y", "h1"], activations=["Relu"], clip=0.5),
        1e-4,
    ),
    "MaxPool of bytes": ("pool-integers", pooled_bytes, 0.0),
    "quantized pair": ("quantize-linear", lambda: pair(axis=False), 1e-4),
    "quantized pair, a scale per column": ("dequantize-linear", lambda: pair(axis=True), 1e-4),
    "QuantizeLinear to uint8": (
        "quantize-linear",
        lambda: one(
            "QuantizeLinear", {"x": floats(2, 3) * 9}, {"s": np.float32(0.1), "z": np.uint8(128)}, kind=UINT8
        ),
        0.0,
    ),
    "DynamicQuantizeLinear": (
        "dynamic-quantize",
        lambda: net(
            [node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])],
            {"x": floats(2, 6)},
            {},
            {"y": UINT8, "s": FLOAT, "z": UINT8},
        ),
        1e-6,
    ),
    "QLinearMatMul": (
        "integer-products",
        lambda: net(
            [node("QLinearMatMul", ["x", *PRODUCT], ["y"])],
            {"x": RANDOM.integers(0, 255, (2, 6), np.uint8)},
            PRODUCT,
            {"y": UINT8},
        ),
        0.0,
    ),
    "ConvInteger": (
        "integer-products",
        lambda: one("ConvInteger", Q, QW, kind=TensorProto.INT32, pads=[1, 1, 1, 1]),
        0.0,
    ),
    "int64 beyond 2^30": (
        "large-integers",
        lambda: whole_numbers([node("Add", ["x", "c"], ["y"])], {"c": (1 << 30) + 5}, [1, 2, 3]),
        0.0,
    ),
    "the largest int64 in a Min": (
        "large-integers",
        lambda: whole_numbers(
            [node("Min", ["x", "c"], ["y"])], {"c": (1 << 63) - 1}, [1, -2, (1 << 30) + 256]
        ),
        0.0,
    ),
    "a hash": (
        "large-integers",
        lambda: whole_numbers(
            [node("Add", ["x", "c"], ["a"]), node("Mod", ["a", "m"], ["y"])],
            {"c": (1 << 33) + 5, "m": 17},
            [9, 40],
        ),
        0.0,
    ),
    "a mask in int32_data": ("int32-data", narrow_mask, 0.0),
}


RIGHT_ALREADY = {
    "Loop with a sequence",
    "Loop that counts in one element",
}  # other loops with sequences are not


def near(found: list[Arrays] | str, expected: list[Arrays], tolerance: float) -> bool:
    if not close(found, expected, max(tolerance, 1e-6)) or isinstance(found, str):
        return False
    return all(
        np.array_equal(f[n], a)
        for f, e in zip(found, expected, strict=True)
        for n, a in e.items()
        if a.dtype.kind != "f"
    )


@pytest.mark.parametrize("name", CASES)
def test_wrong_before_and_right_after(host: Host, tmp_path: Path, name: str) -> None:
    rule, make, tolerance = CASES[name]
    model, feeds = make()
    expected = reference(model, feeds)
    before = near(through_mnn(host, model, feeds, tmp_path / "before"), expected, tolerance)
    assert before == (name in RIGHT_ALREADY)
    result, done = written_out(model, tmp_path / "repair")
    assert rule in [f.rule for f in done.fired]
    found = reference(result, feeds)
    assert close(found, expected, tolerance)
    assert all(found[0][n].dtype == expected[0][n].dtype for n in expected[0])
    after = through_mnn(host, result, feeds, tmp_path / "after")
    assert near(after, expected, tolerance), after
    assert rule not in [f.rule for f in written_out(result, tmp_path / "again")[1].fired]
    names = [[v.name for v in part] for m in (model, result) for part in (m.graph.input, m.graph.output)]
    assert names[:2] == names[2:]


def test_layout_1_is_transposed(host: Host, tmp_path: Path) -> None:
    """onnxruntime has no layout=1: the reference is the same net with the batch second."""
    model, feeds = recurrent("RNN", ["y", "h1"], batch_first=True)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    plain.graph.node[0].attribute.remove(next(a for a in plain.graph.node[0].attribute if a.name == "layout"))
    for value in plain.graph.input:
        dims = value.type.tensor_type.shape.dim
        sizes = [d.dim_value for d in dims]
        dims[0].dim_value, dims[1].dim_value = sizes[1], sizes[0]
    expected = reference(plain, [{n: a.swapaxes(0, 1) for n, a in feeds[0].items()}])
    turned = [{"y": expected[0]["y"].transpose(2, 0, 1, 3), "h1": expected[0]["h1"].swapaxes(0, 1)}]
    result, done = written_out(model, tmp_path / "repair")
    assert "recurrent-layout" in [f.rule for f in done.fired]
    assert close(reference(result, feeds), turned, 1e-5)
    assert close(through_mnn(host, result, feeds, tmp_path / "after"), turned, 1e-4)


ALONE: dict[str, Callable[[], tuple[Any, list[Arrays]]]] = {
    "LSTM that lists its outputs": lambda: recurrent("LSTM", ["y", "h1", "c1"]),
    "GRU of torch's form": lambda: recurrent(
        "GRU", ["y", "h1"], direction="bidirectional", linear_before_reset=1
    ),
    "an operator that MNN reads": lambda: one("HardSwish", X4),
    "Split without an empty part": lambda: net(
        [node("Split", ["x", "n"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["y"], axis=1)],
        {"x": floats(2, 4)},
        {"n": np.array([3, 1])},
    ),
    "flip in three dimensions": lambda: one(
        "Slice",
        {"x": floats(3, 2, 6)},
        {n: np.array([v]) for n, v in (("s", -1), ("e", -(1 << 62)), ("a", 0), ("t", -1))},
    ),
    "a Slice to the end": lambda: one(
        "Slice", {"x": floats(3, 6)}, {"s": np.array([1]), "e": np.array([(1 << 63) - 1])}
    ),
    "int64 below 2^30": lambda: whole_numbers([node("Add", ["x", "c"], ["y"])], {"c": 1 << 30}, [1, 2]),
}


@pytest.mark.parametrize("name", ALONE)
def test_left_alone(tmp_path: Path, name: str) -> None:
    model, _ = ALONE[name]()
    assert not written_out(model, tmp_path / "repair")[1].fired


def test_nothing_is_written_out_for_a_converter_that_was_not_asked(tmp_path: Path) -> None:
    model, _ = one("Mish", X4, opset=18)
    assert not [
        f
        for f in written_out(model, tmp_path / "repair", supported=False)[1].fired
        if f.rule == "function-bodies"
    ]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model, _ = recurrent("GRU", ["y", "h1"])
    files = [written_out(model, tmp_path / name)[1].files[0].sha256 for name in "ab"]
    assert files[0] == files[1]


def test_an_open_length_is_told(tmp_path: Path) -> None:
    """Steps can't be written out for a sequence of any length."""
    model, _ = recurrent("GRU", ["y", "h1"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    assert "gru-linear-before-reset" not in [f.rule for f in written_out(model, tmp_path / "repair")[1].fired]


def test_initializers_stay(tmp_path: Path) -> None:
    """The weights check looks for the source's parameters by their values."""
    model, _ = pair(axis=True)
    result, _ = written_out(model, tmp_path / "repair")
    kept = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert all(np.array_equal(kept[t.name], numpy_helper.to_array(t)) for t in model.graph.initializer)
    assert all_rules()
