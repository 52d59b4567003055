"""The descriptors of the frameworks: what they name is there, and nothing else has to name a framework."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mnnprep
from mnnprep.deps import extra_of
from mnnprep.formats.backend import Backend, Deferred, Role
from mnnprep.formats.registry import BACKENDS
from mnnprep.workers.step import Step, message_types

HERE = Path(__file__).parent
PACKAGE = Path(mnnprep.__file__ or "").parent
ROW = "BACKENDS: tuple[Backend, ...] = ("


def parts(thing: Any) -> Iterator[Any]:
    """*thing* and everything in it, through dataclasses and tuples."""
    yield thing
    if isinstance(thing, tuple | frozenset):
        for part in thing:
            yield from parts(part)
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from parts(getattr(thing, field.name))


def steps_of_modules() -> Iterator[Step[Any, Any]]:
    """The steps that are constants of modules which name them."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if "Step.of(" in text or "= Step(" in text:
            module = importlib.import_module(
                ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
            )
            yield from (value for value in vars(module).values() if isinstance(value, Step))


def every_step() -> list[Step[Any, Any]]:
    """All steps of the package, each once."""
    named = [part for part in parts(BACKENDS) if isinstance(part, Step)]
    return list(dict.fromkeys([*named, *steps_of_modules()]))


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.name)
def test_a_step_says_what_its_function_takes_and_gives(step: Step[Any, Any]) -> None:
    function = getattr(importlib.import_module(step.module), step.function)
    assert message_types(function) == (step.job, step.reply)


def test_the_steps_are_found() -> None:
    assert len(every_step()) >= 40


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.framework)
class TestBackend:
    def test_what_it_defers_to_is_there(self, backend: Backend) -> None:
        for part in parts(backend):
            if isinstance(part, Deferred):
                assert callable(getattr(importlib.import_module(part.module), part.function))

    def test_its_extra_brings_its_packages(self, backend: Backend) -> None:
        assert {extra_of(module) for module in backend.packages} <= {backend.extra}

    def test_its_recipes_make_formats_that_are_known(self, backend: Backend) -> None:
        artifacts = {a.name for b in BACKENDS for a in b.artifacts}
        for kind in backend.kinds:
            if kind.steps:
                assert set(kind.steps.targets()) <= artifacts
            if kind.role is Role.FACTORY:
                assert kind.name == backend.factory


def test_importing_them_imports_no_framework() -> None:
    code = "import sys, mnnprep.formats.registry; print([m for m in sys.modules if '.' not in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "tensorflow", "keras", "onnx", "onnxruntime", "MNN", "cv2", "ai_edge_litert", "onnx_ir"}
    assert not heavy & set(json.loads(done.stdout.replace("'", '"')))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package made of links, with the toy in it and its row in ``formats/registry.py``."""
    root = tmp_path_factory.mktemp("with toy")
    package, formats = root / "mnnprep", root / "mnnprep/formats"
    formats.mkdir(parents=True)
    for original, copy in ((PACKAGE, package), (PACKAGE / "formats", formats)):
        for entry in original.iterdir():
            if entry.name not in ("formats", "registry.py", "__init__.py", "__pycache__"):
                (copy / entry.name).symlink_to(entry)
    for copy in (package, formats):
        shutil.copy(PACKAGE / copy.relative_to(package) / "__init__.py", copy)
    shutil.copytree(HERE / "support" / "toy", formats / "toy")
    text = (PACKAGE / "formats/registry.py").read_text()
    assert ROW in text
    row = f"from mnnprep.formats.toy.backend import BACKEND as TOY\n\n{ROW}TOY, "
    (formats / "registry.py").write_text(text.replace(ROW, row))
    return root


@pytest.fixture(scope="module")
def net(root: Path) -> Path:
    rng = np.random.default_rng(0)
    layers = [
        {
            "weight": rng.normal(size=(a, b)).round(3).tolist(),
            "bias": rng.normal(size=b).round(3).tolist(),
            "relu": relu,
        }
        for a, b, relu in ((6, 8, True), (8, 3, False))
    ]
    path = root / "net.toy"
    path.write_text(json.dumps({"toy": 1, "layers": layers}))
    return path


class TestToy:
    """A framework added to a copy of mnnprep by one package and one row: every command knows it."""

    def call(self, root: Path, *arguments: object) -> tuple[int, Any]:
        """What ``mnnprep --json`` says, and its exit code."""
        environment = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-m", "mnnprep", *map(str, arguments), "--json"],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def test_inspect(self, root: Path, net: Path) -> None:
        code, found = self.call(root, "inspect", net)
        assert (code, found["kind"], found["framework"], found["prepared"]) == (0, "toy", "toy", True)
        assert (found["parameters"], found["ops"]) == (6 * 8 + 8 + 8 * 3 + 3, {"Affine": 2, "Relu": 1})

    def test_a_damaged_one_is_refused(self, root: Path) -> None:
        (root / "damaged.toy").write_text('{"toy": 1, "layers": [{"weight": [[1, 2], [3]]}]}')
        code, found = self.call(root, "inspect", root / "damaged.toy")
        assert (code, found["error"]["what"]) == (3, "the toy net is damaged")

    def test_check(self, root: Path, net: Path) -> None:
        code, found = self.call(root, "check", net)
        assert (code, found["kind"], found["operators"]) == (0, "toy", {"Affine": 2, "Relu": 1})

    def test_doctor(self, root: Path) -> None:
        _, found = self.call(root, "doctor")
        assert {"kind": "toy", "works": True, "targets": ["onnx"]}.items() <= next(
            {k: f[k] for k in ("kind", "works", "targets")}.items()
            for f in found["formats"]
            if f["kind"] == "toy"
        )

    def test_prepare_proves_it_and_compare_and_verify_agree(self, root: Path, net: Path) -> None:
        code, found = self.call(root, "prepare", net, "-o", root / "out")
        assert (code, found["verdict"]) == (0, "proven"), found
        assert found["source"]["framework"] == "toy"
        assert self.call(root, "verify", root / "out")[0] == 0
        code, found = self.call(root, "compare", net, root / "out/model.onnx")
        assert code == 0, found
        code, found = self.call(root, "compare", root / "out/model.onnx", net)
        assert code == 0, found

    def test_a_wrong_one_differs(self, root: Path, net: Path) -> None:
        other = json.loads(net.read_text())
        other["layers"][0]["bias"][0] += 1
        (root / "other.toy").write_text(json.dumps(other))
        code, _ = self.call(root, "compare", net, root / "other.toy")
        assert code == 1
