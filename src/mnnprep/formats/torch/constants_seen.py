"""Telling tensors that no input changes from those that inputs reach, in a watched eager run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.torch.types import Arguments, Function, Keywords

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 1 << 20  # elements of a computed constant that is remembered
_PLAIN = (int, float, bool, str, complex, type(None))


class ConstantsSeen:
    """Which tensors follow from parameters, buffers, plain numbers and sizes alone.

    A tensor of another origin counts as reached by inputs, and so does every one after a constant was changed
    in place by such a tensor.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self._known: dict[int, Tensor] = {}  # by identity; holding them keeps the identities theirs
        self._changed = False
        if module is not None:
            self._add([*module.parameters(), *module.buffers()])

    def holds(self, tensor: object) -> bool:
        """Whether no input changes *tensor*."""
        return not self._changed and id(tensor) in self._known

    def note(self, function: Function, args: Arguments, kwargs: Keywords, result: object) -> None:
        """Learn from one call of *function* what its *result* follows from."""
        if self._changed:
            return
        torch = require("torch")
        given = list(_leaves([args, list(kwargs.values())]))
        tensors = [leaf for leaf in given if isinstance(leaf, torch.Tensor)]
        if all(map(self.holds, tensors)):
            others = (leaf for leaf in given if not isinstance(leaf, torch.Tensor))
            if all(isinstance(leaf, (*_PLAIN, torch.dtype, torch.device, torch.layout)) for leaf in others):
                made = (leaf for leaf in _leaves([result]) if isinstance(leaf, torch.Tensor))
                self._add(tensor for tensor in made if tensor.numel() <= MOST)
        else:
            changed = [*args[:1]] if _in_place(getattr(function, "__name__", "")) else []
            self._changed = any(map(self.holds, [*changed, kwargs.get("out")]))

    def _add(self, tensors: Iterable[Tensor]) -> None:
        self._known |= {id(tensor): tensor for tensor in tensors}


def _leaves(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _in_place(name: str) -> bool:
    """Whether a function of this name changes its first argument, by torch's convention of names."""
    dunder = name.startswith("__")
    return name in ("__setitem__", "__set__") or name.startswith("__i") if dunder else name.endswith("_")
