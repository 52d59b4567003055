"""An encoder with a key padding mask."""

import torch
from torch import nn


class K(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 16, batch_first=True), 1, enable_nested_tensor=False
        )

    def forward(self, x, m):
        return self.e(x, src_key_padding_mask=m == 0)[:, 0]


def make():
    torch.manual_seed(0)
    return K()
