"""The smallest piece that shows a finding, written as a directory that anyone can replay and report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import mnnprep.mnn as mnn_package
from mnnprep._version import __version__
from mnnprep.bundle import writer
from mnnprep.diagnose.bisecting.experiment import Trial, TrialRunner
from mnnprep.diagnose.bisecting.finding import FaultLocation
from mnnprep.model.files import Arrays, atomic_write, canonical_json, load_arrays, save_arrays
from mnnprep.model.precision import Precision
from mnnprep.model.running import case_inputs
from mnnprep.workers.failure import StepFailed

REPLAY = "replay.py"
RECORD = "finding.json"
SHOWN = 4  # elements of an output in the text


def write_repro(
    lab: TrialRunner,
    finding: FaultLocation,
    trial: Trial,
    record: dict[str, object],
    precision: Precision,
    target: Path,
) -> list[str]:
    """Write *trial* to *target*, which appears only when whole; the names of its files.

    ``model.onnx`` (and its data), ``inputs.npz``, ``expected.npz`` (onnxruntime's), ``mnn.npz`` (what MNN
    gave, if anything), ``replay.py``, ``finding.json`` and ``README.md``.
    """
    expected = _expected(lab, trial)
    inputs = case_inputs(trial.case.file.path)
    actual = load_arrays(trial.actual) if trial.actual else {}
    with writer.stage(target) as directory:
        for path in trial.files:
            shutil.copyfile(path, directory / Path(path).name)
        for name, arrays in (("inputs", inputs), ("expected", expected), ("mnn", actual)):
            if arrays:
                save_arrays(directory / f"{name}.npz", arrays)
        shutil.copyfile(Path(next(iter(mnn_package.__path__))) / REPLAY, directory / REPLAY)
        options = _options(precision)
        with atomic_write(directory / RECORD) as file:
            file.write(canonical_json({**record, "converter_options": options}))
        with atomic_write(directory / "README.md") as file:
            file.write(_readme(finding, inputs, expected, actual, record, options).encode())
        return sorted(p.name for p in directory.iterdir())


def _expected(lab: TrialRunner, trial: Trial) -> Arrays:
    try:
        return load_arrays(lab.reference(trial.files[0], trial.outputs, trial.case))
    except StepFailed:  # the converter fails on what onnxruntime does not know either
        return {}


def _options(precision: Precision) -> list[str]:
    """Return the converter's options beside the files."""
    return [
        *(["--fp16"] if precision.fp16 else []),
        *(["--weightQuantBits", str(precision.weight_bits)] if precision.weight_bits else []),
    ]


def _readme(
    finding: FaultLocation,
    inputs: Arrays,
    expected: Arrays,
    actual: Arrays,
    record: dict[str, object],
    options: list[str],
) -> str:
    tools = record["tools"]
    assert isinstance(tools, dict)
    lines = [f"# {record['headline']}", "", str(record["sentence"]), ""]
    lines += ["Versions: " + ", ".join(f"{n} {v}" for n, v in tools.items() if n != "mnnprep") + ".", ""]
    if options:
        lines += [f"Converter options: `{' '.join(options)}`.", ""]
    lines += [
        "| file | holds |",
        "| --- | --- |",
        f"| model.onnx | {_counted(len(finding.labels()))} of the model, with the weights needed |",
    ]
    lines += [f"| inputs.npz | {_listed(inputs)} |"]
    lines += [f"| expected.npz | onnxruntime's {_listed(expected)} |"] if expected else []
    lines += [f"| mnn.npz | MNN's {_listed(actual)} |"] if actual else ["| | MNN gave nothing |"]
    lines += ["", "Replay, with numpy and MNN installed:", "", f"    python {REPLAY}", ""]
    if actual:
        lines += ["| output | shape | expected | MNN |", "| --- | --- | --- | --- |"]
        lines += [_row(n, a, actual[n]) for n, a in expected.items() if n in actual]
        lines += ["", "(the first elements that differ)", ""]
    lines += [f"Found by mnnprep {__version__}."]
    return "\n".join(lines) + "\n"


def _counted(count: int) -> str:
    return "the node" if count == 1 else f"{count} nodes"


def _listed(arrays: Arrays) -> str:
    return ", ".join(f"`{n}` {a.dtype}{list(a.shape)}" for n, a in arrays.items())


def _row(name: str, expected: np.ndarray, actual: np.ndarray) -> str:
    """A line of the table: the first elements that differ visibly, else the first ones."""
    a, b = expected.reshape(-1), actual.reshape(-1)
    places = np.arange(min(a.size, b.size, SHOWN))
    if a.size == b.size and a.dtype.kind in "fiub":
        wrong = np.flatnonzero(
            ~np.isclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-3, atol=1e-30, equal_nan=True)
        )
        places = wrong[:SHOWN] if wrong.size else places
    shape = f"{list(expected.shape)}" + (
        "" if expected.shape == actual.shape else f" (MNN: {list(actual.shape)})"
    )
    numbers = [" ".join(f"{float(v):.6g}" for v in array[places]) for array in (a, b)]
    return f"| {name} | {shape} | {numbers[0]} | {numbers[1]} |"
