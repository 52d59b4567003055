"""The same source under the same name, options and tools give the same bytes, wherever and by whom they are
given.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
from pathlib import Path

import pytest

from evaluation.nets.mnn_models import matmul
from support.command import environment, program, tree

torch = pytest.importorskip("torch")

FACTORY = """
import torch

def build():
    layers = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(144, 3))
    names = {name for name, _ in net.named_parameters()}  # a set of texts: its order is that of their hashes
    for name in names:
        torch.nn.init.normal_(net.get_parameter(name))
    return net
"""
INPUT = ("--input", "input=float32[batch,1,8,8]", "--dim", "batch=1:3")


class Place:
    """A directory of its own: home, current directory, temporary directory, the sources under its own
    names.
    """

    def __init__(self, root: Path, stem: str, original: Path, **variables: str) -> None:
        self.root, self.stem = root, stem
        for name in ("home", "work", "tmp"):
            (root / name).mkdir(parents=True)
        (root / "net.py").write_text(FACTORY)
        shutil.copy(original / "weights.pt", root / f"{stem}-weights.pt")
        matmul(root / f"{stem}.onnx")
        self.environment = environment(HOME=str(root / "home"), TMPDIR=str(root / "tmp"), **variables)

    def prepare(self, *arguments: str | Path) -> dict[str, bytes]:
        """The files of the bundle, which is written in the current directory."""
        result = program(
            "prepare", *arguments, "-o", "out", "--force", cwd=self.root / "work", env=self.environment
        )
        assert result.code in (0, 1), result.err
        return tree(self.root / "work" / "out")

    def sources(self) -> dict[str, dict[str, bytes]]:
        factory = (
            f"{self.root / 'net.py'}:build",
            "--weights",
            self.root / f"{self.stem}-weights.pt",
            *INPUT,
        )
        return {
            "onnx": self.prepare(self.root / f"{self.stem}.onnx", "--dim", "batch=1:3"),
            "factory": self.prepare(*factory),
            "torchscript": self.prepare(*factory, "--to", "torchscript"),
        }


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Place]:
    root = tmp_path_factory.mktemp("places")
    scope: dict[str, object] = {}
    exec(FACTORY, scope)
    torch.save(scope["build"]().state_dict(), root / "weights.pt")  # type: ignore[operator]
    first = Place(root / "one", "a", root, PYTHONHASHSEED="1", USER="anna", TZ="UTC")
    second = Place(
        root / "quite" / "another place",
        "a",
        root,
        PYTHONHASHSEED="2",
        USER="bert",
        TZ="Asia/Tokyo",
        LANG="C",
    )
    return [first, second]


@pytest.fixture(scope="module")
def bundles(places: list[Place]) -> list[dict[str, dict[str, bytes]]]:
    return [place.sources() for place in places]


@pytest.mark.parametrize("source", ["onnx", "factory", "torchscript"])
def test_the_same_bytes_elsewhere(bundles: list[dict[str, dict[str, bytes]]], source: str) -> None:
    one, other = (bundle[source] for bundle in bundles)
    assert list(one) == list(other)
    assert [name for name in one if one[name] != other[name]] == []
    model = {"onnx": "model.onnx", "factory": "model.onnx", "torchscript": "model.pt"}[source]
    for name in (
        model,
        "manifest.json",
        "report.html",
        "cases/0.npz",
        "mnn-test/input.json",
        *(["model.mnn"] if source != "torchscript" else []),
    ):
        assert one[name], name


def test_the_same_bytes_again(places: list[Place], bundles: list[dict[str, dict[str, bytes]]]) -> None:
    again = places[0].prepare(places[0].root / "a.onnx", "--dim", "batch=1:3")
    assert again == bundles[0]["onnx"]


def test_it_names_no_place_no_user_and_no_time(
    places: list[Place], bundles: list[dict[str, dict[str, bytes]]]
) -> None:
    """Not in any file's bytes, those inside the archives included (their records are stored, not
    compressed).
    """
    names = [
        os.path.expanduser("~") + "/",
        os.getcwd() + "/",
        "/pytest-of-",
        socket.gethostname(),
        "anna",
        "bert",
        "mnnprep-",
    ]
    names = [name for name in names if len(name) > 3]  # fewer letters are in any file by chance
    names += [str(places[0].root.parent)] + (
        [getpass.getuser()] if getpass.getuser() not in ("root", "user") else []
    )
    for bundle in bundles:
        for source, files in bundle.items():
            for name, data in files.items():
                found = [text for text in names if text and text.encode() in data]
                assert found == [], (source, name)
