"""onnxruntime's attention operators: MultiHeadAttention, GroupQueryAttention, RotaryEmbedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mnnprep.rules.fused.bodies import Body, named
from mnnprep.rules.reading import Reading

LOWEST = -3.4028234663852886e38
ROTATE = """
    {x}_rotated, {x}_rest = Split <axis = -1> ({x}_in, sizes)
    {x}_left, {x}_right = Split <axis = -1> ({x}_rotated, halves)
    {x}_lc = Mul({x}_left, cos)
    {x}_rs = Mul({x}_right, sin)
    {x}_rc = Mul({x}_right, cos)
    {x}_ls = Mul({x}_left, sin)
    {x}_first = Sub({x}_lc, {x}_rs)
    {x}_second = Add({x}_rc, {x}_ls)
    {x}_out = Concat <axis = -1> ({x}_first, {x}_second, {x}_rest)
"""
TURNS = """
    cos_rows = Gather(cos_cache, places)
    sin_rows = Gather(sin_cache, places)
    cos = Unsqueeze(cos_rows, heads_axis)
    sin = Unsqueeze(sin_rows, heads_axis)
"""


def rotary_embedding(node: Any, reading: Reading) -> Body | None:
    """``x * cos + rotate_half(x) * sin`` over pairs that are half a head apart."""
    inputs = named(node, "x", "positions", "cos_cache", "sin_cache")
    dims, half = reading.dims(inputs["x"]), (reading.dims(inputs["cos_cache"]) or (None, None))[1]
    get = node.attributes.get_int
    if (
        dims is None
        or not isinstance(half, int)
        or get("interleaved", 0)
        or reading.rank(inputs["positions"]) != 2
        or get("is_packed_batching", 0)
    ):
        return None
    heads, width = get("num_heads", 0), dims[-1]
    size = width if len(dims) == 4 else width // heads if heads and isinstance(width, int) else 2 * half
    if not isinstance(size, int) or size < 2 * half:
        return None
    lines = "places = Identity(positions)\n" + TURNS
    if len(dims) == 4:
        lines += "x_in = Identity(x)\n" + _rotate("x", size, half) + "y = Identity(x_out)"
    else:
        lines += "split_x = Reshape(x, apart)\nx_in = Transpose <perm = [0, 2, 1, 3]> (split_x)\n" + _rotate(
            "x", size, half
        )
        lines += "back = Transpose <perm = [0, 2, 1, 3]> (x_out)\ny = Reshape(back, together)"
    constants: dict[str, Any] = {"heads_axis": [1], "apart": [0, 0, -1, size], "together": [0, 0, -1]}
    return Body(lines, ("y",), inputs, constants | _sizes(size, half))


def multi_head_attention(node: Any, reading: Reading) -> Body | None:
    """Scaled dot products over ``num_heads``, from query, key and value of ``[batch, length, hidden]``."""
    inputs = named(node, "q", "k", "v", "bias", "padding", "added", "past_k", "past_v")
    heads, dims = node.attributes.get_int("num_heads"), reading.dims(node.inputs[0])
    if dims is None or len(dims) != 3 or not isinstance(dims[2], int) or not {"k", "v"} <= inputs.keys():
        return None
    if (
        reading.rank(inputs["k"]) != 3
        or reading.rank(inputs["v"]) != 3
        or ("padding" in inputs and reading.rank(inputs["padding"]) != 2)
    ):
        return None
    values = reading.dims(inputs["v"])
    if values is None or not isinstance(values[2], int) or node.attributes.get_int("unidirectional", 0):
        return None
    hidden, size = dims[2], dims[2] // heads
    constants: dict[str, Any] = {
        "scale": node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(size),
        "together": [0, 0, -1],
    }
    constants |= {
        "q_apart": [0, 0, heads, size],
        "k_apart": [0, 0, heads, size],
        "v_apart": [0, 0, heads, values[2] // heads],
    }
    lines = ""
    if "bias" in inputs:
        lines += "q_bias, k_bias, v_bias = Split <axis = 0> (bias, biases)\n"
        constants["biases"] = [hidden, hidden, values[2]]
    for name in "qkv":
        lines += (
            f"{name}_sum = Add({name}, {name}_bias)\n"
            if "bias" in inputs
            else f"{name}_sum = Identity({name})\n"
        )
        lines += (
            f"{name}_parts = Reshape({name}_sum, {name}_apart)\n{name}_new = Transpose <perm = [0, 2, 1, 3]>"
            f" ({name}_parts)\n"
        )
    lines += "q_all = Identity(q_new)\n" + _with_past(inputs)
    if "padding" in inputs:  # 1 where a key counts, 0 where it is padding
        lines += """
            seen = Cast <to = 9> (padding)
            seen_keys = Unsqueeze(seen, middle)
            hidden_keys = Where(seen_keys, nothing, low)
        """
        constants |= {"middle": [1, 2], "nothing": 0.0, "low": LOWEST}
    lines += _attend(
        [
            name
            for name, there in (("added", "added" in inputs), ("hidden_keys", "padding" in inputs))
            if there
        ]
    )
    return Body(lines, ("y", "k_all", "v_all"), inputs, constants)


def group_query_attention(node: Any, reading: Reading) -> Body | None:
    """Causal attention whose keys and values have fewer heads, with rotary embedding where ``do_rotary`` asks
    for it.

    For sequences that are not padded, with a past of exactly what came before (not a buffer that is longer).
    """
    inputs = named(node, "q", "k", "v", "past_k", "past_v", "lengths", "total", "cos_cache", "sin_cache")
    get = node.attributes.get_int
    heads, groups, dims = get("num_heads"), get("kv_num_heads"), reading.dims(node.inputs[0])
    packed = "k" not in inputs
    if (
        dims is None
        or not isinstance(dims[2], int)
        or get("rotary_interleaved", 0)
        or node.attributes.get_float("softcap", 0.0)
    ):
        return None
    if (
        get("local_window_size", -1) != -1
        or get("smooth_softmax", 0)
        or len(node.inputs) > 9
        or (packed and "v" in inputs)
    ):
        return None
    size = dims[2] // (heads + 2 * groups if packed else heads)
    constants: dict[str, Any] = {
        "scale": node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(size),
        "together": [0, 0, -1],
    }
    constants |= {
        f"{name}_apart": [0, 0, count, size] for name, count in (("q", heads), ("k", groups), ("v", groups))
    }
    lines = ""
    if packed:
        lines += "q_sum, k_sum, v_sum = Split <axis = -1> (q, thirds)\n"
        constants["thirds"] = [heads * size, groups * size, groups * size]
    for name in "qkv":
        lines += "" if packed else f"{name}_sum = Identity({name})\n"
        lines += (
            f"{name}_parts = Reshape({name}_sum, {name}_apart)\n{name}_turned = Transpose <perm = [0, 2, 1,"
            f" 3]> ({name}_parts)\n"
        )
    lines += _positions("past_k" in inputs)
    constants |= {
        "i_zero": 0,
        "i_one": 1,
        "i_two": 2,
        "nothing": 0.0,
        "low": LOWEST,
        "row_axis": [1],
        "column_axis": [0],
        "heads_axis": [1],
    }
    if get("do_rotary", 0):
        half = (reading.dims(inputs["cos_cache"]) or (None, None))[1]
        if not isinstance(half, int):
            return None
        lines += "places = Unsqueeze(rows, column_axis)\n" + TURNS
        lines += "".join(
            f"{n}_in = Identity({n}_turned)\n{_rotate(n, size, half)}{n}_new = Identity({n}_out)\n"
            for n in "qk"
        )
        constants |= _sizes(size, half)
    else:
        lines += "q_new = Identity(q_turned)\nk_new = Identity(k_turned)\n"
    lines += "v_new = Identity(v_turned)\nq_all = Identity(q_new)\n" + _with_past(
        inputs, "present_k", "present_v"
    )
    for name in "kv":
        lines += f"""
            {name}_apart2 = Unsqueeze(present_{name}, group_axis)
            {name}_many = Expand({name}_apart2, times)
            {name}_all = Reshape({name}_many, merged)
        """
    constants |= {"group_axis": [2], "times": [1, 1, heads // groups, 1, 1], "merged": [0, heads, -1, size]}
    used = {name: value for name, value in inputs.items() if name not in ("lengths", "total")}
    return Body(lines + _attend(["causal"]), ("y", "present_k", "present_v"), used, constants)


def _positions(past: bool) -> str:
    """The numbers of the rows (queries) and columns (keys), and what the causal mask adds."""
    before = (
        "past_shape = Shape(past_k)\nbefore = Gather(past_shape, i_two)"
        if past
        else "before = Identity(i_zero)"
    )
    return f"""
        {before}
        q_shape = Shape(q_turned)
        length = Gather(q_shape, i_two)
        all_keys = Add(before, length)
        rows = Range(before, all_keys, i_one)
        columns = Range(i_zero, all_keys, i_one)
        row_numbers = Unsqueeze(rows, row_axis)
        column_numbers = Unsqueeze(columns, column_axis)
        later = Greater(column_numbers, row_numbers)
        causal = Where(later, low, nothing)
    """


def _with_past(inputs: dict[str, Any], k_all: str = "k_all", v_all: str = "v_all") -> str:
    if "past_k" not in inputs:
        return f"{k_all} = Identity(k_new)\n{v_all} = Identity(v_new)\n"
    return f"{k_all} = Concat <axis = 2> (past_k, k_new)\n{v_all} = Concat <axis = 2> (past_v, v_new)\n"


def _attend(masks: list[str]) -> str:
    lines = (
        "k_turned_last = Transpose <perm = [0, 1, 3, 2]> (k_all)\nproducts = MatMul(q_all,"
        " k_turned_last)\nscores0 = Mul(products, scale)\n"
    )
    for number, mask in enumerate(masks):
        lines += f"scores{number + 1} = Add(scores{number}, {mask})\n"
    return (
        lines
        + f"""
        probabilities = Softmax <axis = -1> (scores{len(masks)})
        mixed = MatMul(probabilities, v_all)
        mixed_back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        y = Reshape(mixed_back, together)
    """
    )


def _rotate(name: str, size: int, half: int) -> str:
    lines = ROTATE.format(x=name)
    if size > 2 * half:
        return lines
    lines = lines.replace(
        f"{name}_rotated, {name}_rest = Split <axis = -1> ({name}_in, sizes)",
        f"{name}_rotated = Identity({name}_in)",
    )
    return lines.replace(f", {name}_rest)", ")")


def _sizes(size: int, half: int) -> dict[str, Any]:
    return {"sizes": [2 * half, size - 2 * half], "halves": [half, half]}


BODIES: dict[str, Callable[[Any, Reading], Body | None]] = {
    "RotaryEmbedding": rotary_embedding,
    "MultiHeadAttention": multi_head_attention,
    "GroupQueryAttention": group_query_attention,
}
