"""Small ONNX models, written on the spot, and cases for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import CaseFile

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "torch-fixtures"
SEED = "0123456789abcdef" * 4  # a sha256

Value = tuple[str, int, Sequence[int | str]]
WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def floats(name: str, *shape: int | str) -> Value:
    return name, TensorProto.FLOAT, shape


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[Value],
    outputs: Iterable[Value],
    weights: Mapping[str, Any] | None = None,
    domains: Sequence[str] = (),
) -> Path:
    """Write a model of opset 13 with these nodes to *path*."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(a, name) for name, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 13), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


node = helper.make_node


def matmul(path: Path) -> Path:
    """y = x @ WEIGHT with a dynamic batch."""
    return save(
        path,
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "batch", 4)],
        [floats("y", "batch", 3)],
        {"w": WEIGHT},
    )


def crashing_lstm(path: Path) -> Path:
    """An LSTM of which only Y is asked for: the converter crashes."""
    weights = {"w": np.zeros((1, 16, 3), np.float32), "r": np.zeros((1, 16, 4), np.float32)}
    return save(
        path,
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
        [floats("x", 5, 1, 3)],
        [floats("y", 5, 1, 1, 4)],
        weights,
    )


def pool_without_strides(path: Path) -> Path:
    """2-D pooling that leaves its strides to ONNX's default: MNN divides by zero when it runs."""
    return save(
        path,
        [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])],
        [floats("x", 1, 1, 4, 4)],
        [floats("y", 1, 1, 3, 3)],
    )


def case(
    directory: Path, index: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
) -> CaseFile:
    """A case file of these arrays."""
    path = directory / f"case-{index}.npz"
    arrays = {f"inputs/{n}": np.asarray(a) for n, a in inputs.items()} | {
        f"outputs/{n}": np.asarray(a) for n, a in (outputs or {}).items()
    }
    save_arrays(path, arrays)
    return CaseFile(index=index, origin="test", dims={}, file=file_ref(path))


def small_net(path: Path) -> None:
    """y = sigmoid(x), with a dynamic batch and names that hold / and :"""
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("net/x:0", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("net/y:0", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Sigmoid", ["net/x:0"], ["net/y:0"])], "net", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def convert(directory: Path, *arguments: str) -> str:
    """What the MNN package's converter prints, in a process of its own."""
    code = "import sys, _tools; _tools.mnnconvert(['MNNConvert', '-f', 'ONNX', *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=directory, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr
