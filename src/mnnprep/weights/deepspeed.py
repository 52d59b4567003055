"""DeepSpeed ZeRO 1, 2 and 3 directories as plans of their float32 master weights, without DeepSpeed.

Format facts (deepspeed/utils/zero_to_fp32.py, runtime/engine.py): ``latest`` names the directory of a save;
in it are ``mp_rank_00_model_states.pt`` or, for stage 3, ``zero_pp_rank_R_mp_rank_00_model_states.pt``, with
``param_shapes`` (one dictionary a parameter group), ``buffer_names``, ``shared_params`` and ``module``; and
for every rank R ``[bf16_]zero_pp_rank_R_mp_rank_00_optim_states.pt`` with ``optimizer_state_dict``:
``zero_stage``, ``partition_count`` and the float32 values.  Stages 1 and 2 keep a group as one vector, cut
evenly over the ranks (``single_partition_of_fp32_groups``).  Stage 3 cuts every parameter evenly, padded,
over the ranks and lays a rank's cuts end to end (``fp32_flat_groups``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from mnnprep.errors import RefusedError
from mnnprep.text import listed
from mnnprep.weights.content import Content, text
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Piece, Shape, Tensor, check_tiling
from mnnprep.weights.safe_unpickler import Foreign, Unpickled

OPTIMIZER_FILE = re.compile(r"^(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$")
MODEL_FILE = re.compile(r"^(?:zero_pp_rank_\d+_)?mp_rank_\d+_model_states\.pt$")
AGAIN = "use the files of every rank of one save"

Read = Callable[[Place], Content]


def directory_of(place: Place, names: list[str]) -> Place | None:
    """Return the directory with the ZeRO files: *place*, or the one that its ``latest`` names.

    None if there are none.
    """
    if any(OPTIMIZER_FILE.match(name) for name in names):
        return place
    if "latest" in names and place.join("latest").is_file():
        tag = place.join("latest").read(4096).decode("utf-8", "replace").strip()
        if (
            tag
            and "/" not in tag
            and tag not in (".", "..")
            and any(OPTIMIZER_FILE.match(name) for name in _names(place.join(tag)))
        ):
            return place.join(tag)
    return None


def _names(place: Place) -> list[str]:
    return place.list() if place.is_dir() else []


def read(directory: Place, load: Read) -> Content:
    """The parameters in float32 and the buffers.

    Raises:
        RefusedError: the ranks don't add up.
    """
    names = directory.list()
    ranks = _rank_files(names)
    models = [name for name in names if MODEL_FILE.match(name)]
    if not models:
        raise RefusedError(
            "the model states of a DeepSpeed checkpoint are missing",
            seen=directory.name,
            next="put *_model_states.pt beside the others",
        )
    model = _texts(load(directory.join(models[0])).tree)
    states, zero = _optimizer_states(directory, load, ranks)
    groups = [
        {text(name): _extents(shape) for name, shape in group.items()}
        for group in _list(model.get("param_shapes"))
    ]
    if zero <= 2:
        tensors = _even(groups, [_list(state.get("single_partition_of_fp32_groups")) for state in states])
    else:
        tensors = _by_parameter(groups, [_flat(state.get("fp32_flat_groups")) for state in states])
    tensors = _frozen(model, load, directory, models, zero) | tensors
    module = _texts(model.get("module"))
    for name in [text(name) for name in _list(model.get("buffer_names"))]:
        if isinstance(module.get(name), Tensor):
            tensors[name] = module[name]
    order = [name for name in module if name in tensors]
    tensors = {name: tensors[name] for name in [*order, *(n for n in tensors if n not in set(order))]}
    shared = model.get("shared_params")
    pairs = shared.items() if isinstance(shared, dict) else (tuple(pair) for pair in _list(shared))
    aliases = {
        text(name): text(kept) for name, kept in pairs if text(kept) in tensors and text(name) not in tensors
    }
    note = f"DeepSpeed ZeRO {zero}, {len(states)} ranks, float32 master weights"
    return Content(
        tensors,
        f"DeepSpeed ZeRO {zero}",
        notes=(note,),
        aliases=aliases,
        left_out=(("optimizer_state_dict", "optimizer state"),),
    )


def _rank_files(names: list[str]) -> dict[int, str]:
    """The optimizer's file of each rank.

    Raises:
        RefusedError: the files are cut in several ways.
    """
    ranks: dict[int, str] = {}
    for name in names:
        if found := OPTIMIZER_FILE.match(name):
            if int(found[2]):
                raise RefusedError(
                    "this DeepSpeed checkpoint is cut by tensor parallelism too",
                    seen=name,
                    next="convert it with DeepSpeed's universal checkpointing (ds_to_universal.py) first",
                )
            ranks[int(found[1])] = name
    return ranks


def _optimizer_states(
    directory: Place, load: Read, ranks: dict[int, str]
) -> tuple[list[dict[str, Unpickled]], int]:
    """Return the content of each rank's optimizer, in order, and the ZeRO stage.

    Raises:
        RefusedError: the ranks don't add up.
    """
    states = [
        _texts(load(directory.join(ranks[rank])).tree.get("optimizer_state_dict") or {})
        for rank in sorted(ranks)
    ]
    stage = {_number(state.get("zero_stage")) for state in states}
    counts = {_world(state.get("partition_count")) for state in states}
    if len(stage) != 1 or counts != {len(states)} or sorted(ranks) != list(range(len(states))):
        raise RefusedError(
            "the ranks of a DeepSpeed checkpoint don't add up",
            seen=(
                f"ranks {listed([str(r) for r in sorted(ranks)])} of {sorted(map(str, counts))}, ZeRO stage"
                f" {sorted(map(str, stage))}"
            ),
            next=AGAIN,
        )
    return states, int(next(iter(stage)) or 0)


def _even(groups: list[dict[str, Shape]], partitions: list[list[Any]]) -> dict[str, Tensor]:
    """Stages 1 and 2: each group is the ranks' partitions end to end, its parameters one after the other."""
    tensors: dict[str, Tensor] = {}
    for index, group in enumerate(groups):
        segments = [
            rank[index] for rank in partitions if index < len(rank) and isinstance(rank[index], Tensor)
        ]
        needed = sum(math.prod(shape) for shape in group.values())
        held = sum(segment.elements for segment in segments)
        if (
            len(segments) != len(partitions)
            or not needed <= held <= needed + 2 * len(partitions) * max(1, len(partitions)) + 4096
        ):
            raise RefusedError(
                "the partitions of a DeepSpeed group don't add up",
                seen=f"group {index}: {held} of {needed} values",
                next=AGAIN,
            )
        at = 0
        for name, shape in group.items():
            count = math.prod(shape)
            tensors[name] = _joined(name, shape, _cut(segments, at, count, 0), segments[0].dtype)
            at += count
    return tensors


def _by_parameter(groups: list[dict[str, Shape]], ranks: list[list[Tensor]]) -> dict[str, Tensor]:
    """Stage 3: every parameter is cut over the ranks, with padding at the end of the last."""
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, shape in [item for group in groups for item in group.items()]:
        count = math.prod(shape)
        part = -(-count // len(ranks))
        pieces: list[Piece] = []
        for rank, segments in enumerate(ranks):
            begin = min(count, rank * part)
            pieces += _cut(segments, at, min(count, begin + part) - begin, begin)
        tensors[name] = _joined(
            name, shape, pieces, next((s.dtype for rank in ranks for s in rank), "float32")
        )
        at += part
    return tensors


def _frozen(
    model: dict[str, Any], load: Read, directory: Place, models: list[str], zero: int
) -> dict[str, Tensor]:
    """Return the parameters that were not trained.

    They are whole in stages 1 and 2, cut over the ranks' model files in stage 3.
    """
    shapes = {text(name): _extents(shape) for name, shape in _texts(model.get("frozen_param_shapes")).items()}
    if not shapes:
        return {}
    ordered = (
        sorted(models, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
        if zero == 3
        else models[:1]
    )
    fragments = [
        _texts(_texts(load(directory.join(name)).tree).get("frozen_param_fragments")) for name in ordered
    ]
    tensors = {}
    for name, shape in shapes.items():
        pieces: list[Piece] = []
        at, count = 0, math.prod(shape)
        for fragment in (f.get(name) for f in fragments):
            if isinstance(fragment, Tensor):
                pieces += _cut([fragment], 0, min(fragment.elements, count - at), at)
                at = min(count, at + fragment.elements)
        dtype = next((f[name].dtype for f in fragments if isinstance(f.get(name), Tensor)), "float32")
        tensors[name] = _joined(name, shape, pieces, dtype)
    return tensors


def _cut(segments: list[Tensor], begin: int, count: int, at: int) -> list[Piece]:
    """*count* values from *begin* of the segments laid end to end, as pieces from *at* of a flat tensor."""
    pieces = []
    for segment in segments:
        here = segment.elements
        if begin < here and count > 0:
            take = min(count, here - begin)
            piece = segment.pieces[0]
            if len(segment.pieces) != 1 or not piece.contiguous():
                raise RefusedError(
                    "a DeepSpeed partition is not one stretch of memory",
                    seen=str(list(segment.shape)),
                    next=AGAIN,
                )
            pieces.append(Piece(piece.file, piece.offset + begin * segment.nbytes // here, (take,), (at,)))
            at, count, begin = at + take, count - take, 0
        else:
            begin = max(0, begin - here)
    return pieces


def _joined(name: str, shape: Shape, pieces: list[Piece], dtype: str) -> Tensor:
    grid = (math.prod(shape),)
    check_tiling(name, grid, tuple(pieces))
    return Tensor(dtype, shape, tuple(pieces), grid)


def _flat(value: Unpickled) -> list[Tensor]:
    return [item for item in _list(value) if isinstance(item, Tensor)]


def _list(value: Unpickled) -> list[Unpickled]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _texts(value: Unpickled) -> dict[str, Unpickled]:
    return {text(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _extents(value: Unpickled) -> Shape:
    return tuple(int(n) for n in value)


def _number(value: Unpickled) -> Unpickled:
    """A number, or that of a member of an enumeration that was read past."""
    return value.arguments[0] if isinstance(value, Foreign) and len(value.arguments) == 1 else value


def _world(value: Unpickled) -> int:
    """``partition_count``: a number, or one for every group."""
    counts = [int(n) for n in _list(value)]
    return max(counts, default=0)
