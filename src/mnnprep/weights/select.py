"""Finding the state dict inside a checkpoint: which dictionary, and which prefix of its keys.

Both are one question.  Every tensor of the checkpoint has a path: the keys of the dictionaries that lead
to it, then its own key, split at the dots.  A *place* is the start of such paths; the names under it are
what remains.  ``{"model": {"state_dict": {"module.conv.weight": ...}}}`` offers, under the place
``model.state_dict.module``, the name ``conv.weight``.  The place taken is the one whose names and
shapes fit the model's best; among equals raw weights go before averaged ones (EMA), and those before
anything of an optimizer's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mnnprep.errors import UsageError
from mnnprep.weights.entries import (
    WRAPPERS,
    Choice,
    Entry,
    Expected,
    Path,
    entries_of,
    is_averaged,
    nothing_to_take,
    rank_of,
    shown_path,
    with_rest,
)
from mnnprep.weights.plan import Tensor
from mnnprep.weights.safe_unpickler import Unpickled
from mnnprep.weights.shards import same_values

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
        """The beginning of its keys there, which is stripped."""
        return "".join(f"{part}." for part in self.path[len(self.dictionary) :])

    def shown(self) -> str:
        return shown_path(self.dictionary) + (f" under {self.prefix!r}" if self.prefix else "")

    def score(self, expected: Expected, unexpected: Iterable[str], ema: bool) -> tuple[int, int, int]:
        """Return how badly it fits.

        First counts what is missing or misshapen, then what is too much, then what kind of weights it holds.
        """
        unfit = sum(not expected.fits(name, entry.tensor) for name, entry in self.found.items())
        return (
            len(expected.missing(self.found)) + unfit,
            sum(not expected.tolerates(name) for name in unexpected),
            rank_of(self.path, ema),
        )


def choose(
    tree: Unpickled, foreign: frozenset[str], expected: Expected | None, *, ema: bool = False, at: str = ""
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
        return with_rest(_choose(tree, foreign, expected, inner, [], ema), outer, ema, f"not in {at}")
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
    tree: Unpickled,
    foreign: frozenset[str],
    expected: Expected | None,
    entries: list[Entry],
    modules: list[str],
    ema: bool,
) -> Choice:
    place = _best_place(entries, expected, ema) if expected is not None else None
    if place is None and (modules or not entries):
        raise nothing_to_take(tree, foreign, modules)
    if expected is None:
        return _standing_out(entries, ema=ema)
    if place is None:
        return _standing_out(entries, ask=False, ema=ema)
    return _choice(entries, *place, expected, ema)


def _best_place(entries: list[Entry], expected: Expected, ema: bool) -> tuple[_Place, list[_Place]] | None:
    """Return the place that fits best and the others whose names and shapes fit exactly as well.

    None if no name fits anywhere.
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
    """Return the unexpected of *entries* that stand at *place*, by their names there.

    Only the dictionaries that hold something expected count.
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
    rank = rank_of(place.path, ema)
    same = [other for other in equals if rank_of(other.path, ema) == rank]
    rivals = [] if place.path == () else [other.shown() for other in same if not _equal(place, other)]
    passed_over = [other.shown() for other in equals if rank_of(other.path, ema) == 1 > rank]
    if passed_over and not ema:
        notes.append(f"raw weights taken; averaged ones that fit as well left out: {', '.join(passed_over)}")
    averaged = rank_of(place.path) == 1
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
        averaged=averaged or is_averaged(place.dictionary),
    )
    return with_rest(
        choice, (entry for entry in entries if id(entry) not in taken), ema, "not what the model asks for"
    )


def _place_notes(place: _Place) -> list[str]:
    """Which dictionary and which prefix was taken."""
    notes = []
    if place.dictionary:
        notes.append(f"taken from {shown_path(place.dictionary)}")
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
    """Return the one dictionary that holds weights, by what it is called.

    If several could be meant, an error or (not *ask*) the largest.
    """
    dictionaries: dict[Path, dict[str, Tensor]] = defaultdict(dict)
    for entry in entries:
        dictionaries[entry.dictionary][entry.key] = entry.tensor
    lowest = min(rank_of(path, ema) for path in dictionaries)
    candidates = [path for path in dictionaries if rank_of(path, ema) == lowest]
    usual = [path for path in candidates if path and path[-1] in USUAL_KEYS]
    if len(usual) == 1:
        candidates = usual
    if len(candidates) > 1 and ask:
        raise UsageError(
            "the checkpoint holds several state dicts",
            seen=", ".join(
                f"{shown_path(path)} ({len(dictionaries[path])} tensors)" for path in candidates[:10]
            ),
            next="name the one you mean with --at (consolidate), or save it on its own with torch.save",
        )
    path = max(candidates, key=lambda p: len(dictionaries[p]))
    notes = [f"taken from {shown_path(path)}"] if path else []
    left_out = len(entries) - len(dictionaries[path])
    if left_out:
        notes.append(f"{left_out} other tensors of the checkpoint left out")
    rest = (entry for entry in entries if entry.dictionary != path)
    choice = Choice(dict(dictionaries[path]), tuple(notes), averaged=is_averaged(path))
    return with_rest(choice, rest, ema, "not in the state dict that was taken")
