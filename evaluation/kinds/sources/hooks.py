"""Hooks that see the positional input."""

import torch
from torch import nn


def build():
    torch.manual_seed(0)
    m = nn.Linear(4, 2)
    m.register_forward_pre_hook(lambda mod, args: tuple((a - 0.5) / 0.25 for a in args))
    return m, torch.rand(1, 4)


def build_post():
    torch.manual_seed(0)
    m = nn.Linear(4, 4)
    m.register_forward_hook(lambda mod, args, out: out + sum(args))
    return m, torch.rand(1, 4)
