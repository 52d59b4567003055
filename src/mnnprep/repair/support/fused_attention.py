"""onnxruntime's attention operators: MultiHeadAttention, GroupQueryAttention, RotaryEmbedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from mnnprep.repair.support.fused_bodies import Body, Script, named
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.fused_bodies import Inputs

LOWEST = -3.4028234663852886e38
ROTATE = """
    {x}_left, {x}_right = Split <axis = -1> ({x}_rotated, halves)
    {x}_lc = Mul({x}_left, cos)
    {x}_rs = Mul({x}_right, sin)
    {x}_rc = Mul({x}_right, cos)
    {x}_ls = Mul({x}_left, sin)
    {x}_first = Sub({x}_lc, {x}_rs)
    {x}_second = Add({x}_rc, {x}_ls)
"""
TURNS = """
    cos_rows = Gather(cos_cache, places)
    sin_rows = Gather(sin_cache, places)
    cos = Unsqueeze(cos_rows, heads_axis)
    sin = Unsqueeze(sin_rows, heads_axis)
"""


PADDING = """
    seen = Cast <to = 9> (padding)
    seen_keys = Unsqueeze(seen, middle)
    hidden_keys = Where(seen_keys, nothing, low)
"""
HEADS = """
    {x}_parts = Reshape({x}_sum, {x}_apart)
    {x}_{after} = Transpose <perm = [0, 2, 1, 3]> ({x}_parts)
"""
POSITIONS = """
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
REPEATED = """
    {x}_apart2 = Unsqueeze(present_{x}, group_axis)
    {x}_many = Expand({x}_apart2, times)
    {x}_all = Reshape({x}_many, merged)
"""
SCORES = """
    k_turned_last = Transpose <perm = [0, 1, 3, 2]> (k_all)
    products = MatMul(q_all, k_turned_last)
    scores0 = Mul(products, scale)
"""
MIXED = """
    probabilities = Softmax <axis = -1> ({scores})
    mixed = MatMul(probabilities, v_all)
    mixed_back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    y = Reshape(mixed_back, together)
"""


def rotary_embedding(node: ir.Node, view: ModelView) -> Body | None:
    """``x * cos + rotate_half(x) * sin`` over pairs that are half a head apart."""
    inputs = named(node, "x", "positions", "cos_cache", "sin_cache")
    dims, half = view.dims(inputs["x"]), _half(inputs, view)
    get = node.attributes.get_int
    if dims is None or half is None or view.rank(inputs["positions"]) != 2:
        return None
    heads, width = get("num_heads", 0), dims[-1]
    size = width if len(dims) == 4 else width // heads if heads and isinstance(width, int) else 2 * half
    unread = get("interleaved", 0) + get("is_packed_batching", 0)
    if unread or not isinstance(size, int) or size < 2 * half:
        return None
    script = Script()
    script.add("places = Identity(positions)", TURNS)
    script.add(heads_axis=[1], apart=[0, 0, -1, size], together=[0, 0, -1])
    if len(dims) == 4:
        script.add("x_in = Identity(x)")
        _rotate(script, "x", size, half)
        script.add("y = Identity(x_out)")
    else:
        script.add("split_x = Reshape(x, apart)", "x_in = Transpose <perm = [0, 2, 1, 3]> (split_x)")
        _rotate(script, "x", size, half)
        script.add("back = Transpose <perm = [0, 2, 1, 3]> (x_out)", "y = Reshape(back, together)")
    return script.body(("y",), inputs)


def multi_head_attention(node: ir.Node, view: ModelView) -> Body | None:
    """Scaled dot products over ``num_heads``, from query, key and value of ``[batch, length, hidden]``."""
    inputs = named(node, "q", "k", "v", "bias", "padding", "added", "past_k", "past_v")
    unidirectional = node.attributes.get_int("unidirectional", 0)
    if unidirectional or not {"q", "k", "v"} <= inputs.keys():
        return None
    if "padding" in inputs and view.rank(inputs["padding"]) != 2:
        return None
    if any(view.rank(inputs[name]) != 3 for name in "qkv"):
        return None
    hidden, width = _widths(inputs, view)
    if not isinstance(hidden, int) or not isinstance(width, int):
        return None
    heads = node.attributes.get_int("num_heads")
    size = hidden // heads
    script = Script()
    script.add(scale=_scale(node, size), together=[0, 0, -1])
    script.add(
        q_apart=[0, 0, heads, size], k_apart=[0, 0, heads, size], v_apart=[0, 0, heads, width // heads]
    )
    if "bias" in inputs:
        split = "q_bias, k_bias, v_bias = Split <axis = 0> (bias, biases)"
        script.add(split, biases=[hidden, hidden, width])
    for name in "qkv":
        script.add(
            f"{name}_sum = Add({name}, {name}_bias)" if "bias" in inputs else f"{name}_sum = Identity({name})"
        )
        script.add(HEADS.format(x=name, after="new"))
    script.add("q_all = Identity(q_new)")
    _with_past(script, inputs, "k_all", "v_all")
    masks = ["added"] if "added" in inputs else []
    if "padding" in inputs:  # 1 where a key counts, 0 where it is padding
        script.add(PADDING, middle=[1, 2], nothing=0.0, low=LOWEST)
        masks.append("hidden_keys")
    _attend(script, masks)
    return script.body(("y", "k_all", "v_all"), inputs)


def group_query_attention(node: ir.Node, view: ModelView) -> Body | None:
    """Write out causal attention whose keys and values have fewer heads.

    It has rotary embedding if ``do_rotary`` asks for it.

    For sequences that are not padded, with a past of exactly what came before (not a buffer that is longer).
    """
    inputs = named(node, "q", "k", "v", "past_k", "past_v", "lengths", "total", "cos_cache", "sin_cache")
    packed = "k" not in inputs
    dims = view.dims(node.inputs[0])
    if dims is None or not isinstance(dims[2], int) or (packed and "v" in inputs) or not _plain(node):
        return None
    heads, groups = node.attributes.get_int("num_heads"), node.attributes.get_int("kv_num_heads")
    size = dims[2] // (heads + 2 * groups if packed else heads)
    rotary = bool(node.attributes.get_int("do_rotary", 0))
    half = _half(inputs, view) if rotary else None
    if rotary and half is None:
        return None
    script = Script()
    script.add(scale=_scale(node, size), together=[0, 0, -1])
    _grouped(script, heads, groups, size, packed=packed)
    _masked(script, past="past_k" in inputs)
    _turned(script, size, half)
    _with_past(script, inputs, "present_k", "present_v")
    script.add(*(REPEATED.format(x=name) for name in "kv"))
    script.add(group_axis=[2], times=[1, 1, heads // groups, 1, 1], merged=[0, heads, -1, size])
    _attend(script, ["causal"])
    used = {name: value for name, value in inputs.items() if name not in ("lengths", "total")}
    return script.body(("y", "present_k", "present_v"), used)


def _plain(node: ir.Node) -> bool:
    """Whether a GroupQueryAttention has none of the forms that are not written out."""
    get = node.attributes.get_int
    windowed = get("local_window_size", -1) != -1 or get("smooth_softmax", 0) != 0
    capped = node.attributes.get_float("softcap", 0.0) != 0.0
    interleaved = get("rotary_interleaved", 0) != 0
    return not (windowed or capped or interleaved or len(node.inputs) > 9)


def _half(inputs: Inputs, view: ModelView) -> int | None:
    """The size of half a head, that of the cosines."""
    half = (view.dims(inputs["cos_cache"]) or (None, None))[1]
    return half if isinstance(half, int) else None


def _widths(inputs: Inputs, view: ModelView) -> tuple[int | str | None, int | str | None]:
    """The sizes of a query and of a value."""
    query, value = view.dims(inputs["q"]), view.dims(inputs["v"])
    return query[2] if query is not None else None, value[2] if value is not None else None


def _scale(node: ir.Node, size: int) -> float:
    return node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(size)


def _grouped(script: Script, heads: int, groups: int, size: int, *, packed: bool) -> None:
    """Query, key and value, taken apart where they are *packed*, by heads."""
    for name, count in (("q", heads), ("k", groups), ("v", groups)):
        script.add(**{f"{name}_apart": [0, 0, count, size]})
    if packed:
        thirds = [heads * size, groups * size, groups * size]
        script.add("q_sum, k_sum, v_sum = Split <axis = -1> (q, thirds)", thirds=thirds)
    for name in "qkv":
        script.add(*([] if packed else [f"{name}_sum = Identity({name})"]))
        script.add(HEADS.format(x=name, after="turned"))


def _masked(script: Script, *, past: bool) -> None:
    """The numbers of the rows (queries) and columns (keys), and what the causal mask adds."""
    if past:
        script.add("past_shape = Shape(past_k)", "before = Gather(past_shape, i_two)")
    else:
        script.add("before = Identity(i_zero)")
    script.add(POSITIONS, i_zero=0, i_one=1, i_two=2, nothing=0.0, low=LOWEST)
    script.add(row_axis=[1], column_axis=[0], heads_axis=[1])


def _turned(script: Script, size: int, half: int | None) -> None:
    """Query and key by their positions, if *half* tells how; and the value as it is."""
    if half is None:
        script.add("q_new = Identity(q_turned)", "k_new = Identity(k_turned)")
    else:
        script.add("places = Unsqueeze(rows, column_axis)", TURNS)
        for name in "qk":
            script.add(f"{name}_in = Identity({name}_turned)")
            _rotate(script, name, size, half)
            script.add(f"{name}_new = Identity({name}_out)")
    script.add("v_new = Identity(v_turned)", "q_all = Identity(q_new)")


def _with_past(script: Script, inputs: Inputs, k_all: str, v_all: str) -> None:
    """All keys and values: those of the past, then the new ones."""
    for name, everything in (("k", k_all), ("v", v_all)):
        joined = (
            f"Concat <axis = 2> (past_{name}, {name}_new)" if "past_k" in inputs else f"Identity({name}_new)"
        )
        script.add(f"{everything} = {joined}")


def _attend(script: Script, masks: list[str]) -> None:
    script.add(SCORES)
    for number, mask in enumerate(masks):
        script.add(f"scores{number + 1} = Add(scores{number}, {mask})")
    script.add(MIXED.format(scores=f"scores{len(masks)}"))


def _rotate(script: Script, name: str, size: int, half: int) -> None:
    """``NAME_out``, which is ``NAME_in`` with its first ``2 * half`` numbers rotated."""
    rest = size > 2 * half
    if rest:
        script.add(f"{name}_rotated, {name}_rest = Split <axis = -1> ({name}_in, sizes)")
    else:
        script.add(f"{name}_rotated = Identity({name}_in)")
    parts = [f"{name}_first", f"{name}_second", *([f"{name}_rest"] if rest else [])]
    script.add(ROTATE.format(x=name), f"{name}_out = Concat <axis = -1> ({', '.join(parts)})")
    script.add(sizes=[2 * half, size - 2 * half], halves=[half, half])


BODIES: dict[str, Callable[[ir.Node, ModelView], Body | None]] = {
    "RotaryEmbedding": rotary_embedding,
    "MultiHeadAttention": multi_head_attention,
    "GroupQueryAttention": group_query_attention,
}
