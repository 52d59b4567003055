"""Calls of torch in forms that its TorchScript-based exporter has no translation for, or a wrong one.

Measured with torch 2.13. Each is replaced, while the exporter runs, by other calls with the same result:

* ``repeat_interleave`` with a negative axis: the exporter adds to a constant in place that other nodes share;
* ``permute`` with negative axes: they reach Transpose, which takes none;
* ``rms_norm`` and ``scatter_reduce`` without the values that were there: it has no translation;
* ``fused_moving_avg_obs_fake_quant``, whose observers are off: it has no translation;
* ``split`` by a size of an input: the size becomes a constant;
* ``scatter_add``, ``index_add`` and ``index_put`` that accumulates: an index that comes twice counts once.

window_forms and arithmetic_forms have more. Complex tensors become pairs of real ones (complex_pairs).
The reference is the source without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch import complex_pairs
from mnnprep.formats.torch.adding_forms import adding_forms
from mnnprep.formats.torch.arithmetic_forms import arithmetic_forms
from mnnprep.formats.torch.fourier import fourier_forms
from mnnprep.formats.torch.open_forms import open_forms
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types
from mnnprep.formats.torch.window_forms import window_forms

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def exporter_forms(opset: int, *, open_sizes: bool) -> Iterator[None]:
    """Within, the calls above are made in forms that the exporter translates; see also open_forms.

    A call may raise :class:`~mnnprep.formats.torch.adding_forms.UnsupportedAtOpset`.
    """
    torch = require("torch")
    adding = adding_forms(opset)
    forms = (
        window_forms()
        | arithmetic_forms()
        | _forms(adding[torch.Tensor.scatter_add])
        | adding
        | open_forms(open_sizes=open_sizes)
        | complex_pairs.makers()
        | fourier_forms()
    )

    class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(
            self, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
        ) -> object:
            kwargs = kwargs or {}
            if function not in forms and complex_pairs.holds_complex(args, kwargs):
                return complex_pairs.call(function, args, kwargs)
            return forms.get(function, function)(*args, **kwargs)

    with Mode():
        yield


def _forms(scatter_add: Function) -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode."""
    torch = require("torch")
    scattered = _scattered(scatter_add)
    functional = torch.nn.functional
    return {
        torch.repeat_interleave: _repeated(torch.repeat_interleave),
        torch.Tensor.repeat_interleave: _repeated(torch.repeat_interleave),
        torch.permute: _permuted,
        torch.Tensor.permute: _permuted,
        torch.rms_norm: _rms_norm,
        functional.rms_norm: _rms_norm,
        torch.split: _split,
        torch.Tensor.split: _split,
        torch.fused_moving_avg_obs_fake_quant: _fake_quantized,
        torch.scatter_reduce: scattered,
        torch.Tensor.scatter_reduce: scattered,
    }


def _repeated(original: Function) -> Callable[..., Tensor]:
    def repeat(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as torch takes it
        if len(args) > 1 and args[1] is not None:
            args = (args[0], args[1] % input.dim(), *args[2:])
        elif kwargs.get("dim") is not None:
            kwargs["dim"] %= input.dim()
        return original(input, *args, **kwargs)  # type: ignore[no-any-return]

    return repeat


def _permuted(
    input: Tensor,
    *args: Any,  # noqa: ANN401 - as torch takes it
    dims: Sequence[int] | None = None,
) -> Tensor:
    if dims is None:
        dims = args[0] if isinstance(args[0], (tuple, list)) else args
    return input.permute([int(axis) % input.dim() for axis in dims])


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """The formula of torch.nn.RMSNorm's documentation."""
    torch = require("torch")
    axes = list(range(input.dim() - len(normalized_shape), input.dim()))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    scaled: Tensor = input * torch.rsqrt(input.pow(2).mean(axes, keepdim=True) + least)
    return scaled if weight is None else scaled * weight


def _split(
    tensor: Tensor,
    split_size_or_sections: Any = None,  # noqa: ANN401 - as torch takes it
    dim: int = 0,
    *,
    split_size: Any = None,  # noqa: ANN401 - as torch takes it
) -> tuple[Tensor, ...]:
    """Cut *tensor* as torch.split does; by slices if the size is a traced one, in as many parts as now."""
    torch = require("torch")
    size = split_size_or_sections if split_size is None else split_size
    if not isinstance(size, torch.Tensor):
        parts: tuple[Tensor, ...] = torch.split(tensor, size, dim)
        return parts
    count = max(1, -(-int(tensor.shape[dim]) // int(size)))
    before = (slice(None),) * (dim % tensor.dim())
    ends = [*(size * (number + 1) for number in range(count - 1)), None]
    starts = [0, *ends[:-1]]
    return tuple(tensor[(*before, slice(start, end))] for start, end in zip(starts, ends, strict=True))


def _fake_quantized(
    input: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    running_min: Tensor,
    running_max: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> Tensor:
    """What a quantization-aware net computes once its observers are off."""
    torch = require("torch")
    if bool(observer_on):
        rest = (running_min, running_max, scale, zero_point, averaging_const, quant_min, quant_max, ch_axis)
        observed: Tensor = torch.fused_moving_avg_obs_fake_quant(
            input, observer_on, fake_quant_on, *rest, per_row_fake_quant, symmetric_quant
        )
        return observed
    if not bool(fake_quant_on):
        return input
    quantize = (
        torch.fake_quantize_per_channel_affine
        if per_row_fake_quant
        else torch.fake_quantize_per_tensor_affine
    )
    axis = (ch_axis,) if per_row_fake_quant else ()
    rounded: Tensor = quantize(input, scale, zero_point, *axis, quant_min, quant_max)
    return rounded


def _scattered(scatter_add: Function) -> Function:
    """Reduce as torch.scatter_reduce does: without *include_self*, onto what changes no result."""

    def scatter_reduce(
        input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
    ) -> Tensor:
        torch = require("torch")
        if include_self:
            return input.scatter_reduce(dim, index, src, reduce, include_self=True)
        if reduce == "mean":
            total = scatter_add(input.scatter(dim, index, 0), dim, index, src)
            count = scatter_add(torch.zeros_like(input), dim, index, torch.ones_like(src)).clamp(min=1)
            mean: Tensor = (
                total / count if input.is_floating_point() else torch.div(total, count, rounding_mode="floor")
            )
            return mean
        neutral = {"sum": 0, "prod": 1}.get(reduce)
        if neutral is None:
            largest = torch.inf if input.is_floating_point() else torch.iinfo(input.dtype).max
            smallest = -torch.inf if input.is_floating_point() else torch.iinfo(input.dtype).min
            neutral = largest if reduce == "amin" else smallest
        return input.scatter(dim, index, neutral).scatter_reduce(dim, index, src, reduce, include_self=True)

    return scatter_reduce
