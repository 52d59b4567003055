"""Parameters of which a net reads a part."""

import torch
from torch import nn


class P(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos = nn.Parameter(torch.randn(1, 64, 8))
        self.l = nn.Linear(8, 8)

    def forward(self, x):
        return self.l(x + self.pos[:, :16])


def pos_static():
    torch.manual_seed(0)
    return P()


class Q(P):
    def forward(self, x):
        return self.l(x + self.pos[:, : x.shape[1]])


def pos_shape():
    torch.manual_seed(0)
    return Q()


class R(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(4, 8)

    def forward(self, x, which):
        return x + self.e.weight[1] * (which == 1)


def row():
    torch.manual_seed(0)
    return R()


class G(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Embedding(30, 8)
        self.p = nn.Embedding(64, 8)
        self.l = nn.Linear(8, 8)

    def forward(self, ids):
        return self.l(self.w(ids) + self.p(torch.arange(ids.shape[1])))


def gpt():
    torch.manual_seed(0)
    return G()


class V(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.randn(1, 1, 8))
        self.pos = nn.Parameter(torch.randn(1, 17, 8))
        self.p = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x):
        t = self.p(x).flatten(2).transpose(1, 2) + self.pos[:, 1:]
        return torch.cat([(self.c + self.pos[:, :1]).expand(x.shape[0], -1, -1), t], 1)


def vit():
    torch.manual_seed(0)
    return V()
