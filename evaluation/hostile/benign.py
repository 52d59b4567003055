"""A right file of each format: what memory a command takes without an attack.

A file whose framework is not that of its format's others has one by its own name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from evaluation.hostile.case import Canary
from evaluation.places import DATA

BENIGN: dict[str, Callable[[Canary], Path]] = {}


def _keras(canary: Canary) -> Path:
    from evaluation.hostile.keras_files import keras_layer, sequential, write_keras

    return write_keras(canary, sequential(keras_layer("Activation", {"name": "a", "activation": "tanh"})))


def _h5(canary: Canary) -> Path:
    from evaluation.hostile.keras_files import sequential, write_h5

    return write_h5(
        canary,
        sequential({"class_name": "Activation", "config": {"name": "a", "activation": "tanh"}}, old=True),
    )


def _onnx(canary: Canary) -> Path:
    from onnx import helper

    from evaluation.hostile.onnx_files import save

    return save(canary, [helper.make_node("Tanh", ["x"], ["y"])])


def _torch(canary: Canary) -> Path:
    data = DATA / "torch-fixtures" / "conv-trace.pt"
    return Path(shutil.copy(data, canary.model))


def _graph(canary: Canary) -> Path:
    from evaluation.hostile.graphdef import PLACEHOLDER, graph, node

    return graph(canary, [PLACEHOLDER, node("y", "Tanh", ["x"], T=1)])


BENIGN.update(
    {
        "keras": _keras,
        "keras-h5": _h5,
        "onnx": _onnx,
        "torchscript": _torch,
        "torch-module": _torch,
        "frozen-graph": _graph,
        "savedmodel": _graph,
        "tf-checkpoint": _graph,
        "exported-program": _torch,
        "path/kind/self-directory": _graph,
    }
)
