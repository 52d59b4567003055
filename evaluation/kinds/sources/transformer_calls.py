"""Calls of transformer implementations."""

import torch
import torch.nn.functional as F
from torch import nn


class Rms(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = nn.RMSNorm(16, elementwise_affine=False)
        self.fc = nn.Linear(16, 16)

    def forward(self, x):
        return self.fc(self.n(x))


def rms():
    torch.manual_seed(0)
    return Rms().eval(), {"x": torch.randn(2, 8, 16)}


class MaskIndex(nn.Module):
    def forward(self, m):
        b = torch.arange(m.shape[0])[:, None, None, None]
        k = torch.arange(m.shape[1])[None, None, None, :]
        return torch.where(m[b, k].bool(), 0.0, -1e4)


def mask_index():
    return MaskIndex().eval(), {"m": torch.ones(2, 8, dtype=torch.int64)}


class MaskVmap(nn.Module):
    def forward(self, m):
        m = m.bool()
        q = torch.arange(m.shape[1])
        bi = torch.arange(m.shape[0])

        def f(b, i, j):
            return (j <= i) & m[b, j]

        f = torch.vmap(
            torch.vmap(torch.vmap(f, in_dims=(None, None, 0)), in_dims=(None, 0, None)),
            in_dims=(0, None, None),
        )
        return torch.where(f(bi, q, q), 0.0, -1e4)


def mask_vmap():
    return MaskVmap().eval(), {"m": torch.ones(2, 8, dtype=torch.int64)}


class Ein(nn.Module):
    def forward(self, q, p):
        return torch.einsum("bnid,bijd->bnij", q, p)


def ein():
    return Ein().eval(), {"q": torch.randn(2, 4, 8, 6), "p": torch.randn(2, 8, 8, 6)}


class AllEqual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e = nn.Embedding(16, 8)

    def forward(self, i):
        pad = i.eq(0)
        if not pad.any():
            pad = None
        x = self.e(i)
        return x if pad is None else x.masked_fill(pad[..., None], 0.0)


def all_equal():
    return AllEqual().eval(), {"i": torch.randint(1, 16, (2, 8))}


class Nms(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 9, stride=1, padding=4)


def nms():
    return Nms().eval(), {"x": torch.randn(2, 16, 16)}


class SplitBatch(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 8)

    def forward(self, x, y):
        a, b = torch.split(self.fc(torch.cat([x, y])), [x.shape[0], y.shape[0]])
        return a * 2, b


def split_batch():
    return SplitBatch().eval(), {"x": torch.randn(2, 8), "y": torch.randn(2, 8)}


class SplitBatch2(SplitBatch):
    def forward(self, x, y):
        a, b = torch.split(self.fc(torch.cat([x, y])), x.shape[0])
        return a * 2, b


def split_batch2():
    return SplitBatch2().eval(), {"x": torch.randn(2, 8), "y": torch.randn(2, 8)}
