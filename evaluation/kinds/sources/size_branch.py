"""A branch on a size."""

import torch
from torch import nn


class OddSize(nn.Module):
    def forward(self, x):
        n = x.shape[1]
        pad = (4 - n % 4) % 4
        if pad > 0:
            x = torch.nn.functional.pad(x, (0, 0, 0, pad))
        x = x.reshape(x.shape[0], -1, 4, 4).cumsum(2).reshape(x.shape[0], -1, 4)
        if pad > 0:
            x = x[:, :n]
        return x


def at_8():
    return OddSize().eval(), {"x": torch.randn(2, 8, 4)}


def at_9():
    return OddSize().eval(), {"x": torch.randn(2, 9, 4)}
