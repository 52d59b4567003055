"""A loop over an open size."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.LSTMCell(6, 8)

    def forward(self, x):
        h = torch.zeros(x.size(0), 8)
        c = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            h, c = self.c(x[:, t], (h, c))
        return h


def build():
    torch.manual_seed(0)
    return M(), torch.randn(2, 5, 6)
