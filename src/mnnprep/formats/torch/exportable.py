"""The subject of an export: a loaded source with its inputs, and the module that has exactly those."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.torch.calling import calling
from mnnprep.formats.torch.load import Loaded
from mnnprep.formats.torch.structure import flatten
from mnnprep.formats.torch.watch import Watch
from mnnprep.model.files import Arrays
from mnnprep.model.signature import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Exportable:
    """The subject of an export: the loaded source, its inputs, and example arrays."""

    loaded: Loaded
    specs: tuple[TensorSpec, ...]
    arrays: Arrays
    output_ranks: dict[str, int]  # the outputs' names, in order, and their ranks
    watch: Watch = field(default_factory=Watch)  # what a trace decides on values
    places: bool = False  # keep in each node where in the user's code it came from

    @property
    def module(self) -> nn.Module:
        """The source's module."""
        return self.loaded.module

    @property
    def names(self) -> list[str]:
        """The inputs' names, in order."""
        return [s.name for s in self.specs]

    def tensors(self) -> tuple[Tensor, ...]:
        """The example inputs, in order."""
        torch = require("torch")
        return tuple(torch.from_numpy(self.arrays[s.name].copy()) for s in self.specs)


def adapter(subject: Exportable) -> nn.Module:
    """An nn.Module around the model: positional inputs in the signature's order, a tuple of tensors out."""
    torch = require("torch")
    names = subject.names
    call = calling(subject.module, names)

    class Adapter(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Tensor) -> object:
            outputs = tuple(
                flatten(call(self.model, dict(zip(names, tensors, strict=True))), tuple(names)).values()
            )
            return outputs[0] if len(outputs) == 1 else outputs

    made = Adapter(subject.module)
    made.training = False
    return made
