"""Nets that half precision does not break."""

from __future__ import annotations

from evaluation.phone import sound_layers
from evaluation.phone.net import PhoneNet


def nets() -> list[PhoneNet]:
    """Every sound net."""
    return sound_layers.nets()
