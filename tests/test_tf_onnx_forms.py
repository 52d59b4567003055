"""What is mended in the ONNX that tf2onnx writes: SAME padding, and what a Loop carries unchanged; and Keras
models that can't be traced at open sizes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import node
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow.loop_invariants import read_outside
from mnnprep.formats.tensorflow.same_padding import as_tensorflow_pads
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.model.signature import TensorSpec
from support.rewriting import build, reference

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def convolution(kernel: tuple[int, int], strides: tuple[int, int]) -> Any:
    weight = np.random.default_rng(0).standard_normal((3, 2, *kernel)).astype(np.float32)
    conv = node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=strides, kernel_shape=kernel)
    return build([conv], [("x", FLOAT, ["n", 2, "h", "w"])], [("y", FLOAT, None)], {"w": weight})


@pytest.mark.parametrize(
    ("kernel", "strides"), [((1, 1), (4, 4)), ((3, 3), (8, 8)), ((3, 2), (2, 5)), ((4, 3), (9, 3))]
)
def test_same_with_a_stride_beyond_the_kernel(kernel: tuple[int, int], strides: tuple[int, int]) -> None:
    """TensorFlow's own numbers, at every remainder that a size can leave."""
    tf = pytest.importorskip("tensorflow")
    model = convolution(kernel, strides)
    sizes = [(h, w) for h, w in zip(range(6, 16), range(15, 5, -1), strict=True)]
    random = np.random.default_rng(1)
    feeds = [{"x": random.standard_normal((2, 2, h, w)).astype(np.float32)} for h, w in sizes]
    weight = numpy_helper.to_array(model.graph.initializer[0]).transpose(2, 3, 1, 0)
    expected = [
        tf.nn.conv2d(feed["x"].transpose(0, 2, 3, 1), weight, strides, "SAME").numpy().transpose(0, 3, 1, 2)
        for feed in feeds
    ]
    before = reference(model, feeds)
    assert not all(
        made["y"].shape == right.shape and np.allclose(made["y"], right, atol=1e-5)
        for made, right in zip(before, expected, strict=True)
    )
    assert len(as_tensorflow_pads(model)) == 1
    for made, right in zip(reference(model, feeds), expected, strict=True):
        np.testing.assert_allclose(made["y"], right, atol=1e-5)


def test_same_within_the_kernel_is_left_alone() -> None:
    model = convolution((3, 3), (2, 2))
    before = copy.deepcopy(model)
    assert not as_tensorflow_pads(model)
    assert model == before


def looped() -> Any:
    """Three steps that add the halves of a weight, which the body carries, declared as a scalar."""
    body = helper.make_graph(
        [
            node("Split", ["carried"], ["a", "b"], axis=0),
            node("Add", ["sum", "a"], ["with_a"]),
            node("Add", ["with_a", "b"], ["next"]),
            node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", INT64, []),
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("sum", FLOAT, None),
            helper.make_tensor_value_info("carried", FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
            helper.make_tensor_value_info("carried", FLOAT, []),
        ],
    )
    return build(
        [node("Loop", ["count", "true", "x", "w"], ["y", "same"], body=body)],
        [("x", FLOAT, [1, 4])],
        [("y", FLOAT, None), ("same", FLOAT, None)],
        {"count": np.array(3), "true": np.array(True), "w": np.arange(8, dtype=np.float32).reshape(2, 4)},
    )


def test_what_a_loop_carries_unchanged_is_read_outside() -> None:
    model = looped()
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        reference(model, [{"x": np.zeros((1, 4), np.float32)}])
    assert read_outside(model.graph) == 1
    (made,) = reference(model, [{"x": np.ones((1, 4), np.float32)}])
    weight = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(made["y"], 1 + 3 * weight.sum(0, keepdims=True))
    np.testing.assert_array_equal(made["same"], weight)
    assert not read_outside(model.graph)


def test_keras_at_open_sizes_and_at_fixed_ones(tmp_path: Path) -> None:
    """Keras 3 can't trace a bilinear UpSampling2D at an open size."""
    keras = pytest.importorskip("keras")
    from mnnprep.formats.tensorflow.keras_files import load_keras

    image = keras.layers.Input((None, None, 3), name="image")
    net = keras.Model(image, keras.layers.UpSampling2D(2, interpolation="bilinear")(image))
    net.save(tmp_path / "net.keras")
    source = Source(kind="keras", path=str(tmp_path / "net.keras"))
    with pytest.raises(RefusedError, match="open sizes") as raised:
        load_keras(source, InputSpecs())
    assert "--input 'image=float32[" in raised.value.next
    fixed = InputSpecs(inputs=(TensorSpec("image", "float32", (1, 8, 8, 3)),))
    loaded = load_keras(source, fixed)
    assert [spec.shape for spec in loaded.inputs] == [(1, 8, 8, 3)]
