"""The kit: a directory with all that runs a model and its cases on a device, without mnnprep.

``kit.txt`` is its description, one fact a line, so that a program needs no parser for it::

    mnnprep-kit 1
    bundle SHA256              the manifest that the model belongs to
    model FILE
    file SIZE FILE             the model, and its weights where they are a file of their own
    layout NCHW|NHWC           of the outputs
    hint NUMBER VALUE          of MNN's Interpreter::HintMode
    input LAYOUT NAME          in the order of cases/CASE/0.npy, 1.npy, ...
    output NAME                in the order of the outputs to write
    case NUMBER
    end

A name is the rest of its line; ``%XX`` stands for a byte of it that a line can't hold.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import mnnprep.targets as package
from mnnprep.errors import RefusedError
from mnnprep.mnn.convert import WEIGHTS_SUFFIX
from mnnprep.mnn.run import HINTS, CaseFailed, MnnRunJob, narrow_input
from mnnprep.model.files import load_arrays

FILE_NAME = "kit.txt"
FORMAT = "mnnprep-kit 1"
MODEL = "model.mnn"
CASES = "cases"
PYTHON = "mnnprep_run.py"
CPP = ("mnnprep_run.cpp", "CMakeLists.txt")
_SOURCES = Path(next(iter(package.__path__)))


def write_kit(directory: Path, job: MnnRunJob, bundle: str) -> None:
    """Write the kit of *job* to *directory*: ``kit.txt``, the model, the cases' inputs, the Python program.

    The inputs have the dtypes that MNN computes with. *bundle* is the sha256 of the manifest that the job
    comes from; the program puts it beside its outputs.

    Raises:
        RefusedError: a case has an input with a value that MNN can't hold.
    """
    model = Path(job.model)
    weights = model.with_name(model.name + WEIGHTS_SUFFIX)
    shutil.copyfile(model, directory / MODEL)
    if weights.exists():  # MNN looks for it by the model's own name
        shutil.copyfile(weights, directory / (MODEL + WEIGHTS_SUFFIX))
    shutil.copyfile(_SOURCES / "device_program.py", directory / PYTHON)
    for case in job.cases:
        arrays = load_arrays(case.file.path, "inputs/")
        folder = directory / CASES / str(case.index)
        folder.mkdir(parents=True)
        for place, name in enumerate(job.input_names):
            try:
                array = narrow_input(name, arrays)
            except CaseFailed as error:
                raise RefusedError(
                    f"case {case.index} can't be fed to MNN", seen=str(error), next="prepare the model again"
                ) from error
            with (folder / f"{place}.npy").open("wb") as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), (1, 0), allow_pickle=False)
    (directory / FILE_NAME).write_text(_description(directory, job, bundle), encoding="utf-8", newline="\n")


def write_cpp(directory: Path) -> None:
    """Write the C++ program to *directory*, with what CMake needs to build it."""
    directory.mkdir()
    for name in CPP:
        shutil.copyfile(_SOURCES / "program" / name, directory / name)


def _description(directory: Path, job: MnnRunJob, bundle: str) -> str:
    files = [name for name in (MODEL, MODEL + WEIGHTS_SUFFIX) if (directory / name).exists()]
    layouts = {name: job.layouts.get(name, "NCHW") for name in job.input_names}
    lines = [
        FORMAT,
        f"bundle {bundle}",
        f"model {MODEL}",
        *(f"file {(directory / name).stat().st_size} {name}" for name in files),
        f"layout {'NHWC' if 'NHWC' in layouts.values() else 'NCHW'}",
        *(f"hint {HINTS[name]} {value}" for name, value in job.hints.items()),
        *(f"input {layouts[name]} {_escaped(theirs)}" for name, theirs in job.input_names.items()),
        *(f"output {_escaped(theirs)}" for theirs in job.output_names.values()),
        *(f"case {case.index}" for case in job.cases),
        "end",
    ]
    return "\n".join(lines) + "\n"


def _escaped(name: str) -> str:
    """*name* on one line: its control characters, and the percent sign, as %XX."""
    return "".join(f"%{ord(c):02X}" if c < " " or c in "%\x7f" else c for c in name)
