"""Compiled and wrapped modules."""

import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU())


def build():
    return torch.compile(net()), torch.randn(1, 6)


def dp():
    return nn.DataParallel(net()), torch.randn(1, 6)
