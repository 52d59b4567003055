"""Megatron-style tensor-parallel ranks: one file a rank, joined along the axes that the user's rules give.

Format facts (megatron/training/checkpointing.py): ``mp_rank_00/model_optim_rng.pt`` and so on,
``mp_rank_00_000`` where the pipeline is cut too.  Which tensors are cut, and along which axis, stands in the
code alone; hence the rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnnprep.errors import RefusedError, UsageError
from mnnprep.text import listed
from mnnprep.weights.content import Content, text
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Piece, Tensor
from mnnprep.weights.safe_unpickler import Foreign, Unpickled
from mnnprep.weights.shards import same_values

RANK = re.compile(r"^(.*?)(?:mp_rank|tp_rank|model_parallel_rank|tp|rank)_?(\d+)(_\d+)?(.*)$")

Read = Callable[[Place], Content]


@dataclass(frozen=True)
class JoinRule:
    """Tensors whose name *pattern* finds are joined along *axis*."""

    pattern: re.Pattern[str]
    axis: int


def parse_join(rule: str) -> JoinRule:
    """``REGEX=>AXIS``.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    pattern, arrow, axis = rule.rpartition("=>")
    try:
        if arrow and pattern:
            return JoinRule(re.compile(pattern), int(axis))
    except (ValueError, re.error) as error:
        raise UsageError(
            "a --join rule could not be read",
            seen=f"{rule}: {error}",
            next="write 'REGEX=>AXIS', for example 'query.weight=>0'",
        ) from error
    raise UsageError(
        "a --join rule could not be read",
        seen=rule,
        next="write 'REGEX=>AXIS', for example 'query.weight=>0'",
    )


def find(names: Sequence[str]) -> dict[int, str]:
    """The members of *names* by rank; empty unless they form one set.

    Raises:
        RefusedError: a number is missing.
    """
    sets: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        if found := RANK.match(name):
            if found[3]:
                raise RefusedError(
                    "this checkpoint is cut over pipeline stages too",
                    seen=name,
                    next="merge the stages with the tool of the training framework first",
                )
            sets.setdefault((found[1], found[4]), {})[int(found[2])] = name
    complete = [members for members in sets.values() if len(members) > 1]
    if len(complete) != 1:
        return {}
    members = dict(sorted(complete[0].items()))
    gaps = [rank for rank in range(len(members)) if rank not in members]
    if gaps:
        raise RefusedError(
            "the ranks of the checkpoint don't add up",
            seen=f"no rank {gaps[0]} among {listed(list(members.values()))}",
            next="put the files of every rank into the directory",
        )
    return members


def read(
    directory: Place, members: dict[int, str], rules: tuple[JoinRule, ...], load: Read
) -> tuple[Content, Callable[[str, Tensor], Tensor]]:
    """Return rank 0's tree, and the function that makes a whole tensor of one of its tensors.

    The function takes it by the name it has there.

    That function raises UsageError for a rule that does not fit, RefusedError where ranks differ and no rule
    says how to join them.
    """
    contents = [load(_file_of(directory.join(name))) for name in members.values()]
    siblings: dict[int, list[Tensor | None]] = {}
    _pair(contents[0].tree, [content.tree for content in contents[1:]], siblings)

    def join(name: str, tensor: Tensor) -> Tensor:
        parts = [tensor, *siblings.get(id(tensor), [])]
        whole = [part for part in parts if part is not None]
        if len(whole) != len(contents) or len({part.dtype for part in whole}) != 1:
            raise RefusedError(
                "the ranks of the checkpoint don't hold the same tensors",
                seen=name,
                next="use the ranks of one save",
            )
        for rule in rules:
            if rule.pattern.search(name):
                return joined(name, whole, rule.axis)
        if all(same_values(tensor, part) for part in whole[1:]):
            return tensor
        raise UsageError(
            "the ranks hold different values of a tensor, and no rule says how to join them",
            seen=f"{name}: {', '.join(str(list(part.shape)) for part in whole[:8])}",
            next=(
                "give the axis for such names with --join 'REGEX=>AXIS' (Megatron: 0 for column-parallel"
                " layers, 1 for row-parallel ones)"
            ),
        )

    foreign = frozenset().union(*(content.foreign for content in contents))
    content = Content(
        contents[0].tree,
        f"{len(contents)} tensor-parallel ranks",
        foreign,
        (f"joined from {len(contents)} ranks",),
    )
    return content, join


def joined(name: str, parts: Sequence[Tensor], axis: int) -> Tensor:
    """The tensors end to end along *axis* (negative: from the last)."""
    first = parts[0]
    rank = len(first.shape)
    at = axis + rank if axis < 0 else axis
    others = [part.shape[:at] + part.shape[at + 1 :] for part in parts]
    if not 0 <= at < rank or any(
        len(part.shape) != rank or rest != others[0] for part, rest in zip(parts, others, strict=True)
    ):
        raise UsageError(
            "a --join rule does not fit a tensor",
            seen=f"axis {axis} of {name}: {', '.join(str(list(part.shape)) for part in parts[:8])}",
            next="give another axis for it, in a rule before this one",
        )
    pieces: list[Piece] = []
    offset = 0
    for part in parts:
        if part.grid != part.shape:
            raise UsageError(
                "a --join rule meets a tensor that is itself in flat pieces",
                seen=name,
                next="consolidate the ranks one by one first",
            )
        for piece in part.pieces:
            start = (*piece.start[:at], piece.start[at] + offset, *piece.start[at + 1 :])
            pieces.append(Piece(piece.file, piece.offset, piece.shape, start, piece.strides))
        offset += part.shape[at]
    return Tensor(first.dtype, (*first.shape[:at], offset, *first.shape[at + 1 :]), tuple(pieces))


def _file_of(place: Place) -> Place:
    """A rank's file: itself, or the one checkpoint in its directory."""
    if not place.is_dir():
        return place
    files = [name for name in place.list() if name.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors"))]
    usual = [name for name in files if name.startswith("model")]
    found = usual if len(usual) == 1 else files
    if len(found) != 1:
        raise UsageError(
            "a rank's directory leaves open which file is meant",
            seen=f"{place.name}: {listed(files)}",
            next="keep one file in it",
        )
    return place.join(found[0])


def _pair(one: Unpickled, others: list[Unpickled], siblings: dict[int, list[Tensor | None]]) -> None:
    """Note for every tensor of the first tree those at the same path in the others."""
    for key, value in _items(one):
        matching = [dict(_items(other)).get(key) for other in others]
        if isinstance(value, Tensor):
            siblings[id(value)] = [match if isinstance(match, Tensor) else None for match in matching]
        elif isinstance(value, (dict, list, tuple, Foreign)):
            _pair(value, matching, siblings)


def _items(value: Unpickled) -> list[tuple[Unpickled, Unpickled]]:
    if isinstance(value, Foreign):
        value = value.mapping
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    return [(text(key), item) for key, item in value.items()] if isinstance(value, dict) else []
