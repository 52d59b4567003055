"""The oracle: a converted model and stored outputs, nothing else, and whether the one gives the other.

It shares no code with the proof that it judges: it feeds MNN and compares by the few lines here, so that it
can say that a proof is wrong.  Call it in a worker: MNN crashes.

A number is right within 1e-3 of itself and 1e-4 of the largest of its output (1e-2 and 1e-3 for 16-bit
floats, whose own steps are that coarse); whole numbers and truth values must be equal, and what is not finite
must be so at the same places. Where the rounding in a stored output is known (``noise/NAME``, of its shape),
ten times of it is right, too.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.conformance.messages import Judged, OracleJob
from mnnprep.workers.server import doing

Array = npt.NDArray[Any]

FED_AS = {
    "float32": "float32",
    "float64": "float32",
    "float16": "float32",
    "int32": "int32",
    "int64": "int32",
    "int16": "int32",
    "uint16": "int32",
    "uint32": "int32",
    "uint64": "int32",
    "bool": "int32",
    "uint8": "uint8",
    "int8": "int32",
}
TOLERANCE = {"float16": (1e-2, 1e-3)}  # dtype of the stored output -> of the number, of the largest
USUAL = (1e-3, 1e-4)
NOISE = 10  # times the rounding in a stored output


def judge(job: OracleJob) -> Judged:
    """Run and compare; whatever MNN raises is a run error."""
    with np.load(job.data, allow_pickle=False) as archive:
        stored = {name: archive[name] for name in archive.files}
    doing("running")
    fed = {name: stored[f"inputs/{name}"] for name in job.inputs}
    unfit = [name for name, array in fed.items() if not _fits(array)]
    if unfit:
        return Judged("unfed", f"MNN has no dtype for the values of {', '.join(unfit)}")
    try:
        results = _run(job, fed)
    except (SystemError, RuntimeError, ValueError, TypeError) as error:
        return Judged("run error", " ".join(str(error).split())[:200])
    if len(results) != len(job.outputs):
        return Judged("run error", f"{len(results)} outputs where there must be {len(job.outputs)}")
    for name, result in zip(job.outputs, results, strict=True):
        status, detail = _compare(stored[f"outputs/{name}"], result, stored.get(f"noise/{name}"))
        if detail:
            return Judged("shape" if status == "shape" else "wrong", f"{name}: {detail}")
    return Judged("right")


def _fits(array: Array) -> bool:
    target = FED_AS.get(str(array.dtype))
    return target is not None and (
        array.dtype.kind == "f" or bool(np.array_equal(array.astype(target), array))
    )


def _run(job: OracleJob, fed: dict[str, Array]) -> list[Array]:
    nn, expr = importlib.import_module("MNN.nn"), importlib.import_module("MNN.expr")
    manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 1},))
    called = (
        [job.names.get(name, name) for name in job.inputs],
        [job.names.get(name, name) for name in job.outputs],
    )
    module = nn.load_module_from_file(str(Path(job.model)), *called, runtime_manager=manager)
    types = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8}
    variables = []
    for array in fed.values():
        target = FED_AS[str(array.dtype)]
        variable = expr.placeholder(list(array.shape), expr.NCHW, types[target])
        if array.size:
            variable.write(np.ascontiguousarray(array.astype(target)).reshape(array.shape))
        variables.append(expr.cast(variable, expr.int8) if array.dtype == np.int8 else variable)
    results = []
    for variable in module.forward(variables):
        dense = expr.convert(variable, expr.NCHW) if variable.data_format == expr.NC4HW4 else variable
        shape = tuple(dense.shape)
        results.append(np.zeros(shape, np.float32) if 0 in shape else np.array(dense.read()))
    return results


def _compare(expected: Array, result: Array, noise: Array | None) -> tuple[str, str]:
    """Say what is wrong with *result*: a kind and a line, both empty if nothing is.

    *noise* is the rounding in *expected*, if that is known.
    """
    if expected.shape != result.shape:
        return "shape", f"{list(result.shape)} where {list(expected.shape)} is right"
    if not expected.size:
        return "", ""
    if (expected.dtype.kind == "f") != (result.dtype.kind == "f"):
        return "wrong", f"{result.dtype} where {expected.dtype} is right"
    if expected.dtype.kind != "f":
        off = int(np.count_nonzero(expected.astype(object) != result.astype(object)))
        return ("wrong", f"{off} of {expected.size} differ") if off else ("", "")
    right, found = expected.astype(np.float64), result.astype(np.float64)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(right)
        if (
            not np.array_equal(right[~finite], found[~finite], equal_nan=True)
            or not np.isfinite(found[finite]).all()
        ):
            return "wrong", "not finite at other places"
        of_itself, of_largest = TOLERANCE.get(str(expected.dtype), USUAL)
        largest = float(np.abs(right[finite]).max(initial=0.0))
        error = np.abs(right[finite] - found[finite])
        allowed = of_itself * np.abs(right[finite]) + of_largest * largest
        if noise is not None:
            allowed += NOISE * np.nan_to_num(noise[finite], posinf=0.0)
        off = int(np.count_nonzero(error > allowed))
    return (
        (
            "wrong",
            (
                f"{off} of {expected.size} differ, by up to {float(error.max()):.3g} where the largest is"
                f" {largest:.3g}"
            ),
        )
        if off
        else ("", "")
    )
