"""Attention whose mask hides a whole row: zeros, as torch gives, in the form that an export is made in."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mnnprep.formats.torch.attention import masked_rows_written_out


@pytest.mark.parametrize("kind", ["bool", "float", "finite"])
def test_a_masked_row_is_what_torch_gives(kind: str) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 6, 4)
    mask = torch.rand(2, 1, 5, 6) > 0.4
    mask[0, 0, 2] = False
    if kind != "bool":
        hidden = -torch.inf if kind == "float" else torch.finfo(torch.float32).min
        mask = torch.zeros(mask.shape).masked_fill(~mask, hidden)
    expected = scaled_dot_product_attention(q, k, k, mask, scale=0.3)
    with masked_rows_written_out():
        found = torch.nn.functional.scaled_dot_product_attention(q, k, k, mask, scale=0.3)
    torch.testing.assert_close(found, expected)
