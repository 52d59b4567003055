"""Einsums of attention."""

import torch
from torch import nn


class E(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s

    def forward(self, a, b):
        return torch.einsum(self.s, a, b)


def ell_gd():
    return E("...nd,...ng->...gd").eval(), {"a": torch.randn(2, 8, 6), "b": torch.randn(2, 8, 3)}


def nd_ng():
    return E("bnd,bng->bgd").eval(), {"a": torch.randn(2, 8, 6), "b": torch.randn(2, 8, 3)}


def bros():
    return E("bnid,bijd->bnij").eval(), {"a": torch.randn(2, 4, 8, 6), "b": torch.randn(2, 8, 8, 6)}


def bros_ok():
    return E("bnid,bjid->bnij").eval(), {"a": torch.randn(2, 4, 8, 6), "b": torch.randn(2, 8, 8, 6)}


def qk():
    return E("bqhd,bkhd->bhqk").eval(), {"a": torch.randn(2, 8, 4, 6), "b": torch.randn(2, 8, 4, 6)}


def ell_qk():
    return E("...qhd,...khd->...hqk").eval(), {
        "a": torch.randn(2, 3, 8, 4, 6),
        "b": torch.randn(2, 3, 8, 4, 6),
    }
