"""Forms that onnxruntime computes otherwise than the ONNX standard: no reference, so no proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.formats.onnx.standard import standard
from mnnprep.model.net import Case
from mnnprep.reference.checks import write_case
from support.command import checks_of, prepared


def saved(path: Path, nodes: list[onnx.NodeProto], shape: list[int], tensors: dict[str, Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def resized(path: Path, height: float) -> Path:
    node = helper.make_node(
        "Resize",
        ["x", "", "s"],
        ["y"],
        name="up",
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    return saved(path, [node], [1, 2, 5, 6], {"s": np.array([1, 1, height, 2], np.float32)})


def unpooled(path: Path, size: int) -> Path:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["p", "i", "s"], ["y"], name="un", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return saved(path, nodes, [1, 1, 4, 4], {"s": np.array([1, 1, size, size])})


def convolved(path: Path, size: int, stride: int, kernel: int = 3, padding: str = "SAME_UPPER") -> Path:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", auto_pad=padding, strides=[stride, stride])
    weight = np.random.default_rng(1).standard_normal((1, 1, kernel, kernel)).astype(np.float32)
    return saved(path, [node], [1, 1, size, size], {"w": weight})


def judged(path: Path, directory: Path) -> Check:
    """The ``standard`` check of a model with one case."""
    net = OnnxNet(str(path))
    inputs = {i.name: np.ones(i.shape, i.dtype) for i in net.inputs}
    case = write_case(directory, 0, Case("seed 0", {}, inputs, net.run(inputs)))
    (check,) = standard(onnx.load(path), path, [case], directory)
    return check


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(
    ("size", "stride", "kernel"),
    [(16, 8, 3), (17, 8, 3), (19, 8, 3), (15, 4, 2), (16, 2, 1), (15, 3, 1), (16, 3, 3), (9, 2, 3)],
)
def test_a_same_convolution_is_agreed_unless_its_first_window_moves(
    size: int, stride: int, kernel: int, padding: str, tmp_path: Path
) -> None:
    path = convolved(tmp_path / "m.onnx", size, stride, kernel, padding)
    check = judged(path, tmp_path)
    assert (check.status is Status.PASSED) == agrees(path)
    assert check.status is Status.PASSED or check.subject == "Conv c"


def agrees(path: Path) -> bool:
    """Whether onnxruntime gives what the standard's own implementation does."""
    image = {
        "x": np.random.default_rng(0).standard_normal(OnnxNet(str(path)).inputs[0].shape).astype(np.float32)
    }
    ours, theirs = OnnxNet(str(path)).run(image)["y"], ReferenceEvaluator(str(path)).run(None, image)[0]
    return bool(np.allclose(ours, theirs, atol=1e-5))


@pytest.mark.parametrize("height", [2.0, 1.2, 3.0, 0.6])
def test_a_resize_to_whole_sizes_is_agreed(tmp_path: Path, height: float) -> None:
    assert agrees(resized(tmp_path / "m.onnx", height))
    manifest = prepared(tmp_path / "m.onnx", tmp_path / "out")
    assert manifest.verdict is Verdict.PROVEN
    assert checks_of(manifest, "standard")[0].status is Status.PASSED


@pytest.mark.parametrize("height", [1.5, 0.7, 2.3])
def test_a_resize_that_cuts_a_fraction_off_is_not(tmp_path: Path, height: float) -> None:
    assert not agrees(resized(tmp_path / "m.onnx", height))
    manifest = prepared(tmp_path / "m.onnx", tmp_path / "out")
    assert manifest.verdict is not Verdict.PROVEN
    (check,) = checks_of(manifest, "standard")
    assert check.status is Status.NOT_RUN
    assert check.subject == "Resize up"


def test_an_unpooling_to_another_shape_is_not(tmp_path: Path) -> None:
    (check,) = checks_of(prepared(unpooled(tmp_path / "same.onnx", 4), tmp_path / "same"), "standard")
    assert check.status is Status.PASSED
    manifest = prepared(unpooled(tmp_path / "other.onnx", 5), tmp_path / "other")
    assert manifest.verdict is not Verdict.PROVEN
    assert checks_of(manifest, "standard")[0].subject == "MaxUnpool un"


def test_other_models_are_not_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 3], {})
    assert checks_of(prepared(path, tmp_path / "out"), "standard") == []
