"""The computation of onnxruntime's operators of stored integers, in ONNX's notation.

After onnxruntime's operator documents (``docs/ContribOperators.md``).  They dequantize, compute in real
numbers and quantize; onnxruntime's kernels do part of it in tables or integers, so that an element may come
out on the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.fused_bodies import Body, Script, named, normalize, real, written
from mnnprep.repair.support.reading import Array, ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.fused_bodies import Inputs

CHANNELS_LAST = "channels_last"
OPERANDS = 3  # of QLinearConcat: number, scale, zero point


def _requantized(inputs: Inputs, made: str, scale: str = "y_scale", zero: str = "y_zero") -> str:
    """The line that quantizes *made* to ``y``."""
    return f"y = QuantizeLinear({made}, {scale}{f', {zero}' if zero in inputs else ''})"


def pool(node: ir.Node, view: ModelView) -> Body | None:
    """The average of windows."""
    inputs = named(node, "a", "a_scale", "a_zero", "y_scale", "y_zero")
    if node.attributes.get_int(CHANNELS_LAST, 0):
        return None
    kept = {n: a.value for n, a in node.attributes.items() if n != CHANNELS_LAST}
    attributes = ", ".join(f"{name} = {written(value)}" for name, value in kept.items())
    lines = real("a", inputs) + f"r = AveragePool <{attributes}> (real_a)\n"
    return Body(lines + _requantized(inputs, "r"), ("y",), inputs)


def softmax(node: ir.Node, view: ModelView) -> Body | None:
    """Softmax along one axis; before opset 13 it was over all that follow it."""
    inputs = named(node, "a", "a_scale", "a_zero", "y_scale", "y_zero")
    axis, opset = node.attributes.get_int("axis", -1), node.attributes.get_int("opset", 13)
    rank = view.rank(inputs["a"])
    if opset < 13 and (rank is None or axis % rank != rank - 1):
        return None
    lines = real("a", inputs) + f"r = Softmax <axis = {axis}> (real_a)\n"
    return Body(lines + _requantized(inputs, "r"), ("y",), inputs)


def concat(node: ir.Node, view: ModelView) -> Body | None:
    """Tensors of several scales, one after the other."""
    count = (len(node.inputs) - 2) // OPERANDS
    names = [f"x{number}" for number in range(count)]
    given = [part for name in names for part in (name, f"{name}_scale", f"{name}_zero")]
    inputs = named(node, "y_scale", "y_zero", *given)
    lines = "".join(real(name, inputs) for name in names)
    joined = ", ".join(f"real_{name}" for name in names)
    lines += f"r = Concat <axis = {node.attributes.get_int('axis')}> ({joined})\n"
    return Body(lines + _requantized(inputs, "r"), ("y",), inputs)


def where(node: ir.Node, view: ModelView) -> Body | None:
    """A choice between two tensors of their own scales."""
    inputs = named(node, "c", "a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero")
    lines = real("a", inputs) + real("b", inputs) + "r = Where(c, real_a, real_b)\n"
    return Body(lines + _requantized(inputs, "r"), ("y",), inputs)


def gemm(node: ir.Node, view: ModelView) -> Body | None:
    """A product of two quantized matrices and a bias in steps of both scales.

    It is real without a scale of the output.
    """
    inputs = named(node, "a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "c", "y_scale", "y_zero")
    get = node.attributes.get_int
    lines = real("a", inputs)
    if get("transB", 0) and (view.dims(inputs["b_scale"]) or (1,)) not in ((), (1,)):
        return None  # a scale for each column stands for rows here
    lines += real("b", inputs)
    flags = f"alpha = {node.attributes.get_float('alpha', 1.0)!r}, transA = {get('transA', 0)}"
    lines += f"r0 = Gemm <{flags}, transB = {get('transB', 0)}> (real_a, real_b)\n"
    constants: dict[str, float] = {}
    if "c" in inputs:
        constants["alpha"] = node.attributes.get_float("alpha", 1.0)
        lines += "c0 = Cast <to = 1> (c)\nscale0 = Mul(a_scale, b_scale)\nscale1 = Mul(scale0, alpha)\n"
        lines += "c1 = Mul(c0, scale1)\nr = Add(r0, c1)\n"
    else:
        lines += "r = Identity(r0)\n"
    lines += _requantized(inputs, "r") if "y_scale" in inputs else "y = Identity(r)"
    return Body(lines, ("y",), inputs, constants)


def attention(node: ir.Node, view: ModelView) -> Body | None:
    """Attention whose projection is a product of quantized numbers.

    Not written out: a past, and a mask in any other form than ``[batch, keys]``.
    """
    names = ("a", "w", "bias", "a_scale", "w_scale", "mask", "a_zero", "w_zero", "past")
    inputs = named(node, *names)
    dims, heads = view.dims(inputs["w"]), node.attributes.get_int("num_heads")
    if dims is None or not isinstance(dims[1], int) or "past" in inputs:
        return None
    if node.attributes.get_int("unidirectional", 0) or node.attributes.get_int("do_rotary", 0):
        return None
    if "mask" in inputs and view.rank(inputs["mask"]) != 2:
        return None
    hidden = dims[1] // 3
    size = hidden // heads
    script = Script()
    zeros = [name if name in inputs else "" for name in ("a_zero", "w_zero")]
    fed = ", ".join(["a", "w", *zeros]).rstrip(", ")
    script.add(
        f"whole = MatMulInteger({fed})",
        "number = Cast <to = 1> (whole)",
        "scale0 = Mul(a_scale, w_scale)",
        "product = Mul(number, scale0)",
        "sum = Add(product, bias)",
        "q0, k0, v0 = Split <axis = 2> (sum, parts)",
        parts=[hidden] * 3,
        apart=[0, 0, heads, size],
        together=[0, 0, -1],
        scale=node.attributes.get_float("scale", 0.0) or 1.0 / size**0.5,
    )
    for name, order in (("q", "0, 2, 1, 3"), ("k", "0, 2, 3, 1"), ("v", "0, 2, 1, 3")):
        script.add(f"{name}1 = Reshape({name}0, apart)", f"{name}2 = Transpose <perm = [{order}]> ({name}1)")
    script.add("dots = MatMul(q2, k2)", "scores0 = Mul(dots, scale)")
    scores = "scores0"
    if "mask" in inputs:  # 1 where a key counts
        script.add("seen = Cast <to = 9> (mask)", "keys = Unsqueeze(seen, middle)", middle=[1, 2])
        low = node.attributes.get_float("mask_filter_value", -10000.0)
        script.add("hidden_keys = Where(keys, nothing, low)", "scores1 = Add(scores0, hidden_keys)")
        script.add(nothing=0.0, low=low)
        scores = "scores1"
    script.add(
        f"probabilities = Softmax <axis = -1> ({scores})",
        "mixed = MatMul(probabilities, v2)",
        "back = Transpose <perm = [0, 2, 1, 3]> (mixed)",
        "y = Reshape(back, together)",
    )
    return script.body(("y",), inputs)


def embed(node: ir.Node, view: ModelView) -> Body | None:
    """LayerNormalization of the sum of quantized embeddings."""
    tables = ("words", "positions", "kinds", "gamma", "beta")
    inputs = named(
        node,
        "ids",
        "segments",
        *tables,
        "mask",
        *(f"{name}_scale" for name in tables),
        *(f"{name}_zero" for name in tables),
    )
    script = Script()
    script.add(*(real(name, inputs) for name in tables if name in inputs))
    script.add(
        "word = Gather(real_words, ids)",
        "shape = Shape(ids)",
        "length = Gather(shape, one)",
        "range = Range(zero, length, one)",
        "place = Gather(real_positions, range)",
        "both = Add(word, place)",
        zero=0,
        one=1,
        eps=node.attributes.get_float("epsilon", 1e-12),
    )
    if "segments" in inputs:
        script.add("kind = Gather(real_kinds, segments)", "sum = Add(both, kind)")
    else:
        script.add("sum = Identity(both)")
    lines = normalize(True).replace("gamma", "real_gamma").replace("beta", "real_beta")
    script.add(lines)
    if "mask" in inputs:
        script.add("count = ReduceSum <keepdims = 0> (mask, second)", second=[1])
    return script.body(("y", "count" if "mask" in inputs else None), inputs)


def gather(node: ir.Node, view: ModelView) -> Body | None:
    """Rows of a table of 4 or 8 bits, each block with its scale; None if the table is computed."""
    get = node.attributes.get_int
    held = [tensor(value) if value is not None else None for value in (*node.inputs, None)]
    data, scales = held[0], held[2]
    zeros = node.inputs[3] if len(node.inputs) > 3 else None
    if data is None or scales is None or (zeros is not None and held[3] is None):
        return None
    bits, block = get("bits", 4), get("block_size", 128)
    numbers = _unpacked(data.numpy(), str(data.dtype), bits)
    axis = get("quantize_axis", 1) % numbers.ndim
    factors = scales.numpy().astype(np.float32)
    unsigned = "UINT8" in str(data.dtype) or "UINT4" in str(data.dtype)
    points: Array = np.full(factors.shape, (1 << (bits - 1)) if "UINT8" in str(data.dtype) else 0, np.float32)
    if held[3] is not None:
        points = _unpacked(held[3].numpy(), str(held[3].dtype), bits)[tuple(map(slice, factors.shape))]
    elif not unsigned:
        points = np.zeros(factors.shape, np.float32)
    cut = tuple(slice(size) for size in numbers.shape)
    spread = [np.repeat(part, block, axis)[cut] for part in (points, factors)]
    table = ((numbers - spread[0]) * spread[1]).astype(np.float32)
    inputs = {"ids": node.inputs[1]}
    lines = f"y = Gather <axis = {get('gather_axis', 0)}> (table, ids)"
    return Body(lines, ("y",), {n: v for n, v in inputs.items() if v is not None}, {"table": table})


def _unpacked(values: Array, dtype: str, bits: int) -> Array:
    """The numbers of a tensor, in float32; unsigned bytes hold those of fewer *bits*, the low ones first."""
    if "UINT8" not in dtype or bits == 8:
        return values.astype(np.float32)
    count = 8 // bits
    parts = np.stack([(values >> (bits * place)) & ((1 << bits) - 1) for place in range(count)], axis=-1)
    found: Array = parts.reshape(*values.shape[:-1], -1).astype(np.float32)
    return found


BODIES: dict[str, Callable[[ir.Node, ModelView], Body | None]] = {
    "QLinearAveragePool": pool,
    "QLinearSoftmax": softmax,
    "QLinearConcat": concat,
    "QLinearWhere": where,
    "QGemm": gemm,
    "QAttention": attention,
    "QEmbedLayerNormalization": embed,
    "GatherBlockQuantized": gather,
}
