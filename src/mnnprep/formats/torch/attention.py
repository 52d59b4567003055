"""Scaled dot-product attention written out, for MNN's Torch frontend, which has no such operator.

The formula is that of the documentation of torch.nn.functional.scaled_dot_product_attention:
softmax(q @ k^T * scale + mask) @ v, with scale 1/sqrt(E) by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types


def written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001 - there is none at inference
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention by matmul and softmax; shapes and dtypes as torch's, dropout left out (inference)."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = float(query.size(-1)) ** -0.5 if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        later = torch.ones([query.size(-2), key.size(-2)], device=query.device).triu(1)
        scores = scores.masked_fill(later > 0, -3.4028234663852886e38)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(attn_mask.logical_not(), -3.4028234663852886e38)
        else:
            scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def with_masked_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The same with a mask that may hide a whole row: torch gives zeros there, not the mean of the values."""
    allowed = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -torch.inf
    finite = attn_mask if attn_mask.dtype == torch.bool else attn_mask.clamp(min=-3.4028234663852886e38)
    mixed = written_out(query, key, value, finite, scale=scale, enable_gqa=enable_gqa)
    return mixed * allowed.any(-1, keepdim=True).to(mixed.dtype)


@contextmanager
def masked_rows_written_out() -> Iterator[None]:
    """Within, attention with a mask is seen as matmul and softmax that keep torch's zeros."""
    functional = torch.nn.functional
    original = functional.scaled_dot_product_attention

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is None or is_causal:
            return original(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return with_masked_rows(query, key, value, attn_mask, scale, enable_gqa)

    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


@contextmanager
def attention_written_out() -> Iterator[None]:
    """Within, tracing and scripting see attention as matmul and softmax."""
    functional = torch.nn.functional
    original = functional.scaled_dot_product_attention
    fast = torch.backends.mha.get_fastpath_enabled()

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
        ) -> object:
            return (written_out if function is original else function)(*args, **(kwargs or {}))

    functional.scaled_dot_product_attention = written_out
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with Mode():
            yield
    finally:
        functional.scaled_dot_product_attention = original
        torch.backends.mha.set_fastpath_enabled(fast)
