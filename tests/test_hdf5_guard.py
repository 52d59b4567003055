"""HDF5 files that would take bytes from elsewhere, or unfold without bound: refused wherever weights are
read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnnprep.commands.consolidate import consolidate
from mnnprep.commands.consolidation import Options
from mnnprep.commands.inspect import inspect_file
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow.keras_config import refuse_foreign_weights, weights_in
from mnnprep.weights.hdf5_guard import hdf5_file

h5py = pytest.importorskip("h5py")
SECRET = b"the bytes of another file".ljust(64)


def external(book: Any, other: Path) -> None:
    book.create_dataset("model_weights/d/kernel", (16,), "f4", external=[(str(other), 0, 64)])


def virtual(book: Any, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,), "f4")
    book.create_virtual_dataset("model_weights/d/kernel", layout)


def linked(book: Any, other: Path) -> None:
    book["model_weights/d/kernel"] = h5py.ExternalLink(str(other), "/x")


def linked_group(book: Any, other: Path) -> None:
    book["model_weights"] = h5py.ExternalLink(str(other), "/")


def soft(book: Any, other: Path) -> None:
    book["optimizer"] = np.ones(3, "f4")
    book["model_weights/d/kernel"] = h5py.SoftLink("/optimizer")


def deep(book: Any, other: Path) -> None:
    linked(book.create_group("/".join("abcdefgh")), other)


def unwritten(book: Any, other: Path) -> None:
    book.create_dataset(
        "model_weights/d/kernel", (1 << 20, 1 << 10), "f4", chunks=(1024, 1024), fillvalue=1.0
    )


def many_unwritten(book: Any, other: Path) -> None:
    for index in range(64):
        book.create_dataset(f"model_weights/{index}", (1 << 22,), "f4", chunks=True)


HOSTILE: list[Callable[[Any, Path], None]] = [
    external,
    virtual,
    linked,
    linked_group,
    soft,
    deep,
    unwritten,
    many_unwritten,
]


def made(path: Path, change: Callable[[Any, Path], None]) -> Path:
    other = path.with_suffix(".other")
    with h5py.File(other, "w") as book:
        book["x"] = np.frombuffer(SECRET, "f4")
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": []}}
    with h5py.File(path, "w") as book:
        book.attrs["model_config"] = json.dumps(config)
        change(book, other)
    return path


def archived(path: Path, weights: Path, method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
        archive.writestr("metadata.json", "{}")
        archive.write(weights, "model.weights.h5")
    return path


@pytest.mark.parametrize("change", HOSTILE, ids=lambda f: f.__name__)
def test_weights_from_elsewhere_are_refused_by_every_reader(
    tmp_path: Path, change: Callable[[Any, Path], None]
) -> None:
    path = made(tmp_path / "net.h5", change)
    stored = archived(tmp_path / "stored.keras", path, zipfile.ZIP_STORED)
    deflated = archived(tmp_path / "deflated.keras", path, zipfile.ZIP_DEFLATED)
    reason = "declares far more|from outside itself"
    with pytest.raises(RefusedError, match=reason):
        refuse_foreign_weights(path, "keras-h5")
    for file in (path, stored, deflated):
        with pytest.raises(RefusedError, match=reason):
            inspect_file(file)
    with pytest.raises(RefusedError, match=reason):
        consolidate(str(path), tmp_path / "out.safetensors", Options())
    assert not (tmp_path / "out.safetensors").exists()


def test_weights_that_are_the_files_own_are_read(tmp_path: Path) -> None:
    def own(book: Any, _: Path) -> None:
        book.create_dataset("model_weights/d/kernel", data=np.arange(6, dtype="f4").reshape(2, 3))
        book.create_dataset("model_weights/d/zeros", data=np.zeros((2048, 2048), "f4"), compression="gzip")
        book["model_weights/d/again"] = book["model_weights/d/kernel"]  # a second name of the same dataset
        book["model_weights/loop"] = book["model_weights"]

    path = made(tmp_path / "net.h5", own)
    with hdf5_file(path, path.name, path.stat().st_size) as book:
        assert book["model_weights/d/kernel"][1, 2] == 5
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with weights_in(archived(tmp_path / "net.keras", path, method)) as book:
            assert book["model_weights/d/kernel"][1, 2] == 5


def test_a_damaged_file_and_one_without_weights_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "net.h5", lambda book, _: book.create_group("model_weights"))
    whole = path.read_bytes()
    for size in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RefusedError, match="can't be read"):
            refuse_foreign_weights(path, "keras-h5")
    empty = tmp_path / "empty.keras"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(RefusedError, match=r"damaged"), weights_in(empty):
        pass
