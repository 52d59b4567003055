"""Texts that every part writes alike: some of many things, the first line of a text, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Progress = Callable[[str], None]  # takes one line of news


def listed(items: Sequence[str], limit: int = 10, separator: str = ", ") -> str:
    """*items* joined; of more than *limit*, the first and how many more there are."""
    shown = separator.join(items[:limit])
    if len(items) <= limit:
        return shown
    return f"{shown}{';' if separator.strip() == ';' else ''} and {len(items) - limit} more"


def first_line(text: str) -> str:
    """The first line of *text*, without blanks around it; empty if *text* is."""
    return text.strip().split("\n", 1)[0].rstrip()


def decimal_size(size: int) -> str:
    """Bytes in decimal units, as file sizes are said: ``812 B``, ``3.41 MB``."""
    if size < 1000:
        return f"{size} B"
    value = size / 1000
    for unit in ("kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def binary_size(size: float) -> str:
    """Bytes in binary units, as memory is said: ``512 MiB``, ``1.50 GiB``."""
    return f"{size / 2**30:.2f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"
