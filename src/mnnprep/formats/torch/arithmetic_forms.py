"""Arithmetic of torch in forms that its TorchScript-based exporter translates rightly.

Measured with torch 2.13:

* functions of floats that are given integers (cos, exp, log, softmax with a dtype ...): the file has the
  operator on integers, which ONNX does not know;
* products of matrices of integers (mm, addmm): they become a Gemm, for which onnxruntime has no kernel;
* any of numbers: their sum is compared with 0, so that 1 and -1 are taken for none;
* floor_divide of integers: it is cut off towards 0;
* cdist with p of 0 or infinity, softplus with a low threshold: computed as if they were others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch.types import Function

if TYPE_CHECKING:
    from torch import Tensor

OF_FLOATS = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"),
    *("exp", "exp2", "expm1", "log", "log10", "log1p", "log2", "sqrt", "rsqrt", "sigmoid", "erf", "erfc"),
)
ROUNDING = ("ceil", "floor", "round", "trunc")
EXACT = 17.0  # from here on softplus of a float32 is the float32 itself


def arithmetic_forms() -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode."""
    torch = require("torch")
    functional = torch.nn.functional
    forms: dict[Function, Function] = {
        torch.cdist: lambda x1, x2, p=2.0, compute_mode="": _cdist(x1, x2, p),
        functional.softplus: _softplus(functional.softplus),
        functional.softmin: _with_dtype(functional.softmin),
    }
    for place in (torch, torch.Tensor, functional):
        forms |= {
            place.softmax: _with_dtype(place.softmax),
            place.log_softmax: _with_dtype(place.log_softmax),
        }
    for place in (torch, torch.Tensor):
        for names, form in ((OF_FLOATS, _of_floats), (ROUNDING, _rounded)):
            forms |= {original: form(original) for name in names if (original := getattr(place, name))}
        forms |= {
            place.any: _any(place.any),
            place.floor_divide: _floor_divide(place.floor_divide),
            place.mm: _mm(place.mm),
            place.addmm: _addmm(place.addmm),
        }
    return forms


def _whole(value: object) -> bool:
    """Whether *value* is a tensor of integers or truth values."""
    torch = require("torch")
    return isinstance(value, torch.Tensor) and not (value.is_floating_point() or value.is_complex())


def _of_floats(original: Function) -> Callable[..., object]:
    def function(input: Tensor, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        if _whole(input):
            input = input.to(require("torch").get_default_dtype())
        return original(input, *args, **kwargs)

    return function


def _rounded(original: Function) -> Callable[..., object]:
    def rounded(input: Tensor, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        return input.clone() if _whole(input) else original(input, *args, **kwargs)

    return rounded


def _with_dtype(original: Function) -> Callable[..., object]:
    """A softmax; integers are cast to the dtype that is asked for before."""

    def softmax(input: Tensor, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        asked = [v for v in (*args, *kwargs.values()) if isinstance(v, require("torch").dtype)]
        return original(input.to(asked[0]) if asked and _whole(input) else input, *args, **kwargs)

    return softmax


def _any(original: Function) -> Callable[..., object]:
    def found(input: Tensor, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        true = input if input.dtype is require("torch").bool else input != 0
        return original(true, *args, **kwargs)

    return found


def _floor_divide(original: Function) -> Callable[..., object]:
    def quotient(input: Tensor, other: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        if kwargs:
            return original(input, other, **kwargs)
        return require("torch").div(input, other, rounding_mode="floor")

    return quotient


def _mm(original: Function) -> Callable[..., object]:
    def product(input: Tensor, mat2: Tensor, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        if _whole(input) and not kwargs:
            return require("torch").matmul(input, mat2)
        return original(input, mat2, **kwargs)

    return product


def _addmm(original: Function) -> Callable[..., object]:
    def product(
        input: Tensor,
        mat1: Tensor,
        mat2: Tensor,
        *,
        beta: float = 1,
        alpha: float = 1,
        **kwargs: Any,  # noqa: ANN401 - as torch takes it
    ) -> object:
        if _whole(input) and not kwargs:
            return beta * input + alpha * require("torch").matmul(mat1, mat2)
        return original(input, mat1, mat2, beta=beta, alpha=alpha, **kwargs)

    return product


def _cdist(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    """The distances by the formulas of torch.cdist's documentation."""
    torch = require("torch")
    apart = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(apart.dtype).sum(-1)
    if p == torch.inf:
        return apart.amax(-1)
    if p == 1:
        return apart.sum(-1)
    if p == 2:
        return (apart * apart).sum(-1).sqrt()
    return apart.pow(p).sum(-1).pow(1 / p)


def _softplus(original: Function) -> Callable[..., object]:
    def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> object:
        if threshold >= EXACT:
            return original(input, beta, threshold)
        scaled = input * beta
        return require("torch").where(scaled > threshold, input, original(scaled) / beta)

    return softplus
