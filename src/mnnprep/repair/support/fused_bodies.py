"""The computation of onnxruntime's fused operators, in ONNX's notation.

After onnxruntime's operator documents (``docs/ContribOperators.md``).  Each function takes the node and its
attributes and gives the lines, the names that its inputs have in them, and the numbers they need; None if
it has no answer to the node's form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import AttributeValue, Number

    Inputs: TypeAlias = Mapping[str, ir.Value]

GELU = """
    g_half = Mul(half, g_in)
    g_scaled = Mul(g_in, root)
    g_erf = Erf(g_scaled)
    g_one = Add(g_erf, one)
    y = Mul(g_half, g_one)
"""
RANGE = """
    shape = Shape(ids)
    length = Gather(shape, one)
    range = Range(zero, length, one)
    place = Gather(positions, range)
"""
ROOT_HALF, TANH_SCALE, TANH_CUBE = 0.7071067811865476, 0.7978845608028654, 0.044715


@dataclass(frozen=True)
class Body:
    """The ``lines`` whose results ``outputs`` are the node's outputs (None: not given).

    They are of ``inputs`` by name and ``constants``.
    """

    lines: str
    outputs: tuple[str | None, ...]
    inputs: Inputs
    constants: Mapping[str, Number] = field(default_factory=dict)


class Script:
    """Lines in ONNX's notation, written one after the other, and the numbers that they use."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Number] = {}

    def add(self, *lines: str, **constants: Number) -> None:
        """Write *lines*, which use *constants*."""
        self.lines += lines
        self.constants |= constants

    def body(self, outputs: tuple[str | None, ...], inputs: Inputs) -> Body:
        """Return what was written, of *inputs*, with the names in it of the node's *outputs*."""
        return Body("\n".join(self.lines), outputs, inputs, self.constants)


def named(node: ir.Node, *names: str) -> dict[str, ir.Value]:
    """The node's inputs by these names, in its order; those that it leaves out are not there."""
    return {name: value for name, value in zip(names, node.inputs, strict=False) if value is not None}


def skip_layer_normalization(node: ir.Node, view: ModelView) -> Body:
    """LayerNormalization of a sum."""
    inputs = named(node, "x", "skip", "gamma", "beta", "bias")
    return Body(
        _sum(inputs) + normalize("beta" in inputs),
        ("y", None, None, "sum"),
        inputs,
        {"eps": node.attributes.get_float("epsilon", 1e-12)},
    )


def skip_simplified(node: ir.Node, view: ModelView) -> Body:
    """RMS normalization of a sum."""
    inputs = named(node, "x", "skip", "gamma", "bias")
    constants = {"eps": node.attributes.get_float("epsilon", 1e-12), "two": 2.0}
    return Body(_sum(inputs) + _root_mean_square(), ("y", None, None, "sum"), inputs, constants)


def simplified(node: ir.Node, view: ModelView) -> Body | None:
    """RMS normalization."""
    rank = view.rank(node.inputs[0])
    if node.attributes.get_int("axis", -1) not in (-1, (rank or 0) - 1):
        return None
    inputs = named(node, "sum", "gamma")
    return Body(
        _root_mean_square(),
        ("y", "inverse"),
        inputs,
        {"eps": node.attributes.get_float("epsilon", 1e-5), "two": 2.0},
    )


def embed_layer_normalization(node: ir.Node, view: ModelView) -> Body:
    """LayerNormalization of the sum of word, position and segment embeddings."""
    inputs = named(node, "ids", "segments", "words", "positions", "kinds", "gamma", "beta", "mask", "places")
    script = Script()
    script.add("word = Gather(words, ids)", eps=node.attributes.get_float("epsilon", 1e-12))
    if "places" in inputs:
        script.add("place = Gather(positions, places)")
    else:
        script.add(RANGE, zero=0, one=1)
    script.add("both = Add(word, place)")
    if "segments" in inputs:
        script.add("kind = Gather(kinds, segments)", "sum = Add(both, kind)")
    else:
        script.add("sum = Identity(both)")
    script.add(normalize(True))
    if "mask" in inputs:
        script.add("count = ReduceSum <keepdims = 0> (mask, second)", second=[1])
    return script.body(("y", "count" if "mask" in inputs else None, "sum"), inputs)


def fused_matmul(node: ir.Node, view: ModelView) -> Body | None:
    """MatMul of operands that may be transposed, with a factor."""
    inputs = named(node, "a", "b")
    if node.attributes.get_int("transBatchA", 0) or node.attributes.get_int("transBatchB", 0):
        return None
    script = Script()
    for name, flag in (("a", "transA"), ("b", "transB")):
        rank = view.rank(inputs[name])
        if rank is None:
            return None
        if node.attributes.get_int(flag, 0) and rank > 1:
            order = [*range(rank - 2), rank - 1, rank - 2]
            script.add(f"t{name} = Transpose <perm = {order}> ({name})")
        else:
            script.add(f"t{name} = Identity({name})")
    alpha = node.attributes.get_float("alpha", 1.0)
    script.add("product = MatMul(ta, tb)", "y = Mul(product, alpha)", alpha=alpha)
    return script.body(("y",), inputs)


def fused_gemm(node: ir.Node, view: ModelView) -> Body | None:
    """Gemm with an activation."""
    inputs = named(node, "a", "b", "c")
    numbers = {name: node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
    flags = {name: node.attributes.get_int(name, 0) for name in ("transA", "transB")}
    attributes = ", ".join(f"{name} = {value!r}" for name, value in {**numbers, **flags}.items())
    activation = _activation(
        node.attributes.get_string("activation", ""), [node.attributes.get_float("activation_alpha", 0.01)]
    )
    if activation is None:
        return None
    return Body(f"linear = Gemm <{attributes}> ({', '.join(inputs)})\ny = {activation}", ("y",), inputs)


def fused_conv(node: ir.Node, view: ModelView) -> Body | None:
    """Conv with a sum and an activation."""
    inputs = named(node, "x", "w", "b", "z")
    params = list(node.attributes.get_floats("activation_params", ()))
    activation = _activation(node.attributes.get_string("activation", ""), params)
    if activation is None:
        return None
    kept = {
        name: attribute.value
        for name, attribute in node.attributes.items()
        if not name.startswith("activation")
    }
    attributes = ", ".join(f"{name} = {written(value)}" for name, value in kept.items())
    fed = ", ".join(name for name in ("x", "w", "b") if name in inputs)
    lines = f"conv = Conv <{attributes}> ({fed})\n" if attributes else f"conv = Conv({fed})\n"
    lines += "linear = Add(conv, z)\n" if "z" in inputs else "linear = Identity(conv)\n"
    return Body(lines + f"y = {activation}", ("y",), inputs)


def bias_gelu(node: ir.Node, view: ModelView) -> Body:
    """GELU of a sum."""
    constants = {"half": 0.5, "root": ROOT_HALF, "one": 1.0}
    return Body("g_in = Add(x, bias)\n" + GELU, ("y",), named(node, "x", "bias"), constants)


def fast_gelu(node: ir.Node, view: ModelView) -> Body:
    """GELU by tanh."""
    inputs = named(node, "x", "bias")
    lines = (
        ("v = Add(x, bias)" if "bias" in inputs else "v = Identity(x)")
        + """
        squared = Mul(v, v)
        cubed = Mul(squared, v)
        part = Mul(cubed, cube)
        inner = Add(v, part)
        scaled = Mul(inner, scale)
        bent = Tanh(scaled)
        raised = Add(bent, one)
        halved = Mul(v, half)
        y = Mul(halved, raised)
    """
    )
    return Body(lines, ("y",), inputs, {"cube": TANH_CUBE, "scale": TANH_SCALE, "one": 1.0, "half": 0.5})


def quick_gelu(node: ir.Node, view: ModelView) -> Body:
    """``x * sigmoid(alpha * x)``."""
    lines = "s = Mul(x, alpha)\ng = Sigmoid(s)\ny = Mul(x, g)"
    return Body(lines, ("y",), named(node, "x"), {"alpha": node.attributes.get_float("alpha", 1.702)})


def dynamic_quantize_matmul(node: ir.Node, view: ModelView) -> Body:
    """MatMul of a float, quantized on the way, and a quantized weight."""
    inputs = named(node, "a", "b", "b_scale", "b_zero", "bias")
    zero = ", b_zero" if "b_zero" in inputs else ""
    lines = f"q, a_scale, a_zero = DynamicQuantizeLinear(a)\nwhole = MatMulInteger(q, b, a_zero{zero})\n"
    return Body(lines + _to_float(inputs), ("y",), inputs)


def matmul_integer_to_float(node: ir.Node, view: ModelView) -> Body:
    """MatMul of quantized operands, as floats."""
    inputs = named(node, "a", "b", "a_scale", "b_scale", "a_zero", "b_zero", "bias")
    zeros = [name if name in inputs else "" for name in ("a_zero", "b_zero")]
    fed = ", ".join(["a", "b", *zeros]).rstrip(", ")
    return Body(f"whole = MatMulInteger({fed})\n" + _to_float(inputs), ("y",), inputs)


def quantized_elementwise(op_type: str) -> Callable[[ir.Node, ModelView], Body]:
    """The body of an operator on two quantized numbers."""

    def body(node: ir.Node, view: ModelView) -> Body:
        inputs = named(node, "a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero")
        lines = real("a", inputs) + real("b", inputs)
        zero = ", y_zero" if "y_zero" in inputs else ""
        return Body(
            lines + f"r = {op_type}(real_a, real_b)\ny = QuantizeLinear(r, y_scale{zero})", ("y",), inputs
        )

    return body


def quantized_unary(expression: str) -> Callable[[ir.Node, ModelView], Body | None]:
    """The body of an operator on one quantized number, *expression* of ``real_a``."""

    def body(node: ir.Node, view: ModelView) -> Body | None:
        inputs = named(node, "a", "a_scale", "a_zero", "y_scale", "y_zero")
        if node.attributes.get_int("channels_last", 0):
            return None
        zero = ", y_zero" if "y_zero" in inputs else ""
        made = expression.format(alpha=node.attributes.get_float("alpha", 0.01))
        return Body(real("a", inputs) + f"r = {made}\ny = QuantizeLinear(r, y_scale{zero})", ("y",), inputs)

    return body


def real(name: str, inputs: Inputs) -> str:
    """``real_NAME``, the number that a quantized input stands for."""
    if f"{name}_zero" not in inputs:
        return f"number_{name} = Cast <to = 1> ({name})\nreal_{name} = Mul(number_{name}, {name}_scale)\n"
    return f"""
        number_{name} = Cast <to = 1> ({name})
        nothing_{name} = Cast <to = 1> ({name}_zero)
        shifted_{name} = Sub(number_{name}, nothing_{name})
        real_{name} = Mul(shifted_{name}, {name}_scale)
    """


def _sum(inputs: Inputs) -> str:
    if "bias" in inputs:
        return "skipped = Add(x, skip)\nsum = Add(skipped, bias)\n"
    return "sum = Add(x, skip)\n"


def normalize(shifted: bool) -> str:
    """LayerNormalization of ``sum``."""
    last = "scaled = Mul(normal, gamma)\ny = Add(scaled, beta)\n" if shifted else "y = Mul(normal, gamma)\n"
    return (
        """
        mean = ReduceMean <axes = [-1], keepdims = 1> (sum)
        centred = Sub(sum, mean)
        squared = Mul(centred, centred)
        variance = ReduceMean <axes = [-1], keepdims = 1> (squared)
        raised = Add(variance, eps)
        deviation = Sqrt(raised)
        normal = Div(centred, deviation)
    """
        + last
    )


def _root_mean_square() -> str:
    return """
        squared = Pow(sum, two)
        variance = ReduceMean <axes = [-1], keepdims = 1> (squared)
        raised = Add(variance, eps)
        deviation = Sqrt(raised)
        inverse = Reciprocal(deviation)
        normal = Mul(sum, inverse)
        y = Mul(normal, gamma)
    """


def _to_float(inputs: Inputs) -> str:
    lines = "number = Cast <to = 1> (whole)\nscale = Mul(a_scale, b_scale)\n"
    return lines + (
        "scaled = Mul(number, scale)\ny = Add(scaled, bias)" if "bias" in inputs else "y = Mul(number, scale)"
    )


def _activation(name: str, params: list[float]) -> str | None:
    """The activation of ``linear``; None for one that is not known."""
    if not name:
        return "Identity(linear)"
    if name in ("Relu", "Sigmoid", "Tanh"):
        return f"{name}(linear)"
    if name == "LeakyRelu":
        return f"LeakyRelu <alpha = {params[0] if params else 0.01!r}> (linear)"
    if name == "HardSigmoid" and len(params) == 2:
        return f"HardSigmoid <alpha = {params[0]!r}, beta = {params[1]!r}> (linear)"
    return None


def written(value: AttributeValue) -> str:
    """An attribute's value in ONNX's notation."""
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple | list) else repr(value)


BODIES: dict[str, Callable[[ir.Node, ModelView], Body | None]] = {
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified,
    "SimplifiedLayerNormalization": simplified,
    "EmbedLayerNormalization": embed_layer_normalization,
    "FusedMatMul": fused_matmul,
    "FusedGemm": fused_gemm,
    "FusedConv": fused_conv,
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "QLinearAdd": quantized_elementwise("Add"),
    "QLinearMul": quantized_elementwise("Mul"),
    "QLinearSigmoid": quantized_unary("Sigmoid(real_a)"),
    "QLinearLeakyRelu": quantized_unary("LeakyRelu <alpha = {alpha!r}> (real_a)"),
    "QLinearGlobalAveragePool": quantized_unary("GlobalAveragePool(real_a)"),
}
