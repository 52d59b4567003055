"""A worker's step: the names, shapes and ties of the model that a factory builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.formats.torch.load import load_factory
from mnnprep.model.messages import Source
from mnnprep.weights.apply import expected_of
from mnnprep.weights.messages import ModelShapes

if TYPE_CHECKING:
    from torch import nn


def model_shapes(source: Source) -> ModelShapes:
    """Build the model, without weights. Raises as the factory does."""
    return shapes_of(load_factory(source).module)


def shapes_of(module: nn.Module) -> ModelShapes:
    """Return the names and shapes that a checkpoint must hold for *module*."""
    expected, _ = expected_of(module)
    return ModelShapes(
        shapes={name: None if shape is None else list(shape) for name, shape in expected.shapes.items()},
        dispensable=sorted(expected.dispensable),
        tied=[sorted(group) for group in expected.tied],
    )
