"""A worker's account of a model's state dict."""

from __future__ import annotations

import msgspec

from mnnprep.weights.entries import Expected


class ModelShapes(msgspec.Struct, kw_only=True):
    """The names and shapes of a state dict (None: not known yet), and as in :class:`Expected`."""

    shapes: dict[str, list[int] | None]
    dispensable: list[str]
    tied: list[list[str]]

    def expected(self) -> Expected:
        """Return the names and shapes as a checkpoint is held against them."""
        return Expected(
            {name: None if shape is None else tuple(shape) for name, shape in self.shapes.items()},
            frozenset(self.dispensable),
            tuple(frozenset(group) for group in self.tied),
        )
