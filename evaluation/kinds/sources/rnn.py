"""A recurrent net on the model's own input."""

import torch
from torch import nn


def gru():
    torch.manual_seed(0)
    return nn.GRU(10, 20)


def lstm():
    torch.manual_seed(0)
    return nn.LSTM(10, 20)
