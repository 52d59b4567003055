"""Inputs at the corners of the ranges that were declared: witnesses of what only they make too large.

An interval bound of a net's values is far above what any input reaches, so that it proves nothing.  It says
where to look: of the first affine layers, whose bound some input attains, the unit with the widest one is
given that input, which the model is then run on.  What is told was seen there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.files import Arrays, file_ref, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.running import case_inputs

if TYPE_CHECKING:
    from onnx import NodeProto

Array = npt.NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
MOST_LAYERS = 4


def corner_cases(model: str, cases: Sequence[CaseFile], ranges: Ranges, directory: Path) -> list[CaseFile]:
    """Cases at corners of *ranges*, made of the largest of *cases*; what has no range is as it is there.

    They are the least and the greatest values of all inputs, and those that attain the bounds of the first
    affine layers.
    """
    base = case_inputs(max(cases, key=lambda case: case.file.size).file.path) if cases else {}
    free = {name: r for name, r in ranges.items() if name in base and base[name].dtype.kind == "f"}
    if not free:
        return []
    found = [_filled(base, free, side) for side in (0, 1)]
    tensors = graphs.tensors_of(model)
    for node in skeleton(model).graph.node:
        signs = _signs(node, tensors, free, base)
        if signs is not None and len(found) < 2 + 2 * MOST_LAYERS:
            found += _attaining(base, free, node.input[0], signs)
    return list(_written(found, directory))


def _filled(base: Arrays, free: Ranges, side: int) -> Arrays:
    return {n: np.full_like(a, free[n][side]) if n in free else a for n, a in base.items()}


def _signs(node: NodeProto, tensors: Arrays, free: Ranges, base: Arrays) -> Array | None:
    """Where the weights of the widest unit are positive, in the shape that its input is given; else None."""
    if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[0] not in free:
        return None
    weight, value = tensors.get(node.input[1]), base[node.input[0]]
    if weight is None or weight.dtype.kind != "f":
        return None
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Conv":
        return _window(weight, value) if "group" not in attributes or attributes["group"].i == 1 else None
    if weight.ndim != 2 or value.ndim < 1 or ("transA" in attributes and attributes["transA"].i):
        return None
    units = weight if "transB" in attributes and attributes["transB"].i else weight.T
    if units.shape[1] != value.shape[-1]:
        return None
    return np.asarray(np.broadcast_to(_widest(units) > 0, value.shape))


def _window(weight: Array, value: Array) -> Array | None:
    """The signs of the widest filter, laid side by side over the whole map."""
    if value.ndim != weight.ndim or value.shape[1] != weight.shape[1]:
        return None
    signs = _widest(weight.reshape(len(weight), -1)).reshape(weight.shape[1:]) > 0
    repeats = [-(-size // own) for size, own in zip(value.shape[1:], signs.shape, strict=True)]
    tiled = np.tile(signs, repeats)[tuple(slice(size) for size in value.shape[1:])]
    return np.asarray(np.broadcast_to(tiled, value.shape))


def _widest(units: Array) -> Array:
    return np.asarray(units[np.abs(units).sum(axis=1).argmax()])


def _attaining(base: Arrays, free: Ranges, name: str, signs: Array) -> Iterator[Arrays]:
    """The inputs at which a unit's sum is greatest and least."""
    low, high = (np.asarray(end, base[name].dtype) for end in free[name])
    for positive in (signs, ~signs):
        yield {**base, name: np.where(positive, high, low)}


def _written(found: Sequence[Arrays], directory: Path) -> Iterator[CaseFile]:
    for index, arrays in enumerate(found):
        path = directory / f"corner-{index}.npz"
        save_arrays(path, {f"inputs/{name}": array for name, array in arrays.items()})
        yield CaseFile(index=index, origin=f"corner {index}", dims={}, file=file_ref(path))
