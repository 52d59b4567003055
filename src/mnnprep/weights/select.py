"""Finding the state dict inside a checkpoint: which dictionary, and which prefix of its keys.

Both are one question.  Every tensor of the checkpoint has a path: the keys of the dictionaries that lead
to it, then its own key, split at the dots.  A *place* is the start of such paths; the names under it are
what remains.  ``{"model": {"state_dict": {"module.conv.weight": ...}}}`` offers, under the place
``model.state_dict.module``, the name ``conv.weight``.  The place taken is the one whose names and
shapes fit the model's best; among equals raw weights go before averaged ones (EMA), and those before
anything of an optimizer's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mnnprep.errors import RefusedError, UsageError
from mnnprep.weights.inert import Foreign
from mnnprep.weights.names import Written
from mnnprep.weights.plan import Tensor
from mnnprep.weights.shards import same_values

Path = tuple[str, ...]

# What training frameworks call the weights: PyTorch's own examples, Lightning, DeepSpeed (module), timm,
# BasicSR (params), GANs.
USUAL_KEYS = frozenset(
    [
        "state_dict",
        "model",
        "model_state_dict",
        "module",
        "params",
        "net",
        "network",
        "weights",
        "generator",
        "encoder",
    ]
)
# Components that wrappers put between a module and its parameters: DataParallel, torch.compile, FSDP,
# activation checkpointing.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

AVERAGED = frozenset({"ema", "swa", "averaged", "average", "shadow", "polyak"})
_OPTIMIZER = frozenset(
    {"optimizer", "optimizers", "optim", "scheduler", "schedulers", "grad", "grads", "gradients", "scaler"}
)


@dataclass(frozen=True)
class Expected:
    """The names and shapes of a model's state dict; a shape of None is not known yet (a lazy module).

    ``dispensable`` names may be missing or be unexpected, for they don't change what the model computes in
    inference mode; of a group of ``tied`` names one is enough.
    """

    shapes: Mapping[str, tuple[int, ...] | None]
    dispensable: frozenset[str] = frozenset()
    tied: tuple[frozenset[str], ...] = ()

    def fits(self, name: str, tensor: Any) -> bool:
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
        return (*self.dictionary, *self.key.split("."))


@dataclass(frozen=True)
class Choice:
    """The tensors at a place, by the names they have there; ``rivals`` are other places that fit exactly as
    well.

    ``left_out`` are the other tensors of the checkpoint, each with the reason; ``unexpected`` the names that
    no model asked for; ``averaged`` says that the place is one of averaged weights (EMA).
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str, Tensor], ...] = ()
    unexpected: frozenset[str] = frozenset()
    averaged: bool = False


@dataclass
class _Place:
    path: Path
    found: dict[str, Entry]
    unwrapped: bool
    clashes: bool = False

    @property
    def dictionary(self) -> Path:
        """The dictionary that holds all of it."""
        return next(iter(self.found.values())).dictionary[: len(self.path)]

    @property
    def prefix(self) -> str:
        """What its keys begin with there, and is stripped."""
        return "".join(f"{part}." for part in self.path[len(self.dictionary) :])

    def shown(self) -> str:
        return _shown(self.dictionary) + (f" under {self.prefix!r}" if self.prefix else "")

    def score(self, expected: Expected, unexpected: Iterable[str], ema: bool) -> tuple[int, int, int]:
        """How badly it fits: first what is missing or misshapen, then what is too much, then what kind of
        weights it holds.
        """
        unfit = sum(not expected.fits(name, entry.tensor) for name, entry in self.found.items())
        return (
            len(expected.missing(self.found)) + unfit,
            sum(not expected.tolerates(name) for name in unexpected),
            _rank(self.path, ema),
        )


def entries_of(tree: Any) -> tuple[list[Entry], list[str]]:
    """Every tensor in *tree*, in order, and the classes of the pickled modules in it (full names).

    A dictionary that stands in several places is taken at the first.  Raises PickleError for names without
    end.
    """
    entries: list[Entry] = []
    modules: list[str] = []
    seen: set[int] = set()
    written = Written()
    pending: list[tuple[Path, int, Any]] = [((), 0, tree)]
    while pending:
        path, length, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Foreign) and _is_module(value):
            modules.append(value.qualified)
        inner: list[tuple[Path, int, Any]] = []
        for key, item in _items(value):
            if isinstance(item, Tensor):
                written.add(length + len(key))
                entries.append(Entry(path, key, item))
            elif isinstance(item, (dict, list, tuple, Foreign)):
                inner.append(((*path, key), length + len(key), item))
        pending.extend(reversed(inner))  # so that they come off in order
    return entries, modules


def _items(value: Any) -> Iterator[tuple[str, Any]]:
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


def choose(
    tree: Any, foreign: frozenset[str], expected: Expected | None, *, ema: bool = False, at: str = ""
) -> Choice:
    """The state dict in *tree* that fits *expected* best or, without a model to fit, the one that stands out.

    With *ema* averaged weights go before raw ones; *at* (keys with dots between) is the dictionary to look
    in.

    Raises:
        UsageError: nothing to fit, and several state dicts that could be meant; nothing at *at*.
        RefusedError: there are no tensors to take, or only a whole pickled module.
    """
    entries, modules = entries_of(tree)
    if at:
        inner, outer = _inside(entries, tuple(at.split(".")))
        return _with_rest(_choose(tree, foreign, expected, inner, [], ema), outer, ema, f"not in {at}")
    return _choose(tree, foreign, expected, entries, modules, ema)


def _inside(entries: list[Entry], at: Path) -> tuple[list[Entry], list[Entry]]:
    """The entries in the dictionary *at*, named from there, and the others."""
    inner = [
        Entry(entry.dictionary[len(at) :], entry.key, entry.tensor)
        for entry in entries
        if entry.dictionary[: len(at)] == at
    ]
    if not inner:
        raise UsageError(
            "the checkpoint has no tensors at the place given with --at",
            seen=".".join(at),
            next="it has some at "
            + ", ".join(sorted({".".join(entry.dictionary) or "the top level" for entry in entries})[:10]),
        )
    return inner, [entry for entry in entries if entry.dictionary[: len(at)] != at]


def _choose(
    tree: Any,
    foreign: frozenset[str],
    expected: Expected | None,
    entries: list[Entry],
    modules: list[str],
    ema: bool,
) -> Choice:
    place = _best_place(entries, expected, ema) if expected is not None else None
    if place is None and (modules or not entries):
        raise _nothing_to_take(tree, foreign, modules)
    if expected is None:
        return _standing_out(entries, ema=ema)
    if place is None:
        return _standing_out(entries, ask=False, ema=ema)
    return _choice(entries, *place, expected, ema)


def _with_rest(choice: Choice, entries: Iterable[Entry], ema: bool, reason: str) -> Choice:
    """*choice* with *entries* left out: as what they are by their place, else for *reason*."""
    kinds = {
        2: "training state (optimizer, gradients, scaler)",
        1: "raw weights, --ema takes the averaged ones" if ema else "averaged weights (EMA)",
    }
    rest = tuple(
        (".".join((*e.dictionary, e.key)), kinds.get(_rank(e.dictionary, ema), reason), e.tensor)
        for e in entries
    )
    return replace(choice, left_out=(*choice.left_out, *rest))


def _nothing_to_take(tree: Any, foreign: frozenset[str], modules: list[str]) -> RefusedError:
    if modules or isinstance(tree, Foreign):
        imported = sorted(foreign)
        listed = ", ".join(imported[:10]) + (f" and {len(imported) - 10} more" if len(imported) > 10 else "")
        whole = modules[0] if modules else tree.qualified
        return RefusedError(
            f"the checkpoint holds a whole pickled object of class {whole}, not a state dict",
            seen=f"loading it would import and run {listed}",
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
        "the checkpoint holds no weights",
        seen=kind,
        next="give a file that torch.save(model.state_dict(), FILE) wrote",
    )


def _best_place(entries: list[Entry], expected: Expected, ema: bool) -> tuple[_Place, list[_Place]] | None:
    """The place that fits best and the others whose names and shapes fit exactly as well; None where no name
    fits anywhere.
    """
    under: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        for depth in range(len(entry.path)):
            under[entry.path[:depth]].append(entry)
    scored: list[tuple[tuple[int, int, int], _Place]] = []
    for unwrapped in (False, True):
        places = _places(entries, expected, unwrapped)
        most = max((len(place.found) for place in places), default=0)
        scored += [
            (place.score(expected, _unexpected(under[place.path], place), ema), place)
            for place in places
            if 2 * len(place.found) >= most
        ]
        if any(score[:2] == (0, 0) for score, _ in scored):
            break
    if not scored:
        return None
    # The whole file before a part of it; then, as sorting is stable, the first of the file.
    scored.sort(key=lambda pair: (pair[0], pair[1].clashes, pair[1].unwrapped, bool(pair[1].path)))
    best, place = scored[0]
    equals = [
        other
        for score, other in scored[1:]
        if score[:2] == best[:2] and other.path != place.path and other.unwrapped == place.unwrapped
    ]
    return place, equals


def _places(entries: list[Entry], expected: Expected, unwrapped: bool) -> list[_Place]:
    """Every place under which at least one of the expected names stands."""
    wanted = (
        {_unwrap(name.split(".")): name for name in expected.shapes}
        if unwrapped
        else {name: name for name in expected.shapes}
    )
    if len(wanted) != len(expected.shapes):
        return []  # the model itself tells names apart by a wrapper's component
    places: dict[Path, _Place] = {}
    for entry in entries:
        path = entry.path
        for start in range(len(path)):
            name = wanted.get(_unwrap(path[start:]) if unwrapped else ".".join(path[start:]))
            if name is not None:
                place = places.setdefault(path[:start], _Place(path[:start], {}, unwrapped))
                place.clashes |= name in place.found
                place.found.setdefault(name, entry)
    return list(places.values())


def _unwrap(parts: Iterable[str]) -> str:
    return ".".join(part for part in parts if part not in WRAPPERS)


def _unexpected(entries: list[Entry], place: _Place) -> dict[str, Entry]:
    """What of *entries* stands at *place* besides, in the dictionaries that hold something expected, by its
    name there.
    """
    dictionaries = {entry.dictionary for entry in place.found.values()}
    taken = {id(entry) for entry in place.found.values()}
    depth = len(place.path)
    rest: dict[str, Entry] = {}
    for entry in entries:
        if id(entry) in taken or entry.dictionary not in dictionaries or entry.path[:depth] != place.path:
            continue
        rest[".".join(entry.path[depth:])] = entry
    return rest


def _rank(path: Path, ema: bool = False) -> int:
    """0 for raw weights, 1 for averaged ones (with *ema* the other way round), 2 for what an optimizer
    keeps.
    """
    words = words_of(path)
    return 2 if words & _OPTIMIZER else int(bool(words & AVERAGED) != ema)


def _is_averaged(path: Path) -> bool:
    """Whether a dictionary is called one of averaged weights."""
    return bool(words_of(path) & AVERAGED)


def words_of(path: Iterable[str]) -> set[str]:
    """The words in the parts of a name, in lower case."""
    return {word for part in path for word in re.split(r"[^a-z]+", part.lower())}


def _choice(
    entries: list[Entry], place: _Place, equals: list[_Place], expected: Expected, ema: bool
) -> Choice:
    if place.clashes:
        raise UsageError(
            "two tensors of the checkpoint have the same name once the prefixes of wrappers are stripped",
            seen=f"at {place.shown()}",
            next="save one state dict with torch.save(model.state_dict(), FILE)",
        )
    unexpected = _unexpected(entries, place)
    tensors = {name: place.found[name].tensor for name in expected.shapes if name in place.found}
    tensors.update((name, entry.tensor) for name, entry in unexpected.items())
    notes = _place_notes(place)
    rank = _rank(place.path, ema)
    same = [other for other in equals if _rank(other.path, ema) == rank]
    rivals = [] if place.path == () else [other.shown() for other in same if not _equal(place, other)]
    passed_over = [other.shown() for other in equals if _rank(other.path, ema) == 1 > rank]
    if passed_over and not ema:
        notes.append(f"raw weights taken; averaged ones that fit as well left out: {', '.join(passed_over)}")
    averaged = _rank(place.path) == 1
    if averaged:
        notes.append("these are averaged weights (EMA)")
    left_out = len(entries) - len(place.found) - len(unexpected)
    if left_out:
        notes.append(f"{left_out} other tensors of the checkpoint left out")
    taken = {id(entry) for entry in (*place.found.values(), *unexpected.values())}
    choice = Choice(
        tensors,
        tuple(notes),
        (place.shown(), *rivals) if rivals else (),
        unexpected=frozenset(unexpected),
        averaged=averaged or _is_averaged(place.dictionary),
    )
    return _with_rest(
        choice, (entry for entry in entries if id(entry) not in taken), ema, "not what the model asks for"
    )


def _place_notes(place: _Place) -> list[str]:
    """Which dictionary and which prefix was taken."""
    notes = []
    if place.dictionary:
        notes.append(f"taken from {_shown(place.dictionary)}")
    if place.prefix:
        notes.append(f"prefix {place.prefix!r} stripped")
    if place.unwrapped:
        parts = {part for entry in place.found.values() for part in entry.path[len(place.path) :]}
        stripped = sorted(parts & WRAPPERS)
        if stripped:
            notes.append(f"names of wrappers stripped: {', '.join(stripped)}")
    return notes


def _equal(one: _Place, other: _Place) -> bool:
    """Whether both places hold the same values, so that it does not matter which is taken."""
    return all(
        name in other.found and same_values(entry.tensor, other.found[name].tensor)
        for name, entry in one.found.items()
    )


def _standing_out(entries: list[Entry], *, ask: bool = True, ema: bool = False) -> Choice:
    """The one dictionary that holds weights, by what it is called; where several could be meant, an error or
    (not *ask*) the largest.
    """
    dictionaries: dict[Path, dict[str, Tensor]] = defaultdict(dict)
    for entry in entries:
        dictionaries[entry.dictionary][entry.key] = entry.tensor
    lowest = min(_rank(path, ema) for path in dictionaries)
    candidates = [path for path in dictionaries if _rank(path, ema) == lowest]
    usual = [path for path in candidates if path and path[-1] in USUAL_KEYS]
    if len(usual) == 1:
        candidates = usual
    if len(candidates) > 1 and ask:
        raise UsageError(
            "the checkpoint holds several state dicts",
            seen=", ".join(f"{_shown(path)} ({len(dictionaries[path])} tensors)" for path in candidates[:10]),
            next="name the one you mean with --at (consolidate), or save it on its own with torch.save",
        )
    path = max(candidates, key=lambda p: len(dictionaries[p]))
    notes = [f"taken from {_shown(path)}"] if path else []
    left_out = len(entries) - len(dictionaries[path])
    if left_out:
        notes.append(f"{left_out} other tensors of the checkpoint left out")
    rest = (entry for entry in entries if entry.dictionary != path)
    choice = Choice(dict(dictionaries[path]), tuple(notes), averaged=_is_averaged(path))
    return _with_rest(choice, rest, ema, "not in the state dict that was taken")


def _shown(path: Path) -> str:
    """A place as a user would write it."""
    return "".join(f"[{part!r}]" for part in path) or "the top level"
