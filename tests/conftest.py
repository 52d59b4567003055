"""What several test files share: how Hypothesis searches, how workers start, a worker and a proven bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from evaluation.nets.mnn_models import WEIGHT, floats, node, save
from evaluation.places import ROOT
from mnnprep.workers import host as hosts
from mnnprep.workers.confine import Confinement
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.command import prepared
from support.templates import shared_imports

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Under `make coverage`, let confined steps write what they measured, too."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return
    confinement_of, figures = hosts.confinement_of, str(ROOT / ".cache" / "coverage")

    def measured(*arguments: Any, **options: Any) -> Confinement | None:
        found = confinement_of(*arguments, **options)
        return found and dataclasses.replace(found, write=(*found.write, figures))

    hosts.confinement_of = measured


@pytest.fixture(scope="module", autouse=True)
def _workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fork the workers of a file's tests from templates, but where these are about starting them."""
    if request.node.get_closest_marker("own_workers"):
        yield
        return
    with shared_imports():
        yield


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One worker for both: the engine and the converter are imported before it forks."""
    with Host(Worker("test", ("numpy", "MNN", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven bundle of a net with two outputs; tests that change one take a copy."""
    root = tmp_path_factory.mktemp("bundle")
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Tanh", ["m"], ["y"]),
        node("ArgMax", ["m"], ["i"], axis=1, keepdims=0),
    ]
    save(
        root / "net.onnx", nodes, [floats("x", "n", 4)], [floats("y", "n", 3), ("i", 7, ["n"])], {"w": WEIGHT}
    )
    manifest = prepared(root / "net.onnx", root / "bundle", "--dim", "n=1:4")
    assert manifest.verdict.value == "proven"
    return root / "bundle"
