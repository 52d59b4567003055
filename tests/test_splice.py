"""ONNX files read and written around their weights: the same bytes and the same numbers as onnx has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mnnprep.deps import require
from mnnprep.formats.onnx import splice
from mnnprep.formats.onnx.graph import load_graph, tensors_of
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.torch.float64 import quick_depthwise
from mnnprep.model.files import sha256

DTYPES = (
    "float32",
    "float64",
    "float16",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "bool",
)
arrays = st.builds(
    lambda dtype, shape, seed: (np.random.default_rng(seed).integers(0, 2, shape) * 3).astype(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 9),
)


def model_of(weights: dict[str, Any], noted: bool = False, tail: bool = True) -> onnx.ModelProto:
    """A model with these initializers, all the kinds of fields before and behind them."""
    tensors = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    if noted:
        for tensor in tensors:
            tensor.doc_string = "/home/user/net.py"
            tensor.metadata_props.add(key="place", value="here")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(
        nodes,
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        tensors,
        doc_string="what it is",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("other", 1)], ir_version=8
    )
    if tail:
        helper.set_model_props(model, {"key": "value"})
    return model


@given(weights=st.lists(arrays, max_size=4), noted=st.booleans(), tail=st.booleans())
def test_taken_apart_and_written_it_is_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, weights: list[Any], noted: bool, tail: bool
) -> None:
    named = {f"w{i}": a for i, a in enumerate(weights)}
    raw = model_of(named, noted, tail).SerializeToString()
    model, extents = splice.apart(raw)
    assert not model.graph.initializer
    assert [splice.name_of(raw, extent) for extent in extents] == list(named)
    path = tmp_path_factory.mktemp("splice") / "model.onnx"
    written = splice.write(path, model, [splice.without_notes(raw, extent) for extent in extents])
    assert path.read_bytes() == model_of(named, tail=tail).SerializeToString(deterministic=True)
    assert (written.size, written.sha256) == (path.stat().st_size, sha256(path))


@given(weights=st.lists(arrays, min_size=1, max_size=4))
def test_weights_kept_aside_are_filled_in(
    tmp_path_factory: pytest.TempPathFactory, weights: list[Any]
) -> None:
    named = {f"w{i}": a for i, a in enumerate(weights)}
    raw = model_of({n: a.reshape(-1)[:0] for n, a in named.items()}, noted=True).SerializeToString()
    model, extents = splice.apart(raw)
    path = tmp_path_factory.mktemp("splice") / "model.onnx"
    splice.write(
        path, model, [splice.filled(raw, extent, named[splice.name_of(raw, extent)]) for extent in extents]
    )
    assert path.read_bytes() == model_of(named).SerializeToString(deterministic=True)


@given(weights=st.lists(arrays, max_size=4))
def test_the_numbers_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, weights: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("splice") / "model.onnx"
    onnx.save(model_of({f"w{i}": a for i, a in enumerate(weights)}), path)
    found = tensors_of(path)
    assert found.pop("c") == 2
    assert list(found) == [f"w{i}" for i in range(len(weights))]
    for one, other in zip(found.values(), weights, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_numbers_kept_otherwise_are_read_as_onnx_reads_them(tmp_path: Path) -> None:
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.5, -2.0])  # in float_data
    half = helper.make_tensor("half", TensorProto.BFLOAT16, [3], [1.0, 2.0, 3.0])
    outside = numpy_helper.from_array(np.arange(5, dtype="f4"), "outside")
    model = model_of({})
    model.graph.initializer.extend([listed, half, outside])
    onnx.external_data_helper.set_external_data(model.graph.initializer[2], "w.data", 0, 20)
    (tmp_path / "w.data").write_bytes(outside.raw_data)
    model.graph.initializer[2].ClearField("raw_data")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = tensors_of(path)
    assert found["listed"].tolist() == [1.5, -2.0]
    assert found["half"].tobytes() == numpy_helper.to_array(half).tobytes()
    assert found["outside"].tolist() == [0, 1, 2, 3, 4]


def test_settings_of_operators_can_be_left_out(tmp_path: Path) -> None:
    constants = {
        "axes": np.int64([1, 2]),
        "size": np.int64(3),
        "long": np.arange(17),
        "table": np.int64([[1, 2]]),
        "number": np.float32(2),
    }
    model = model_of({"indices": np.int64([4, 5])})
    for name, array in constants.items():
        model.graph.node.append(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        )
    onnx.save(model, tmp_path / "model.onnx")
    everything, rest = (tensors_of(tmp_path / "model.onnx", settings=s) for s in (True, False))
    assert set(everything) - set(rest) == {"axes", "size"}


def test_nodes_come_without_large_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_of({"large": np.zeros(2000, "f4"), "small": np.ones(3, "f4")}), path)
    model = skeleton(path, whole_nodes=True)
    assert {t.name: len(t.raw_data) for t in model.graph.initializer} == {"large": 0, "small": 12}
    whole = load_graph(path)
    assert (model.graph.node, model.opset_import) == (whole.graph.node, whole.opset_import)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"padding": (2, 1)}, {"dilation": (1, 2), "stride": (2, 1)}, {"padding": "same"}],
)
def test_depthwise_tap_by_tap(options: dict[str, Any]) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(2, 6, 9, 8).double(),
        torch.randn(6, 1, 3, 2).double(),
        torch.randn(6).double(),
    )
    for function, given_ in (
        (torch.nn.functional.conv2d, (x, weight, bias)),
        (torch.nn.functional.conv2d, (x, torch.randn(4, 3, 3, 2).double())),
    ):
        groups = 6 if len(given_) == 3 else 2
        want = function(*given_, groups=groups, **options)
        with quick_depthwise():
            made = function(*given_, groups=groups, **options)
        assert torch.allclose(made, want, rtol=1e-12, atol=1e-12)
