"""Nets that half precision breaks: right at high, off by more than 30 dB allow at low."""

from __future__ import annotations

from evaluation.phone import planted_ranges, planted_sequences, planted_values
from evaluation.phone.net import PhoneNet


def nets() -> list[PhoneNet]:
    """Every planted net."""
    return [*planted_ranges.nets(), *planted_values.nets(), *planted_sequences.nets()]
