"""What a module makes of its parameters before an input has a say, as one run of it shows."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from mnnprep.comparison.constant_parts import Part, Trail
from mnnprep.formats.torch.calling import calling
from mnnprep.formats.torch.externalized_weights import as_array
from mnnprep.model.files import Arrays

if TYPE_CHECKING:
    from torch import nn

MOST_RUNS = 3  # runs at different sizes
# Operators that move values and change none: what they give is found bit by bit.
MOVING = frozenset(
    [
        "alias",
        "as_strided",
        "cat",
        "chunk",
        "clone",
        "contiguous",
        "detach",
        "embedding",
        "expand",
        "flip",
        "gather",
        "index",
        "index_select",
        "lift_fresh",
        "lift_fresh_copy",
        "masked_select",
        "narrow",
        "permute",
        "pixel_shuffle",
        "pixel_unshuffle",
        "repeat",
        "repeat_interleave",
        "reshape",
        "roll",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "take",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "_unsafe_view",
        "view",
        "view_as",
        "_reshape_alias",
        "constant_pad_nd",
    ]
)


def trails(module: nn.Module, names: Collection[str], cases: list[Arrays]) -> list[Trail]:
    """Follow the parameters *names* in runs of *module* on *cases*, up to MOST_RUNS of different sizes.

    None is followed if a run fails.
    """
    shapes: dict[tuple[tuple[int, ...], ...], Arrays] = {}
    for inputs in cases:
        shapes.setdefault(tuple(a.shape for a in inputs.values()), inputs)
    followed = {n: p for n, p in module.named_parameters() if n in names}
    if not followed:
        return []
    found = []
    for inputs in itertools.islice(shapes.values(), MOST_RUNS):
        tensors = {n: torch.from_numpy(a.copy()) for n, a in inputs.items()}
        call = calling(module, list(tensors))
        follower = _Follower(followed, list(tensors.values()))
        try:
            with torch.inference_mode(), follower:
                outputs = call(module, tensors)
        except Exception:
            return []
        follower.reads(outputs)
        found.append(follower.trail)
    return found


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator's results that come from the parameters, and from no input."""

    def __init__(self, followed: dict[str, nn.Parameter], inputs: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trail = Trail()
        self._parts: dict[int, int] = {}  # a tensor's id, and the number of its part
        self._alive: list[torch.Tensor] = []  # an id is a tensor's as long as that lives
        self._varying = WeakIdKeyDictionary(dict.fromkeys(inputs, True))
        for name, parameter in followed.items():
            self.trail.roots[name] = self._add(parameter, computed=False)

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = [a for a in tree_leaves((args, kwargs or {})) if isinstance(a, torch.Tensor)]
        result = func(*args, **(kwargs or {}))
        made = tree_leaves(result)
        numbers = {self._parts[id(a)] for a in given if id(a) in self._parts}
        constant = not any(a in self._varying for a in given)
        if not constant:
            changed = [*made, *(given if func._schema.is_mutable else ())]
            self._varying.update({a: True for a in changed if isinstance(a, torch.Tensor)})
        if not numbers:
            return result
        if not constant or func._schema.is_mutable or not all(isinstance(a, torch.Tensor) for a in made):
            self.reads(given)
            return result
        computed = str(func.overloadpacket).removeprefix("aten.") not in MOVING
        for tensor in made:
            if id(tensor) not in self._parts:
                number = self._add(
                    tensor, computed=computed or any(self.trail.parts[n].computed for n in numbers)
                )
                for read in numbers:
                    self.trail.parts[read].readers.add(number)
        return result

    def reads(self, values: object) -> None:
        """Note that more than other parts reads those of *values* that are parts."""
        for value in tree_leaves(values):
            if id(value) in self._parts:
                self.trail.parts[self._parts[id(value)]].used = True

    def _add(self, tensor: torch.Tensor, *, computed: bool) -> int:
        number = self._parts[id(tensor)] = len(self.trail.parts)
        self._alive.append(tensor)
        self.trail.parts.append(Part(as_array(tensor.detach()), computed))
        return number
