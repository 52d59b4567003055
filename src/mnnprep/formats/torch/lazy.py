"""Modules whose parameters have no shape before their first call (torch.nn.LazyLinear and the like)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.torch.calling import calling
from mnnprep.model.files import Arrays
from mnnprep.safety.error_text import cause

if TYPE_CHECKING:
    from torch import Tensor, nn


def initialize(module: nn.Module, example: Arrays) -> None:
    """Call *module* once on *example* if parameters lack their shapes, so that every later step has the same.

    Raises:
        RefusedError: there is no example, or the call fails.
    """
    torch = require("torch")
    lacking = [name for name, tensor in _tensors(module).items() if torch.nn.parameter.is_lazy(tensor)]
    if not lacking:
        return
    seen = ", ".join(lacking[:5])
    if not example:
        raise RefusedError(
            "the model has parameters without a shape, which its first call decides",
            seen=seen,
            next="call it once in the factory, or let the factory return (model, example_inputs)",
        )
    tensors = {name: torch.from_numpy(array.copy()) for name, array in example.items()}
    try:
        with torch.no_grad():
            calling(module, list(tensors))(module, tensors)
    except Exception as error:  # whatever the user's forward raises
        raise RefusedError(
            "the first call of the model, which decides the shapes of its parameters, failed",
            seen=f"{cause(error)} ({seen})",
            next="check the example inputs that the factory returns",
        ) from error


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())
