"""The entries of a checkpoint: its tensors by their paths, what each path tells, and what is left out.

Every tensor has a path: the keys of the dictionaries that lead to it, then its own key, split at the dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from mnnprep.errors import RefusedError
from mnnprep.text import listed
from mnnprep.weights.names import NameBudget
from mnnprep.weights.plan import Tensor
from mnnprep.weights.safe_unpickler import Foreign, Unpickled

Path = tuple[str, ...]

# Components that wrappers put between a module and its parameters: DataParallel, torch.compile, FSDP,
# activation checkpointing.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

AVERAGED = frozenset({"ema", "swa", "averaged", "average", "shadow", "polyak"})

_OPTIMIZER = frozenset(
    {"optimizer", "optimizers", "optim", "scheduler", "schedulers", "grad", "grads", "gradients", "scaler"}
)


class Shaped(Protocol):
    """A tensor, ours or torch's."""

    @property
    def shape(self) -> Sequence[int]:
        """Its extents."""


@dataclass(frozen=True)
class Expected:
    """The names and shapes of a model's state dict; a shape of None is not known yet (a lazy module).

    ``dispensable`` names may be missing or be unexpected, for they don't change what the model computes in
    inference mode; of a group of ``tied`` names one is enough.
    """

    shapes: Mapping[str, tuple[int, ...] | None]
    dispensable: frozenset[str] = frozenset()
    tied: tuple[frozenset[str], ...] = ()

    def fits(self, name: str, tensor: Shaped) -> bool:
        """Whether *tensor* has the shape of *name*; torch up to 0.3 saved a scalar with shape [1]."""
        shape = self.shapes[name]
        found = tuple(tensor.shape)
        return shape is None or found == shape or (shape == () and found == (1,))

    def missing(self, names: Iterable[str]) -> list[str]:
        """The names that must be there and are not among *names*."""
        present = set(names)
        covered = present | self.dispensable
        for group in self.tied:
            if group & present:
                covered |= group
        return [name for name in self.shapes if name not in covered]

    def tolerates(self, name: str) -> bool:
        """Whether *name*, which the model does not have, may be there all the same."""
        return name in self.dispensable or name.rpartition(".")[2] == "num_batches_tracked"


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint: the ``dictionary`` that holds it (by its path), and its ``key`` there."""

    dictionary: Path
    key: str
    tensor: Tensor

    @cached_property
    def path(self) -> Path:
        """The keys that lead to the tensor, a dotted name split."""
        return (*self.dictionary, *self.key.split("."))


@dataclass(frozen=True)
class Choice:
    """The tensors at a place, by the names they have there.

    ``rivals`` are other places that fit exactly as well.

    ``left_out`` are the other tensors of the checkpoint, each with the reason; ``unexpected`` the names that
    no model asked for; ``averaged`` says that the place is one of averaged weights (EMA).
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str, Tensor], ...] = ()
    unexpected: frozenset[str] = frozenset()
    averaged: bool = False


def entries_of(tree: Unpickled) -> tuple[list[Entry], list[str]]:
    """Every tensor in *tree*, in order, and the classes of the pickled modules in it (full names).

    A dictionary that stands in several places is taken at the first.

    Raises:
        PickleError: names without end, of tensors or of what may hold some.
    """
    entries: list[Entry] = []
    modules: list[str] = []
    seen: set[int] = set()
    written = NameBudget()
    pending: list[tuple[Path, int, Unpickled]] = [((), 0, tree)]
    while pending:
        path, length, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Foreign) and _is_module(value):
            modules.append(value.qualified)
        inner: list[tuple[Path, int, Unpickled]] = []
        for key, item in _items(value):
            if not isinstance(item, (Tensor, dict, list, tuple, Foreign)):
                continue
            whole = length + len(key) + 1  # with the dot
            written.add(whole)
            if isinstance(item, Tensor):
                entries.append(Entry(path, key, item))
            else:
                inner.append(((*path, key), whole, item))
        pending.extend(reversed(inner))  # so that they come off in order
    return entries, modules


def _items(value: Unpickled) -> Iterator[tuple[str, Unpickled]]:
    """The items of a dictionary, of what was a subclass of one, or of a list, with keys as text."""
    if isinstance(value, Foreign):
        value = value.mapping
    elif isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    elif not isinstance(value, dict):
        return
    for key, item in value.items():
        if isinstance(key, bytes):  # Python 2
            yield key.decode("utf-8", "replace"), item
        elif isinstance(key, (str, int)):
            yield str(key), item


def _is_module(value: Foreign) -> bool:
    """Whether this was a torch.nn.Module: what it restores is its ``__dict__``."""
    return isinstance(value.state, dict) and any(
        key in value.state for key in ("_parameters", b"_parameters")
    )


def rank_of(path: Path, ema: bool = False) -> int:
    """Return 0 for raw weights, 1 for averaged ones, 2 for what an optimizer keeps.

    With *ema* raw and averaged ones change places.
    """
    words = words_of(path)
    return 2 if words & _OPTIMIZER else int(bool(words & AVERAGED) != ema)


def is_averaged(path: Path) -> bool:
    """Whether a dictionary is called one of averaged weights."""
    return bool(words_of(path) & AVERAGED)


def words_of(path: Iterable[str]) -> set[str]:
    """The words in the parts of a name, in lower case."""
    return {word for part in path for word in re.split(r"[^a-z]+", part.lower())}


def with_rest(choice: Choice, entries: Iterable[Entry], ema: bool, reason: str) -> Choice:
    """*choice* with *entries* left out: as what they are by their place, else for *reason*."""
    kinds = {
        2: "training state (optimizer, gradients, scaler)",
        1: "raw weights, --ema takes the averaged ones" if ema else "averaged weights (EMA)",
    }
    rest = tuple(
        (".".join((*e.dictionary, e.key)), kinds.get(rank_of(e.dictionary, ema), reason), e.tensor)
        for e in entries
    )
    return replace(choice, left_out=(*choice.left_out, *rest))


def nothing_to_take(tree: Unpickled, foreign: frozenset[str], modules: list[str]) -> RefusedError:
    """The refusal of a checkpoint without weights to take, by what it holds."""
    if modules or isinstance(tree, Foreign):
        imported = sorted(foreign)
        whole = modules[0] if modules else tree.qualified
        return RefusedError(
            f"the checkpoint holds a whole pickled object of class {whole}, not a state dict",
            seen=f"loading it would import and run {listed(imported)}",
            next=(
                "save its weights with torch.save(model.state_dict(), FILE); or give it as the source itself"
                " with --trust"
            ),
        )
    keys = (
        f" with keys {', '.join(str(key)[:80] for key in list(tree)[:10])}"
        if isinstance(tree, dict) and tree
        else ""
    )
    kind = f"a {type(tree).__name__}{keys}"
    return RefusedError(
        "the checkpoint does not contain weights",
        seen=kind,
        next="give a file that torch.save(model.state_dict(), FILE) wrote",
    )


def shown_path(path: Path) -> str:
    """A place as a user would write it."""
    return "".join(f"[{part!r}]" for part in path) or "the top level"
