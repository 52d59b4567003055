"""Nets that read their parameters in parts, or compute with them before any input comes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """Position embeddings of which the first rows are read: a window of a longer context."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 64, 8))
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.positions[:, :16])


class Row(nn.Module):
    """One row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table.weight[1]


class Looked(nn.Module):
    """Position embeddings looked up with indices that the code makes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(15, -1, -1))


class ClassToken(nn.Module):
    """A class token that takes its position in, as in a ViT; the other positions go to the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 17, 8))

    def forward(self, x: Tensor) -> Tensor:
        token = (self.token + self.positions[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([token, x + self.positions[:, 1:]], 1)


class Scaled(ClassToken):
    """The same with a product."""

    def forward(self, x: Tensor) -> Tensor:
        token = (self.token * self.positions[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([token, x + self.positions[:, 1:]], 1)


class Normalized(nn.Module):
    """A kernel that is divided by its norm, as weight normalization does."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 8))
        self.gain = nn.Parameter(torch.rand(8, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.gain * self.kernel / self.kernel.norm(dim=1, keepdim=True)).T


NETS: dict[str, type[nn.Module]] = {
    "a slice": Positions,
    "a row": Row,
    "a gather": Looked,
    "a sum": ClassToken,
    "a product": Scaled,
    "a norm": Normalized,
}


def made(name: str) -> nn.Module:
    """The net of that name, its weights from a fixed seed; it takes ``x`` of [batch, 16, 8]."""
    torch.manual_seed(0)
    return NETS[name]().eval()
