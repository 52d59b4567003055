"""The operators that MNN's Torch frontend reads, to say beforehand what it will refuse.

The names are those of MNN's repository (alibaba/MNN, ``tools/converter/source/torch/*.cpp``, the
second argument of ``REGISTER_CONVERTER``, version 3.x): 172 registrations of 170 names, ``expand``
and ``expand_as`` being registered twice.  How a node's kind becomes such a name is
``getRealOpType`` there (``torchOpConverter.hpp``), and what is removed or renamed before is
``torchOptimize.cpp``.  A registered operator can still be converted wrongly, or into a net that
returns nothing; one that is not registered is always refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure

REGISTERED = (
    "Bool",
    "Constant",
    "Float",
    "FloatImplicit",
    "If",
    "Int",
    "IntImplicit",
    "ListConstruct",
    "ListUnpack",
    "Loop",
    "TupleConstruct",
    "Uninitialized",
    "__and__",
    "__custom__",
    "__getitem__",
    "__iand__",
    "__ior__",
    "__is__",
    "__isnot__",
    "__ixor__",
    "__or__",
    "__xor__",
    "abs",
    "acos",
    "acosh",
    "adaptive_avg_pool2d",
    "add",
    "addmm",
    "all",
    "amax",
    "amin",
    "any",
    "arange",
    "as_tensor",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg_pool2d",
    "batch_norm",
    "bernoulli",
    "bitwise_not",
    "bmm",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "col2im",
    "constant_pad_nd",
    "conv2d",
    "convolution",
    "cos",
    "cosh",
    "cumprod",
    "dim",
    "div",
    "einsum",
    "elu",
    "embedding",
    "eq",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expand",
    "expand_as",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "floordiv",
    "frobenius_norm",
    "full_like",
    "ge",
    "gelu",
    "greater",
    "grid_sampler",
    "group_norm",
    "gt",
    "hardswish",
    "hardtanh",
    "im2col",
    "index",
    "index_put",
    "index_select",
    "index_stridedslice",
    "layer_norm",
    "le",
    "leaky_relu",
    "len",
    "less",
    "linear",
    "log",
    "log1p",
    "logical_or",
    "lt",
    "matmul",
    "max_binary",
    "max_pool2d",
    "max_reduce",
    "maximum",
    "mean",
    "min_binary",
    "min_reduce",
    "minimum",
    "mode",
    "mul",
    "ne",
    "neg",
    "norm",
    "numel",
    "numpy_T",
    "ones",
    "ones_like",
    "permute",
    "pixel_shuffle",
    "pow",
    "prod",
    "range",
    "reciprocal",
    "reflection_pad1d",
    "reflection_pad2d",
    "relu",
    "remainder",
    "repeat",
    "reshape",
    "reshape_as",
    "round",
    "rsqrt",
    "rsub",
    "scatter",
    "scatter_add",
    "select",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "size",
    "slice",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "sub",
    "sum_binary",
    "sum_reduce",
    "t",
    "tan",
    "tanh",
    "to",
    "transpose",
    "type_as",
    "uniform",
    "unsqueeze",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_nearest2d",
    "view",
    "view_as",
    "where",
    "zeros",
    "zeros_like",
)

# Not registered, and rewritten later by name (tools/converter/source/optimizer/torchextra).
REWRITTEN = ("__not__", "hardsigmoid")

# Taken out of the graph, or folded into a neighbour, before names are looked up (torchOptimize.cpp).
REMOVED = (
    "ScalarImplicit",
    "append",
    "clone",
    "contiguous",
    "cpu",
    "data",
    "detach",
    "dropout",
    "feature_dropout",
    "list",
    "warn",
)

# Told apart by their arguments: max(x, y) is max_binary, max(x, 1) is max_reduce.
OVERLOADED = ("max", "min", "sum")

# Renamed by torch's own NormalizeOps (torch/csrc/jit/passes/normalize_ops.cpp), which the frontend runs
# first.
ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "greater_equal": "ge",
    "less_equal": "le",
    "linalg_matmul": "matmul",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_erfinv": "erfinv",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "special_round": "round",
    "special_softmax": "softmax",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "true_divide": "div",
}

_KNOWN = frozenset((*REGISTERED, *REWRITTEN, *REMOVED, *OVERLOADED, *ALIASES))


def unregistered(kinds: Iterable[str]) -> list[str]:
    """Those of *kinds* (``aten::conv2d``, as ``node.kind()`` gives them) that the frontend refuses, sorted.

    Kinds of torch's own ``prim`` are left out: the frontend handles or drops them.  A kind of another
    namespace (``torchvision::nms``) is listed: it would become a plugin, which MNN has no kernel for.
    """
    return sorted({kind for kind in kinds if not _reads(kind)})


def _reads(kind: str) -> bool:
    namespace, _, name = kind.rpartition("::")
    if namespace in ("", "aten"):
        return _bare(name) in _KNOWN
    return namespace == "prim"


def _bare(name: str) -> str:
    """Return the name as it is looked up.

    It lacks the underscore of an in-place (``relu_``) or an internal (``_convolution``) operator.
    """
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    if name.startswith("_") and not name.startswith("__"):
        name = name[1:]
    return name


def registered_check(operators: list[str]) -> Check:
    """Check that MNN's Torch frontend has a name for every operator.

    It refuses those it has not, and may still fail on others.
    """
    foreign = unregistered(operators)
    numbers: dict[str, Figure] = {"operators": len(operators)}
    if foreign:
        return catalog.FRONTEND_OPERATORS.failed(
            f"MNN's Torch frontend does not read {', '.join(foreign)}",
            subject=", ".join(foreign),
            numbers=numbers,
        )
    return catalog.FRONTEND_OPERATORS.passed(numbers=numbers)
