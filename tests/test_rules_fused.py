"""onnxruntime's fused operators written out: refused by MNN before, right after, and the same numbers in
onnxruntime.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnprep.workers.host import Host
from support.rewriting import reference, through_mnn, written_out

Arrays = dict[str, Any]
RANDOM = np.random.default_rng(3)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def small(*shape: int, dtype: Any = np.int8) -> Any:
    info = np.iinfo(dtype)
    return RANDOM.integers(info.min, info.max, shape, dtype, endpoint=True)


def call(
    op_type: str,
    inputs: dict[str, Any],
    fed: Sequence[str],
    outputs: Sequence[str] = ("y",),
    domain: str = "com.microsoft",
    opset: int = 17,
    attributes_more: dict[str, Any] | None = None,
    **attributes: Any,
) -> tuple[Any, list[Arrays]]:
    """A model of one node, whose inputs other than *fed* are initializers; an input that is None is left
    out.
    """
    node = helper.make_node(
        op_type,
        [n if a is not None else "" for n, a in inputs.items()],
        list(outputs),
        domain=domain,
        **attributes,
        **(attributes_more or {}),
    )
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(inputs[n].dtype), inputs[n].shape)
        for n in fed
    ]
    weights = [
        numpy_helper.from_array(np.asarray(a), n) for n, a in inputs.items() if a is not None and n not in fed
    ]
    given = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in outputs if n]
    for value in given:
        value.ClearField("type")
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph([node], "net", infos, given, weights), opset_imports=imports, ir_version=9
    )
    return typed(model), [{n: inputs[n] for n in fed}]


def typed(model: Any) -> Any:
    """The model with the outputs' dtypes as onnxruntime finds them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    kinds = {"tensor(float)": 1, "tensor(uint8)": 2, "tensor(int8)": 3, "tensor(int32)": 6}
    found = [helper.make_tensor_value_info(o.name, kinds[o.type], None) for o in session.get_outputs()]
    del model.graph.output[:]
    model.graph.output.extend(found)
    return model


def norm(
    op_type: str, *names: str, outputs: Sequence[str] = ("y",), **attributes: Any
) -> tuple[Any, list[Arrays]]:
    sizes = {"x": (2, 3, 8), "skip": (2, 3, 8)}
    return call(
        op_type,
        {n: floats(*sizes.get(n, (8,))) for n in names},
        ["x"] + ["skip"] * ("skip" in names),
        outputs,
        **attributes,
    )


def embed(**without: Any) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {
        "ids": RANDOM.integers(0, 20, (2, 5)).astype(np.int32),
        "segments": RANDOM.integers(0, 2, (2, 5)).astype(np.int32),
        "words": floats(20, 8),
        "positions": floats(9, 8),
        "kinds": floats(2, 8),
        "gamma": floats(8),
        "beta": floats(8),
        "mask": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32),
    }
    inputs |= without
    fed = [n for n in ("ids", "segments", "mask") if inputs[n] is not None]
    return call("EmbedLayerNormalization", inputs, fed, ["y", "count"])


def conv(**attributes: Any) -> tuple[Any, list[Arrays]]:
    inputs = {"x": floats(1, 2, 6, 6), "w": floats(3, 2, 3, 3), "b": floats(3)}
    return call("FusedConv", inputs, ["x"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], **attributes)


def nbits(bits: int, zeros: bool) -> tuple[Any, list[Arrays]]:
    rows, columns, block = 6, 40, 16
    blocks = -(-columns // block)
    inputs: dict[str, Any] = {
        "a": floats(3, columns),
        "b": small(rows, blocks, block * bits // 8, dtype=np.uint8),
        "scales": floats(rows * blocks),
    }
    if zeros:
        inputs["zeros"] = small(rows * -(-blocks * bits // 8), dtype=np.uint8)
    return call("MatMulNBits", inputs, ["a"], K=columns, N=rows, bits=bits, block_size=block)


def quantized_pair(op_type: str) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {
        "a": small(2, 5),
        "a_scale": np.float32(0.02),
        "a_zero": np.int8(3),
        "b": small(2, 5),
        "b_scale": np.float32(0.03),
        "b_zero": np.int8(-7),
        "y_scale": np.float32(0.05),
        "y_zero": np.int8(4),
    }
    return call(op_type, inputs, ["a", "b"])


def quantized_one(op_type: str, *shape: int, **attributes: Any) -> tuple[Any, list[Arrays]]:
    inputs = {
        "a": small(*shape),
        "a_scale": np.float32(0.02),
        "a_zero": np.int8(3),
        "y_scale": np.float32(0.01),
        "y_zero": np.int8(-4),
    }
    return call(op_type, inputs, ["a"], **attributes)


def chained() -> tuple[Any, list[Arrays]]:
    """A fused operator behind a fused operator: what the first gives is replaced before the second is."""
    model, feeds = quantized_pair("QLinearAdd")
    second = copy.deepcopy(model.graph.node[0])
    second.input[0], second.output[0] = "y", "z"
    model.graph.node.append(second)
    model.graph.output[0].name = "z"
    return model, feeds


def quantized_concat() -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {"y_scale": np.float32(0.05), "y_zero": np.int8(4)}
    for number, scale in enumerate((0.02, 0.09)):
        inputs |= {f"x{number}": small(2, 3), f"s{number}": np.float32(scale), f"z{number}": np.int8(number)}
    return call("QLinearConcat", inputs, ["x0", "x1"], axis=1)


def quantized_where() -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {"c": np.array([[True, False, True]])}
    for name, scale in (("a", 0.02), ("b", 0.03)):
        inputs |= {name: small(2, 3), f"{name}_scale": np.float32(scale), f"{name}_zero": np.int8(5)}
    return call(
        "QLinearWhere", inputs | {"y_scale": np.float32(0.03), "y_zero": np.int8(-2)}, ["c", "a", "b"]
    )


def quantized_gemm(*, real: bool = False, trans: bool = False) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {
        "a": small(3, 6),
        "a_scale": np.float32(0.02),
        "a_zero": np.int8(3),
        "b": small(4, 6) if trans else small(6, 4),
        "b_scale": np.float32(0.01),
        "b_zero": np.int8(0),
        "c": np.arange(-200, 200, 100, dtype=np.int32),
    }
    if not real:
        inputs |= {"y_scale": np.float32(0.05), "y_zero": np.int8(4)}
    return call("QGemm", inputs, ["a"], transB=int(trans))


def quantized_attention(*, mask: bool) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {
        "a": small(2, 5, 8, dtype=np.uint8),
        "w": small(8, 24),
        "bias": floats(24),
        "a_scale": np.float32(0.02),
        "w_scale": np.float32(0.01),
        "mask": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32) if mask else None,
        "a_zero": np.uint8(100),
        "w_zero": np.int8(0),
    }
    return call("QAttention", inputs, ["a", "mask"] if mask else ["a"], num_heads=2)


def quantized_embed() -> tuple[Any, list[Arrays]]:
    tables = {"words": (10, 8), "positions": (6, 8), "kinds": (2, 8), "gamma": (8,), "beta": (8,)}
    inputs: dict[str, Any] = {
        "ids": np.array([[1, 2, 3, 9, 0], [4, 4, 5, 6, 7]], np.int32),
        "segments": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], np.int32),
        **{name: small(*shape, dtype=np.uint8) for name, shape in tables.items()},
        "mask": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32),
        **{f"{name}_scale": np.float32(0.01 * (place + 1)) for place, name in enumerate(tables)},
        **{f"{name}_zero": np.uint8(7 * (place + 1)) for place, name in enumerate(tables)},
    }
    return call("QEmbedLayerNormalization", inputs, ["ids", "segments", "mask"], ["y", "count"])


def gathered(*, zeros: bool) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {
        "table": small(7, 16, dtype=np.uint8),
        "ids": np.array([[0, 3], [6, 1]], np.int64),
        "scales": floats(7, 2),
    }
    if zeros:
        inputs["zeros"] = small(7, 1, dtype=np.uint8)
    return call(
        "GatherBlockQuantized", inputs, ["ids"], bits=4, block_size=16, quantize_axis=1, gather_axis=0
    )


def multi_head(*more: str) -> tuple[Any, list[Arrays]]:
    inputs: dict[str, Any] = {n: floats(2, 5 if n != "q" else 4, 8) for n in "qkv"}
    extra = {
        "bias": floats(24),
        "padding": np.array([[1, 1, 1, 0, 0], [1] * 5], np.int32),
        "added": floats(2, 2, 4, 5),
        "past_k": floats(2, 2, 3, 4),
        "past_v": floats(2, 2, 3, 4),
    }
    inputs |= {n: a if n in more else None for n, a in extra.items()}
    outputs = ["y", "k_all", "v_all"] if "past_k" in more else ["y"]
    while inputs and list(inputs.values())[-1] is None:
        inputs.popitem()
    return call(
        "MultiHeadAttention",
        inputs,
        [n for n in inputs if inputs[n] is not None and n != "bias"],
        outputs,
        num_heads=2,
    )


def group_query(past: int, rotary: bool, packed: bool = False) -> tuple[Any, list[Arrays]]:
    new = 1 if past else 4
    inputs: dict[str, Any] = {"q": floats(1, new, 128 if packed else 64)}
    inputs |= {n: None if packed else floats(1, new, 32) for n in "kv"}
    inputs |= {n: floats(1, 2, past, 16) for n in ("past_k", "past_v")}
    inputs |= {"lengths": np.array([past + new - 1], np.int32), "total": np.array([past + new], np.int32)}
    if rotary:
        inputs |= {"cos_cache": floats(16, 8), "sin_cache": floats(16, 8)}
    fed = [n for n in ("q", "k", "v", *(["past_k", "past_v"] if past else [])) if inputs[n] is not None]
    return call(
        "GroupQueryAttention",
        inputs,
        fed,
        ["y", "present_k", "present_v"],
        num_heads=4,
        kv_num_heads=2,
        do_rotary=int(rotary),
    )


def rotary(shape: Sequence[int], half: int, **attributes: Any) -> tuple[Any, list[Arrays]]:
    inputs = {
        "x": floats(*shape),
        "positions": np.array([[0, 3, 1, 2]]),
        "cos_cache": floats(9, half),
        "sin_cache": floats(9, half),
    }
    return call("RotaryEmbedding", inputs, ["x"], **attributes)


MATRICES = {"a": floats(3, 4), "b": floats(5, 4)}
WHOLE = {
    "a": small(2, 6, dtype=np.uint8),
    "b": small(6, 4),
    "a_scale": np.float32(0.02),
    "b_scale": np.float32(0.01),
    "a_zero": np.uint8(120),
}

FUSED: dict[str, Callable[[], tuple[Any, list[Arrays]]]] = {
    "SkipLayerNormalization": lambda: norm("SkipLayerNormalization", "x", "skip", "gamma", "beta"),
    "SkipLayerNormalization with bias and sum": lambda: norm(
        "SkipLayerNormalization",
        "x",
        "skip",
        "gamma",
        "beta",
        "bias",
        outputs=["y", "", "", "sum"],
        epsilon=1e-5,
    ),
    "SkipLayerNormalization at opset 18": lambda: norm(
        "SkipLayerNormalization", "x", "skip", "gamma", "beta", opset=18
    ),
    "SkipSimplifiedLayerNormalization": lambda: norm(
        "SkipSimplifiedLayerNormalization", "x", "skip", "gamma", outputs=["y", "", "", "sum"]
    ),
    "SimplifiedLayerNormalization": lambda: norm(
        "SimplifiedLayerNormalization", "x", "gamma", domain="", epsilon=1e-6, axis=-1
    ),
    "EmbedLayerNormalization": embed,
    "EmbedLayerNormalization without segments": lambda: embed(segments=None, kinds=None),
    "FusedMatMul": lambda: call("FusedMatMul", MATRICES, ["a"], transB=1, alpha=0.25),
    "FusedGemm": lambda: call(
        "FusedGemm",
        MATRICES | {"c": floats(5)},
        ["a"],
        transB=1,
        alpha=0.5,
        beta=2.0,
        activation="LeakyRelu",
        activation_alpha=0.2,
    ),
    "FusedConv": lambda: conv(activation="Relu"),
    "FusedConv with a leaky ReLU": lambda: conv(activation="LeakyRelu", activation_params=[0.3]),
    "BiasGelu": lambda: call("BiasGelu", {"x": floats(3, 8), "bias": floats(8)}, ["x"]),
    "FastGelu": lambda: call("FastGelu", {"x": floats(3, 8), "bias": floats(8)}, ["x"]),
    "QuickGelu": lambda: call("QuickGelu", {"x": floats(3, 8)}, ["x"], alpha=1.5),
    "DynamicQuantizeMatMul": lambda: call(
        "DynamicQuantizeMatMul",
        {"a": floats(3, 6), "b": small(6, 4), "s": np.float32(0.02), "z": np.int8(2)},
        ["a"],
    ),
    "MatMulIntegerToFloat": lambda: call("MatMulIntegerToFloat", WHOLE, ["a"]),
    "MatMulNBits of 4": lambda: nbits(4, zeros=False),
    "MatMulNBits of 4 with zero points": lambda: nbits(4, zeros=True),
    "MatMulNBits of 8": lambda: nbits(8, zeros=False),
    "QLinearAdd": lambda: quantized_pair("QLinearAdd"),
    "QLinearMul": lambda: quantized_pair("QLinearMul"),
    "QLinearSigmoid": lambda: quantized_one("QLinearSigmoid", 2, 5),
    "QLinearLeakyRelu": lambda: quantized_one("QLinearLeakyRelu", 2, 5, alpha=0.2),
    "QLinearGlobalAveragePool": lambda: quantized_one("QLinearGlobalAveragePool", 1, 3, 4, 4),
    "QLinearAveragePool": lambda: quantized_one("QLinearAveragePool", 1, 3, 6, 6, kernel_shape=[2, 3]),
    "QLinearSoftmax": lambda: quantized_one(
        "QLinearSoftmax", 2, 5, attributes_more={"axis": -1, "opset": 13}
    ),
    "QLinearConcat": quantized_concat,
    "QLinearAdd behind QLinearAdd": chained,
    "QLinearWhere": quantized_where,
    "QGemm": quantized_gemm,
    "QGemm to real numbers": lambda: quantized_gemm(real=True, trans=True),
    "QAttention": lambda: quantized_attention(mask=False),
    "QAttention with a mask": lambda: quantized_attention(mask=True),
    "QEmbedLayerNormalization": quantized_embed,
    "GatherBlockQuantized": lambda: gathered(zeros=False),
    "GatherBlockQuantized with zero points": lambda: gathered(zeros=True),
    "MultiHeadAttention": multi_head,
    "MultiHeadAttention with bias and masks": lambda: multi_head("bias", "padding", "added"),
    "GroupQueryAttention": lambda: group_query(0, rotary=False),
    "GroupQueryAttention with rotary embedding": lambda: group_query(0, rotary=True),
    "GroupQueryAttention with a past": lambda: group_query(5, rotary=True),
    "GroupQueryAttention, packed": lambda: group_query(0, rotary=True, packed=True),
    "RotaryEmbedding of 4 dimensions": lambda: rotary((1, 2, 4, 8), 4),
    "RotaryEmbedding of 3 dimensions": lambda: rotary((1, 4, 16), 4),
    "RotaryEmbedding of a part": lambda: rotary((1, 4, 16), 3, num_heads=2, rotary_embedding_dim=6),
}
STEPS = {
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "QLinearSoftmax",
    "QLinearConcat",
    "QLinearAdd behind QLinearAdd",
    "QLinearWhere",
    "QGemm",
}  # a sum may round to the next integer


def near(found: list[Arrays] | str, expected: list[Arrays], steps: int) -> bool:
    """Within 1e-4, and integers within so many *steps*."""
    if isinstance(found, str):
        return False
    pairs = [(f[n], a) for f, e in zip(found, expected, strict=True) for n, a in e.items()]
    if any(f.shape != a.shape for f, a in pairs):
        return False
    return all(
        (
            np.allclose(f, a, rtol=1e-4, atol=1e-4)
            if a.dtype.kind == "f"
            else int(np.abs(f.astype(int) - a.astype(int)).max()) <= steps
        )
        for f, a in pairs
    )


@pytest.mark.parametrize("name", FUSED)
def test_written_out(host: Host, tmp_path: Path, name: str) -> None:
    model, feeds = FUSED[name]()
    expected = reference(model, feeds)
    before = through_mnn(host, model, feeds, tmp_path / "before")
    assert not near(before, expected, 0)
    result, done = written_out(model, tmp_path / "repair")
    assert done.fired[0].rule == "microsoft-operators"
    assert not any(n.domain for n in result.graph.node)
    steps = 1 if name in STEPS else 0
    found = reference(result, feeds)
    assert all(found[0][n].dtype == expected[0][n].dtype for n in expected[0])
    assert near(found, expected, steps)
    after = through_mnn(host, result, feeds, tmp_path / "after")
    assert near(after, found, steps), after
    assert not [f for f in written_out(result, tmp_path / "again")[1].fired if f.rule != "constant-folding"]
