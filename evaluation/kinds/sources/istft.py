"""A mask on an STFT, and the ISTFT back."""

import torch
from torch import nn


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.hann_window(64))
        self.l = nn.Linear(33, 33)

    def forward(self, wave):
        z = torch.stft(wave, 64, hop_length=16, window=self.w, return_complex=True)
        g = torch.sigmoid(self.l(z.abs().transpose(1, 2))).transpose(1, 2)
        return torch.istft(z * g, 64, hop_length=16, window=self.w, length=wave.shape[-1])


def build():
    torch.manual_seed(0)
    return M(), torch.randn(1, 512)
