"""LoRA adapters of PEFT, merged into the weights they adapt.

Format facts (peft: ``tuners/lora/layer.py``, ``utils/save_and_load.py``): ``adapter_config.json`` has ``r``,
``lora_alpha``, ``use_rslora``, ``rank_pattern``, ``alpha_pattern``, ``fan_in_fan_out``, ``modules_to_save``;
the tensors are ``base_model.model.NAME.lora_A.weight`` (r, in) and ``lora_B.weight`` (out, r), for embeddings
``lora_embedding_A`` (r, words) and ``lora_embedding_B`` (width, r), and whole replacements for
``modules_to_save``.  Merged is W + s BA with s = alpha/r, or alpha/sqrt(r) with rank-stabilized LoRA.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError, UsageError
from mnnprep.text import listed
from mnnprep.weights.dtypes import FLOATING, numpy_dtype
from mnnprep.weights.files import File
from mnnprep.weights.places import Place
from mnnprep.weights.plan import BLOCK_BYTES, Run, Tensor

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
ADAPTED = re.compile(
    r"^(?P<name>.+)\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?$"
)
UNSUPPORTED = ("use_dora", "megatron_config", "use_qalora", "alora_invocation_tokens")


@dataclass(frozen=True, eq=False)
class Merged(Tensor):
    """``base + scale * (b @ a)`` row by row, computed in float64 and rounded once to the base's dtype."""

    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0
    transposed: bool = False  # the base is stored (in, out)

    def runs(self) -> list[Run] | None:
        """Return None: the values have to be computed."""
        return None

    def key(self) -> tuple[object, ...] | None:
        """Return None: no other tensor is known to hold the same."""
        return None

    def sources(self) -> set[File]:
        """Return the files of the base and of both matrices of the adapter."""
        assert self.a is not None and self.b is not None
        return super().sources() | self.a.sources() | self.b.sources()

    def blocks(self, limit: int = BLOCK_BYTES) -> Iterator[npt.NDArray[Any]]:
        """Yield the merged values, some rows at a time."""
        assert self.a is not None and self.b is not None
        right, left = _matrix(self.a), _matrix(self.b)
        if self.transposed:
            left, right = right.T, left.T
        dtype = numpy_dtype(self.dtype)
        rows, width = left.shape[0], self.elements // left.shape[0]
        step = max(1, limit // (width * 8))
        whole = Tensor(self.dtype, self.shape, self.pieces, self.grid)
        for at in range(0, rows, step):
            count = min(step, rows - at)
            base = whole.box((at, *(0 for _ in self.shape[1:])), (count, *self.shape[1:])).view(dtype)
            delta = (left[at : at + count] @ right) * self.scale
            yield (
                (base.reshape(count, width).astype(np.float64) + delta)
                .astype(dtype)
                .reshape(-1)
                .view(_raw(dtype))
            )

    def array(self) -> npt.NDArray[Any]:
        """Return all merged values."""
        return np.concatenate(list(self.blocks())).reshape(self.shape)


def _raw(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _matrix(tensor: Tensor) -> npt.NDArray[np.float64]:
    """The values as float64, with the axes of a kernel after the first as one."""
    values = tensor.array().view(numpy_dtype(tensor.dtype)).astype(np.float64)
    return values.reshape(values.shape[0], -1)


def read_config(directory: Place) -> dict[str, Any]:
    """``adapter_config.json``.

    Raises:
        RefusedError: the adapter is not plain LoRA.
    """
    try:
        config = json.loads(directory.join(CONFIG).read(1 << 24))
    except ValueError as error:
        raise RefusedError(
            "the adapter's configuration can't be read",
            seen=f"{CONFIG}: {error}",
            next="download the adapter again",
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise RefusedError(
            "this adapter is not LoRA",
            seen=f"peft_type {kind}",
            next="merge it with peft's merge_and_unload and save the model",
        )
    used = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append(f"bias {config['bias']}")
    if used:
        raise RefusedError(
            "this kind of LoRA can't be merged here",
            seen=listed(used),
            next="merge it with peft's merge_and_unload and save the model",
        )
    return dict(config)


def merge(
    base: Mapping[str, Tensor], adapter: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """The base's tensors, the adapted ones merged; and what a user should know.

    Raises:
        UsageError: the adapter adapts what the base does not have, or of other shapes.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    tensors = dict(base)
    strangers: list[str] = []
    replaced = 0
    for name, tensor in adapter.items():
        plain = name.removeprefix(PREFIX)
        if found := ADAPTED.match(plain):
            pairs.setdefault(found["name"], {})[found["kind"]] = tensor
            continue
        target = _name_in(
            base, re.sub(r"\.modules_to_save(?:\.default)?\b|\.original_module\b|\.base_layer\b", "", plain)
        )
        if target and tensors[target].shape == tensor.shape:
            tensors[target] = tensor
            replaced += 1
        else:
            strangers.append(name)
    ranks: dict[int, int] = {}
    for name, parts in pairs.items():
        target = _name_in(base, f"{name}.weight")
        merged = _merged(name, base[target], parts, config) if target else None
        if merged is None:
            strangers.append(name)
        else:
            tensors[target] = merged[0]
            ranks[merged[1]] = ranks.get(merged[1], 0) + 1
    if strangers:
        raise UsageError(
            "the adapter does not fit its base model",
            seen=f"no tensor of its shape for {listed(strangers)}",
            next="give the model that it was trained on with --base",
        )
    shown = ", ".join(f"rank {rank} for {count} tensors" for rank, count in sorted(ranks.items()))
    notes = [f"LoRA adapter merged: {shown}"] + (
        [f"{replaced} tensors replaced by those trained with the adapter"] if replaced else []
    )
    return tensors, notes


def _name_in(base: Mapping[str, Tensor], name: str) -> str:
    """Return the name in *base*.

    It is as it is, or the one name that ends so (a base saved from inside the model, or around it).
    """
    if name in base:
        return name
    ends = [other for other in base if other.endswith(f".{name}") or name.endswith(f".{other}")]
    return ends[0] if len(ends) == 1 else ""


def _merged(
    name: str, base: Tensor, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[Merged, int] | None:
    """The merged tensor and its rank; None if the shapes don't fit."""
    embedding = "lora_embedding_A" in parts
    a, b = (parts.get(f"lora_embedding_{x}" if embedding else f"lora_{x}") for x in "AB")
    if (
        a is None
        or b is None
        or base.dtype not in FLOATING
        or a.dtype not in FLOATING
        or b.dtype not in FLOATING
        or len(a.shape) < 2
    ):
        return None
    rank = a.shape[0]
    if embedding or config.get("fan_in_fan_out"):  # W (words, width), or (in, out): W + s (BA)^T
        fits = base.shape == (a.shape[1], b.shape[0]) and b.shape[1] == rank
    else:
        fits = base.shape == (b.shape[0], *a.shape[1:]) and math.prod(b.shape[1:]) == rank
    if not fits or base.grid != base.shape:
        return None
    alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", rank))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Merged(
        base.dtype,
        base.shape,
        base.pieces,
        base.grid,
        a,
        b,
        scale,
        embedding or bool(config.get("fan_in_fan_out")),
    ), rank


def _by_pattern(patterns: Mapping[str, SupportsFloat] | None, name: str, default: float) -> float:
    """Do as peft's ``get_pattern_key``: a key matches the whole name, or its end after a dot."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(value)
    return float(default)
