"""Rotary embedding by complex numbers."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self, d=16, h=2, n=64):
        super().__init__()
        self.h = h
        self.qkv = nn.Linear(d, 3 * d)
        self.o = nn.Linear(d, d)
        f = 1 / (10000 ** (torch.arange(0, d // h, 2).float() / (d // h)))
        self.register_buffer(
            "cis",
            torch.polar(torch.ones(n, d // h // 2), torch.outer(torch.arange(n).float(), f)),
            persistent=False,
        )

    def rot(self, x):
        z = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(z * self.cis[None, : x.shape[1], None]).flatten(3).type_as(x)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (u.view(b, t, self.h, -1) for u in self.qkv(x).chunk(3, -1))
        q, k, v = (u.transpose(1, 2) for u in (self.rot(q), self.rot(k), v))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


def build():
    torch.manual_seed(0)
    return M(), torch.randn(1, 8, 16)
