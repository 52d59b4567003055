"""Why a node goes wrong in half precision, in one line, from the numbers that the reference has there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mnnprep.diagnose.bisecting.finding import FaultLocation
from mnnprep.model.half import LIMITS, HalfType

Array = npt.NDArray[np.generic]
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "Loop", "Scan"})
SUMS = frozenset({"ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool", "CumSum"})
NORMALIZATIONS = frozenset({"InstanceNormalization", "LayerNormalization", "GroupNormalization"})
LOST = 2.0**6  # a result this many times smaller than what it is the difference of has lost that many digits
LONG = 1024  # terms of a sum, from which its rounding shows


def half_cause(found: FaultLocation, values: Mapping[str, Array], to: HalfType) -> str:
    """Why the nodes of *found* are wrong where numbers are kept as *to*; empty if the numbers don't say.

    *values* are the reference's, by name: what the nodes take and give.
    """
    nodes = [found.subject.outline.nodes[index] for index in found.nodes]
    limits = LIMITS[to]
    taken = {name: values[name] for node in nodes for name in node.inputs if name in values}
    given = {name: values[name] for node in nodes for name in node.outputs if name in values}
    for name, array in {**given, **taken}.items():
        if (peak := _largest(array)) >= limits.overflow:
            return f"overflow: {name} reaches {peak:.4g}, and {to} holds {limits.largest:.5g}"
    for node in nodes:
        sizes = [taken[name] for name in node.inputs if name in taken]
        results = [given[name] for name in node.outputs if name in given]
        if node.op in ("Mul", "Pow") and sizes and _largest(sizes[0]) ** 2 >= limits.overflow:
            return f"overflow: the square of {_largest(sizes[0]):.4g}, and {to} holds {limits.largest:.5g}"
        if node.op in SUMS and sizes and results:
            terms = sizes[0].size // max(results[0].size, 1)
            total = _largest(np.abs(sizes[0]).astype(np.float64).sum() / max(results[0].size, 1))
            if total >= limits.overflow:
                return f"overflow: the sum behind it reaches {total:.4g}, and {to} holds {limits.largest:.5g}"
            if terms >= LONG:
                return f"long accumulation: each result sums {terms} numbers"
        if node.op in NORMALIZATIONS and sizes:
            extent = int(np.prod(sizes[0].shape[2:])) if sizes[0].ndim > 2 else sizes[0].shape[-1]
            if extent >= LONG:
                return f"long accumulation: it is normalized over {extent} numbers"
        if node.op in ("Add", "Sub") and len(sizes) == 2 and results:
            large, small = max(map(_largest, sizes)), _largest(results[0])
            if 0 < small * LOST < large:
                return f"cancellation: numbers up to {large:.4g} leave {small:.4g}"
        if node.op in RECURRENT:
            return f"MNN's {node.op} goes wrong in half precision: prepare with --target, which repairs it"
    for name, array in taken.items():
        least = _least(array)
        if 0 < least < limits.least:
            what = "an epsilon that vanishes" if array.size == 1 else "underflow"
            return f"{what}: {name} has {least:.3g}, and {to} ends at {limits.least:.2g}"
    return ""


def _largest(array: Array | float) -> float:
    values = np.abs(np.asarray(array, np.float64))
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _least(array: Array) -> float:
    if array.dtype.kind != "f":
        return 0.0
    values = np.abs(array.astype(np.float64))
    found = values[(values > 0) & np.isfinite(values)]
    return float(found.min()) if found.size else 0.0
