"""Calls whose export touches its neighbours."""

import torch
from torch import nn


class Flip(nn.Module):
    def forward(self, x):
        f = torch.repeat_interleave(
            torch.arange(x.shape[1]).float()[None, :, None] * (torch.arange(4).float() + 1), 2, dim=-1
        )
        return (x * f.cos()).view(*x.shape[:-1], -1, 2)


def repeat_minus_one():
    return Flip().eval(), {"x": torch.randn(2, 8, 8)}


class NegPermute(nn.Module):
    def forward(self, x):
        return x.permute(0, -2, -1, 1) * 2


def neg_permute():
    return NegPermute().eval(), {"x": torch.randn(2, 3, 4, 5)}


class PosSlices(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pos = nn.Parameter(torch.randn(1, 17, 32))
        self.cls = nn.Parameter(torch.randn(1, 1, 32))
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        x = x + self.pos[:, 1:]
        c = self.cls + self.pos[:, :1]
        return self.fc(torch.cat([c.expand(x.shape[0], -1, -1), x], 1))


def pos_slices():
    return PosSlices().eval(), {"x": torch.randn(2, 16, 32)}


class Scan(nn.Module):
    def forward(self, x):
        s = torch.zeros_like(x[:, 0])
        o = []
        for i in range(x.shape[1]):
            s = s * 0.9 + x[:, i]
            o.append(s)
        return torch.stack(o, 1)


def scan():
    return Scan().eval(), {"x": torch.randn(2, 8, 8)}
