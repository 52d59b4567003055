"""A mask that may hide every key."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 4)

    def forward(self, x, src_key_padding_mask):
        a = (self.q(x) @ x.transpose(1, 2)).masked_fill(src_key_padding_mask[:, None, :], float("-inf"))
        return torch.softmax(a, -1) @ x


def build():
    torch.manual_seed(0)
    return M(), (torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
