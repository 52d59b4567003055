"""Keras files whose weights lie in another file, and archives that unfold, lead outside or say a thing
twice.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.hostile.case import MODEL, Canary, hostile
from evaluation.hostile.keras_files import (
    DENSE,
    INPUT,
    keras_layer,
    new_lambda,
    sequential,
    write_h5,
    write_keras,
)


def external(canary: Canary) -> Callable[[Any, str], None]:
    """A data set whose bytes are another file's."""
    return lambda group, name: group.create_dataset(name, (1, 16), "f4", external=[(canary.secret, 0, 64)])


def virtual(canary: Canary) -> Callable[[Any, str], None]:
    """A data set that is a view of one in another HDF5 file."""
    import h5py

    def make(group: Any, name: str) -> None:
        layout = h5py.VirtualLayout((1, 16), "f4")
        layout[:] = h5py.VirtualSource(secret_h5(canary), "w", (1, 16))
        group.create_virtual_dataset(name, layout)

    return make


def link(canary: Canary) -> Callable[[Any, str], None]:
    import h5py

    def make(group: Any, name: str) -> None:
        group[name] = h5py.ExternalLink(secret_h5(canary), "/w")

    return make


def secret_h5(canary: Canary) -> str:
    import h5py

    path = canary.secrets / "secret.h5"
    with h5py.File(path, "w") as file:
        file["w"] = np.frombuffer(canary.token, "<f4").reshape(1, 16)
    return str(path)


for _name, _storage in {"external-storage": external, "virtual": virtual, "external-link": link}.items():

    @hostile(
        "keras-h5",
        "hdf5",
        _name,
        f"weights by {_name} from a file outside",
        commands=(*MODEL, "consolidate"),
        control="hdf5",
    )
    def _(canary: Canary, storage: Any = _storage) -> Path:
        dense = {"class_name": "Dense", "config": DENSE | {"units": 16}}
        old = sequential(dense, old=True)
        old["config"]["layers"][0] = {
            "class_name": "InputLayer",
            "config": {"batch_input_shape": [None, 1], "dtype": "float32", "name": "x"},
        }
        return write_h5(canary, old, {"d": {"d/kernel:0": storage(canary)}})

    @hostile("keras", "hdf5", _name, f"weights by {_name} from a file outside", control="")
    def _(canary: Canary, storage: Any = _storage) -> Path:
        config = {
            "module": "keras",
            "class_name": "Sequential",
            "config": {
                "name": "s",
                "layers": [
                    {**INPUT, "config": {"batch_shape": [None, 1], "dtype": "float32", "name": "x"}},
                    keras_layer("Dense", DENSE),
                ],
            },
        }

        def weights(file: Any) -> None:
            storage(canary)(file.create_group("layers/d/vars"), "0")

        return write_keras(canary, config, weights=weights)

    @hostile(
        "weights-h5",
        "hdf5",
        _name,
        f"weights alone by {_name} from a file outside",
        commands=("inspect", "check", "consolidate"),
        control="hdf5",
    )
    def _(canary: Canary, storage: Any = _storage) -> Path:
        import h5py

        path = canary.model / "net.weights.h5"
        with h5py.File(path, "w") as file:
            storage(canary)(file.create_group("layers/d/vars"), "0")
        return path


@hostile("keras", "archive", "zip-bomb", "a configuration of 1.9 GB in 2 MB")
def _(canary: Canary) -> Path:
    path = write_keras(canary, sequential(keras_layer("Activation", {"name": "a", "activation": "relu"})))
    bomb = canary.model / "bomb.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            with new.open(
                zipfile.ZipInfo(info.filename)
                if info.filename != "config.json"
                else _deflated("config.json"),
                "w",
            ) as out:
                out.write(old.read(info))
                for _ in range(1900 if info.filename == "config.json" else 0):
                    out.write(b" " * (1 << 20))
    path.unlink()
    return bomb


def _deflated(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@hostile("keras", "archive", "weights-bomb", "weights of 1.9 GB of zeros in 2 MB")
def _(canary: Canary) -> Path:
    path = write_keras(canary, sequential(keras_layer("Activation", {"name": "a", "activation": "relu"})))
    bomb = canary.model / "bomb.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            with new.open(_deflated(info.filename), "w") as out:
                out.write(old.read(info))
                for _ in range(1900 if info.filename == "model.weights.h5" else 0):
                    out.write(bytes(1 << 20))
    path.unlink()
    return bomb


@hostile("keras", "archive", "traversal", "assets with names that lead outside of the archive")
def _(canary: Canary) -> Path:
    layer = keras_layer("StringLookup", {"name": "l", "vocabulary": None})
    up = os.path.relpath(canary.written, canary.root / "tmp" / "x")
    return write_keras(
        canary,
        sequential(layer),
        {
            f"assets/../../{up}": b"x",
            canary.written: b"x",
            "assets/_layer_checkpoint_dependencies/l/vocabulary.txt": b"a\n",
        },
    )


@hostile("keras", "archive", "damaged", "members that stand twice, with a wrong size")
def _(canary: Canary) -> Path:
    harmless = json.dumps(sequential(keras_layer("ReLU", {"name": "r"})))
    return write_keras(canary, sequential(new_lambda(canary)), {"config.json": harmless.encode()})
