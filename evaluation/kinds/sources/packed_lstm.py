"""A packed bidirectional LSTM."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.l = nn.Linear(10, 3)

    def forward(self, x, lens):
        n = x.shape[1]
        ls, idx = torch.sort(lens, dim=0, descending=True)
        _, inv = torch.sort(idx)
        h0 = torch.zeros(4, x.size(0), 5)
        p = nn.utils.rnn.pack_padded_sequence(x.index_select(0, idx), ls.cpu(), batch_first=True)
        y, (h, _) = self.rnn(p, (h0, h0))
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=n)
        return self.l(y.index_select(0, inv)), h.index_select(1, inv)


def build():
    torch.manual_seed(0)
    return M(), (torch.randn(3, 7, 6), torch.tensor([4, 7, 2]))
