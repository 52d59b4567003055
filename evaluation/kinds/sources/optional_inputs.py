"""Inputs that are left out."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6, 4)

    def forward(self, x, mask=None, bias=None):
        y = self.l(x)
        if mask is not None:
            y = y * mask
        return y if bias is None else y + bias


def build():
    torch.manual_seed(0)
    return M(), (torch.randn(3, 6), None, torch.randn(3, 4))
