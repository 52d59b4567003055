"""A small convolutional net for 8x8 handwritten digits, and the factory that mnnprep calls."""

from __future__ import annotations

import torch
from torch import nn


class Digits(nn.Module):
    """``image`` float32 [batch, 1, 8, 8] in 0..1 -> logits float32 [batch, 10].

    Batch normalization and dropout compute something else in training mode, so that a net
    serialized in the wrong mode is wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image))


def digits() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """The model, untrained, and example inputs; the weights come from ``--weights digits.safetensors``."""
    return Digits(), (torch.zeros(1, 1, 8, 8),)
