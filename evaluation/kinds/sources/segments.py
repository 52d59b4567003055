"""Segment reductions, and an interleaved rotary table."""

import torch
from torch import nn


class Interleaved(nn.Module):
    def forward(self, x):
        p = torch.arange(x.shape[1]).float()[None, :, None] * (torch.arange(4).float() + 1)
        f = torch.repeat_interleave(p, 2, dim=-1)
        return x * f.cos()


def interleave():
    return Interleaved().eval(), {"x": torch.randn(2, 8, 8)}


class SegMax(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, v, i):
        return torch.zeros(8).scatter_reduce(0, i, v, reduce=self.how, include_self=False)


def _seg(h):
    return SegMax(h).eval(), {"v": torch.randn(12), "i": torch.randint(0, 8, (12,))}


def seg_amin():
    return _seg("amin")


def seg_mean():
    return _seg("mean")


def seg_sum():
    return _seg("sum")
