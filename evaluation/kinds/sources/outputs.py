"""Outputs that no input moves, or whose length a value decides."""

import torch
from torch import nn


class Select(nn.Module):
    def forward(self, x):
        return x[x > 0] * 2


def select():
    return Select().eval(), {"x": torch.randn(64)}


class Const(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q = nn.Parameter(torch.randn(6, 8))
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(x), self.fc(self.q).sigmoid().expand(x.shape[0], -1, -1)


def const():
    return Const().eval(), {"x": torch.randn(2, 8)}
