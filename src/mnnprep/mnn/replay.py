"""Replay: convert model.onnx with MNN's converter, run it on inputs.npz, compare with expected.npz.

    python replay.py            needs numpy and MNN, nothing else

It exits with 0 if MNN gives the expected outputs, with 1 if it does not; if MNN crashes, so does this. Its
own lines begin with "replay:"; the others are MNN's, and may come before or after them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
NARROWED = {"int64": "int32", "bool": "int32", "float64": "float32", "float16": "float32"}


def main() -> int:
    """Convert the piece, run it in MNN and print how far each output is off; return the exit code."""
    import _tools
    from MNN import expr, nn

    options = json.loads((HERE / "finding.json").read_text())["converter_options"]
    inputs, expected = dict(np.load(HERE / "inputs.npz")), dict(np.load(HERE / "expected.npz"))
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # the converter writes into the current directory
        model = os.path.join(directory, "model.mnn")
        _tools.mnnconvert(
            [
                "MNNConvert",
                "-f",
                "ONNX",
                "--modelFile",
                str(HERE / "model.onnx"),
                "--MNNModel",
                model,
                "--bizCode",
                "replay",
                *options,
            ]
        )
        sys.stdout.flush()
        if not os.path.exists(model):
            print("replay: the converter wrote no file")
            return 1
        manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 1},))
        module = nn.load_module_from_file(model, list(inputs), list(expected), runtime_manager=manager)
        results = module.forward([variable(expr, array) for array in inputs.values()])
        if len(results) != len(expected):
            print(f"replay: MNN gave {len(results)} outputs where {len(expected)} are expected")
            return 1
        return max(
            [
                shown(name, reference, dense(expr, result))
                for (name, reference), result in zip(expected.items(), results, strict=False)
            ],
            default=1,
        )


def variable(expr: object, array: np.ndarray) -> object:
    """Return *array* as an MNN variable in the dtype that MNN has for it."""
    array = array.astype(NARROWED.get(str(array.dtype), array.dtype))
    types = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8}  # type: ignore[attr-defined]
    kind = types[str(array.dtype)]
    made = expr.placeholder(list(array.shape), expr.NCHW, kind)  # type: ignore[attr-defined]
    made.write(np.ascontiguousarray(array) if array.ndim else array)
    return made


def dense(expr: object, made: object) -> np.ndarray:
    """Return the values of an MNN variable in NCHW."""
    if made.data_format == expr.NC4HW4:  # type: ignore[attr-defined]
        made = expr.convert(made, expr.NCHW)  # type: ignore[attr-defined]
    return np.array(made.read())  # type: ignore[attr-defined]


def shown(name: str, reference: np.ndarray, actual: np.ndarray) -> int:
    """Print how far one output is off; 1 where it is beyond 1e-4 of the largest plus 1e-3 of each element."""
    if reference.size != actual.size:
        print(f"replay: {name}: shape {list(actual.shape)} where {list(reference.shape)} is expected")
        return 1
    if reference.shape != actual.shape:
        print(f"replay: {name}: shape {list(actual.shape)} where {list(reference.shape)} is expected")
    a, b = reference.astype(np.float64).reshape(-1), actual.astype(np.float64).reshape(-1)
    both = np.isfinite(a) & np.isfinite(b)
    error = np.abs(a[both] - b[both])
    peak = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    allowed = (1e-4 * peak + 1e-3 * np.abs(a[both])) if reference.dtype.kind == "f" else 0.0
    wrong = int(np.count_nonzero(error > allowed)) + int(np.count_nonzero(np.isfinite(a) != np.isfinite(b)))
    print(
        f"replay: {name}: {wrong} of {a.size} elements are wrong; max abs error"
        f" {float(error.max(initial=0.0)):.6g}, largest expected {peak:.6g}"
    )
    return int(wrong > 0 or reference.shape != actual.shape)


if __name__ == "__main__":
    sys.exit(main())
