"""Whether a bundle's bytes depend on anything but the source: one model of every format, prepared in five
settings.

    python -m evaluation.reproducible    # about five minutes on two cores; --only onnx torch: some formats

The settings differ in home, working and temporary directory, the source's directory, user, time zone, locale,
hash seed, umask and number of processors. The ONNX model has tensors whose names begin with the home and the
working directory of the first setting. One line a format, and exit status 1 if a byte of any file of a bundle
differs, or if `verify` does not say of a bundle what `prepare` said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from evaluation.places import ROOT, SOURCES
from evaluation.same_sources import Entry, entries

FORMATS = {
    "torch": "torch/gives_dict",
    "torchscript": "torchscript/conv-trace",
    "keras": "real/fer.hdf5",
    "savedmodel": "real/basic-pitch-saved-model",
    "frozen-graph": "real/deepbrain.pb",
    "tflite": "real/basic-pitch.tflite",
    "caffe": "real/mtcnn-det1.prototxt",
    "mnn": "mnn/conv-trace",
}
# The graph's last output reads from a data pipeline.
MORE_OPTIONS = {
    "frozen-graph": ("--outputs", "prob", "--range", "img=0.4:0.6", "--dim", "batch=1:2", "--to", "onnx"),
}
SETTINGS: tuple[dict[str, str], ...] = (
    {"USER": "anna", "TZ": "UTC", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
    {"USER": "bert", "TZ": "Asia/Tokyo", "LANG": "C", "PYTHONHASHSEED": "1"},
    {"USER": "carla", "TZ": "America/Lima", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "random"},
    {"USER": "dora", "OMP_NUM_THREADS": "7", "PYTHONUNBUFFERED": "1", "COLUMNS": "40"},
    {"USER": "emil", "TF_CPP_MIN_LOG_LEVEL": "0", "NO_COLOR": "1", "TERM": "dumb"},
)


class Setting:
    """Directories and variables of one user."""

    def __init__(self, root: Path, number: int) -> None:
        self.number = number
        self.root = root / ("a b/" * number) / f"user-{number}"
        self.home, self.work, self.scratch, self.models = (
            self.root / n for n in ("home", "work", "tmp", "models")
        )
        for directory in (self.home, self.work, self.scratch, self.models):
            directory.mkdir(parents=True)
        kept = {
            name: os.environ[name] for name in ("PATH", "PYENV_ROOT", "LD_LIBRARY_PATH") if name in os.environ
        }
        places = {
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": os.pathsep.join(map(str, (SOURCES, ROOT))),
        }
        self.environment = kept | places | SETTINGS[number]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`mnnprep` with *arguments*, on one processor in every other setting."""
        os.umask(0o022 if self.number % 2 else 0o077)
        processors = ["taskset", "-c", "0"] if self.number % 2 and shutil.which("taskset") else []
        command = [*processors, sys.executable, "-m", "mnnprep", *arguments]
        return subprocess.run(
            command, cwd=self.work, env=self.environment, capture_output=True, text=True, check=False
        )

    def bundle(self, source: str, options: tuple[str, ...]) -> tuple[dict[str, str], str]:
        """The sha256 of every file of the bundle of *source*, and what is wrong; *source* is copied into this
        user's directory.
        """
        place, colon, name = source.partition(".py:")
        path = Path(f"{place}.py" if colon else source)
        copied = self.models / path.name
        for file in [path, *path.parent.glob(f"{path.stem}.caffemodel")]:
            (shutil.copytree if file.is_dir() else shutil.copy)(file, self.models / file.name)
        target = Path(tempfile.mkdtemp(dir=self.work)) / "bundle"
        done = self.run(
            "prepare", f"{copied}:{name}" if colon else str(copied), *options, "-o", str(target), "--json"
        )
        if not target.is_dir():
            return {}, f"no bundle: {done.stderr[-300:]}"
        said = json.loads(done.stdout)["verdict"]
        again: Any = json.loads(self.run("verify", str(target), "--json").stdout)
        problem = (
            ""
            if again.get("verdict") == said
            else f"prepare says {said}, verify {again.get('verdict', again)}"
        )
        files = sorted(p for p in target.rglob("*") if p.is_file())
        return {
            str(p.relative_to(target)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
        }, problem


def named_after(setting: Setting, path: Path) -> str:
    """An ONNX model whose tensors are named after the directories of *setting*."""
    ends = [f"{setting.home}/{name}" for name in ("x", "y")]
    middle = f"{setting.work}/hidden"
    nodes = [
        helper.make_node("Relu", [ends[0]], [middle], name=f"{setting.models}/relu"),
        helper.make_node("Neg", [middle], [ends[1]]),
    ]
    infos = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", 4]) for end in ends]
    graph = helper.make_graph(nodes, str(setting.root), infos[:1], infos[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=["onnx", *FORMATS], choices=["onnx", *FORMATS])
    chosen = parser.parse_args().only
    known: dict[str, Entry] = {entry.name: entry for entry in entries()}
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="reproducible-") as directory:
        settings = [Setting(Path(directory), number) for number in range(len(SETTINGS))]
        sources = {
            name: (known[entry].locate(), known[entry].options)
            for name, entry in FORMATS.items()
            if name in chosen
        }
        if "onnx" in chosen:
            sources = {
                "onnx": (named_after(settings[0], Path(directory, "net.onnx")), ("--dim", "batch=1:3")),
                **sources,
            }
        for name, (source, options) in sources.items():
            more = MORE_OPTIONS.get(name, ())
            bundles = [setting.bundle(source, (*options, *more)) for setting in settings]
            files, problems = [b for b, _ in bundles], [p for _, p in bundles if p]
            different = sorted(
                {
                    path
                    for other in files
                    for path in {*files[0], *other}
                    if files[0].get(path) != other.get(path)
                }
            )
            wrong += bool(different or problems)
            outcome = (
                "; ".join([*(f"{path} differs" for path in different), *problems])
                or "the same bytes, and verify agrees"
            )
            print(f"{name:<12} {len(files)} settings, {len(files[0])} files: {outcome}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
