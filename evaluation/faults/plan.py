"""The plan of the fault benchmark: every trial as a row, made by one process a framework: ``python -m
evaluation.faults.plan FRAMEWORK DIR``.

It writes the models and the doctored models below DIR, judges every planted fault on its own
(``judge``), and writes ``DIR/FRAMEWORK.jsonl``, one trial a line.
"""

from __future__ import annotations

import importlib
import json
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MODULES = {  # in this order: the ONNX files start from PyTorch's nets
    "torch": "evaluation.faults.torch_plan:torch_rows",
    "onnx": "evaluation.faults.onnx_plan:onnx_rows",
    "caffe": "evaluation.faults.caffe_plan:caffe_rows",
    "tensorflow": "evaluation.faults.tensorflow_plan:tensorflow_rows",
}
# caught by value where the artifact's weights are compared: such a fault needs no effect on the outputs
WEIGHTS = "weight_1_percent"


@dataclass
class Row:
    """One trial. ``command`` are the arguments of ``mnnprep`` (without a target); for ``verify`` they prepare
    the bundle that ``action`` then spoils with ``file``. ``moved`` is by how many tolerances the fault moves
    an output; None where no such judgement is needed.
    """

    id: str
    group: str  # fault, clean, baked
    kind: str
    format: str
    model: str
    how: str  # prepare, compare, verify
    command: list[str]
    moved: float | None = None
    action: str = ""
    file: str = ""
    axis: str = ""
    reference: dict[str, Any] = field(
        default_factory=dict
    )  # how to run the source, for the judgement of a clean model that is refused


def declared(inputs: Sequence[str] = (), dims: Sequence[str] = (), ranges: Sequence[str] = ()) -> list[str]:
    pairs = [("--input", inputs), ("--dim", dims), ("--range", ranges)]
    return [part for option, values in pairs for value in values for part in (option, value)]


def wrapper(directory: Path, name: str, body: str) -> str:
    """An executable that takes MNNConvert's options; *body* may change ``argv`` before the package's
    converter gets it.
    """
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.py"
    lines = [
        "import os, shutil, sys",
        "argv = list(sys.argv)",
        "def given(option): return argv.index(option) + 1",
        body,
    ]
    path.write_text(f"#!{sys.executable}\n" + "\n".join(lines) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


PASS_ON = "import _tools\n_tools.mnnconvert(argv)"


def instead_of(model: Path | str, option: str = "--modelFile") -> str:
    """The body of a wrapper that converts another file than it is given."""
    return f"argv[given({option!r})] = {str(model)!r}\n{PASS_ON}"


def converts(model: str, frontend: str) -> bool:
    """Whether the package's converter makes anything of a file."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = [
            "MNNConvert",
            "-f",
            frontend,
            "--modelFile",
            model,
            "--MNNModel",
            "out.mnn",
            "--bizCode",
            "x",
        ]
        subprocess.run(
            [sys.executable, "-c", f"import _tools\n_tools.mnnconvert({arguments})"],
            cwd=directory,
            capture_output=True,
            timeout=300,
        )
        return (Path(directory) / "out.mnn").exists()


LIARS = {
    "crash": ("crash", "import signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
    "abort": ("crash", "os.abort()"),
    "says_success": ("crash", "print('Converted Success!')"),
    "junk": (
        "crash",
        "open(argv[given('--MNNModel')], 'wb').write(b'junk' * 99)\nprint('Converted Success!')",
    ),
    "half_a_file": (
        "crash",
        (
            f"{PASS_ON}\npath = argv[given('--MNNModel')]\ndata = open(path, 'rb').read()\nopen(path,"
            " 'wb').write(data[:len(data) // 2])"
        ),
    ),
}


def made_directory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def main() -> None:
    framework, root = sys.argv[1], made_directory(Path(sys.argv[2]))
    module, function = MODULES[framework].split(":")
    lines = [json.dumps(asdict(row)) for row in getattr(importlib.import_module(module), function)(root)]
    (root / f"{framework}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
