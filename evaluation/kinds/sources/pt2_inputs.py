"""Writes exported programs whose inputs are None, a number, nested."""

import torch


class A(torch.nn.Module):
    def forward(self, x, mask, y, k=2):
        return torch.tanh(x if mask is None else x * mask) * k + y


class N(torch.nn.Module):
    def forward(self, batch, state):
        return batch["x"] + state[0] * state[1]


def t():
    return torch.randn(2, 4)


torch.export.save(torch.export.export(A(), (t(), None, t())), "none.pt2")
torch.export.save(torch.export.export(A(), (t(), None, t(), 5)), "int.pt2")
torch.export.save(torch.export.export(N(), ({"x": t()}, (t(), t()))), "nested.pt2")
