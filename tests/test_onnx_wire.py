"""The wire scan of ONNX files: it agrees with onnx.load, and a damaged file is an error with a place, never a
surprise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import mnnprep
from mnnprep.errors import RefusedError
from mnnprep.evidence.check import Status
from mnnprep.formats.onnx.graph import inference_mode
from mnnprep.formats.onnx.scan import scan_model
from mnnprep.formats.onnx.scan_tensors import DTYPES
from mnnprep.formats.onnx.summary import PROTOBUF_LIMIT, OnnxSummary, require_loadable
from mnnprep.wire.protobuf import WireError, fields, varint

FLOAT = TensorProto.FLOAT


def value(
    name: str, shape: Sequence[str | int | None] | None = ("n", 3), dtype: int = FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    *,
    initializers: Sequence[TensorProto] = (),
    opset: int = 17,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [value("x")] if inputs is None else list(inputs), [value("y", None)], list(initializers)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **options)


def scan(model: onnx.ModelProto, directory: Path) -> OnnxSummary:
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return scan_model(path)


def refusal(path: Path) -> RefusedError | None:
    """The refusal of a file, None for one that is valid; anything else is raised."""
    try:
        scan_model(path)
    except RefusedError as error:
        return error
    return None


def small_model() -> onnx.ModelProto:
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["e"], name="mul")], "else", [], [value("e")]
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("Twice", ["i"], ["y"], domain="mine"),
    ]
    function = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    weights = [numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")]
    model = model_of(
        nodes, initializers=weights, functions=[function], producer_name="maker", producer_version="1.2"
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    helper.set_model_props(model, {"author": "someone"})
    return model


def test_the_whole_of_a_small_model(tmp_path: Path) -> None:
    summary = scan(small_model(), tmp_path)
    assert (summary.ir_version, summary.producer, summary.opset, summary.opsets) == (
        8,
        "maker 1.2",
        17,
        {"": 17, "mine": 1},
    )
    assert [(spec.name, spec.dtype, spec.shape) for spec in summary.inputs] == [("x", "float32", ("n", 3))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in summary.outputs] == [("y", "float32", None)]
    assert {(op.domain, op.op_type): op.count for op in summary.ops} == {
        ("", "Constant"): 1,
        ("", "If"): 1,
        ("", "Relu"): 1,
        ("", "Mul"): 1,
        ("mine", "Twice"): 1,
        ("", "Add"): 1,
    }
    assert (
        summary.initializers.total.tensors,
        summary.initializers.total.elements,
        summary.initializers.total.bytes,
    ) == (1, 3, 12)
    assert summary.constants.by_dtype["bool"].elements == 1
    assert summary.functions == ("mine::Twice",)
    assert summary.metadata == {"author": "someone"}
    assert summary.leftovers == ()
    assert summary.problems == ()
    assert summary.external == ()


@given(
    sizes=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=4),
    codes=st.lists(st.sampled_from([1, 2, 3, 6, 7, 9, 10, 11]), min_size=4, max_size=4),
    raw=st.booleans(),
    dims=st.lists(
        st.one_of(st.integers(0, 2**40), st.text("abc_", min_size=1, max_size=5), st.none()), max_size=4
    ),
    op_types=st.lists(st.sampled_from(["Relu", "Add", "Conv", "Größe"]), max_size=6),
    opset=st.integers(7, 24),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_agrees_with_onnx_load(
    sizes: list[list[int]],
    codes: list[int],
    raw: bool,
    dims: list[int | str | None],
    op_types: list[str],
    opset: int,
) -> None:
    tensors = []
    for index, (shape, code) in enumerate(zip(sizes, codes, strict=False)):
        array = np.zeros(shape, helper.tensor_dtype_to_np_dtype(code))
        tensors.append(
            numpy_helper.from_array(array, f"w{index}")
            if raw
            else helper.make_tensor(f"w{index}", code, shape, array.ravel())
        )
    nodes = [helper.make_node(op_type, ["x"], [f"o{index}"]) for index, op_type in enumerate(op_types)]
    with tempfile.TemporaryDirectory() as directory:
        summary = scan(
            model_of(nodes, initializers=tensors, opset=opset, inputs=[value("x", dims), value("w0", [1])]),
            Path(directory),
        )
        loaded = onnx.load(Path(directory) / "model.onnx")
    assert summary.opset == loaded.opset_import[0].version
    assert Counter({op.op_type: op.count for op in summary.ops}) == Counter(
        node.op_type for node in loaded.graph.node
    )
    names = {tensor.name for tensor in loaded.graph.initializer}
    assert [spec.name for spec in summary.inputs] == [
        spec.name for spec in loaded.graph.input if spec.name not in names
    ]
    assert list(summary.defaulted_inputs) == [spec.name for spec in loaded.graph.input if spec.name in names]
    got = summary.inputs[0].shape
    expected = tuple(
        d.dim_param if d.HasField("dim_param") else d.dim_value if d.HasField("dim_value") else None
        for d in loaded.graph.input[0].type.tensor_type.shape.dim
    )
    assert got == expected
    assert summary.initializers.total.tensors == len(loaded.graph.initializer)
    arrays = [numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer]
    assert summary.initializers.total.elements == sum(array.size for array in arrays)
    assert summary.initializers.total.bytes == sum(array.nbytes for array in arrays)
    assert set(summary.int32_data) == {
        t.name for t in loaded.graph.initializer if len(t.int32_data) and t.data_type != TensorProto.INT32
    }
    assert summary.problems == ()


def test_every_data_type_has_a_name() -> None:
    assert set(DTYPES) == set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}


def test_every_truncation_is_refused_or_valid(tmp_path: Path) -> None:
    whole = small_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        error = refusal(path)
        if error is not None:
            refused += 1
            assert error.exit_code == 3
            assert error.next
    assert refused >= len(whole) - 6  # the only cuts that go unseen are between the fields behind the graph


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_damage_is_refused_or_valid(noise: bytes) -> None:
    whole = bytearray(small_model().SerializeToString())
    for index, byte in enumerate(noise):
        whole[(byte * 7 + index * 31) % len(whole)] = byte
    with tempfile.TemporaryDirectory() as directory:
        for data in (bytes(whole), noise):
            path = Path(directory) / "damaged.onnx"
            path.write_bytes(data)
            error = refusal(path)
            assert error is None or error.what


def test_the_error_of_a_truncated_file_gives_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(small_model().SerializeToString()[:100])
    with pytest.raises(RefusedError, match="truncated at byte 14") as caught:
        scan_model(path)
    assert "100 bytes" in caught.value.seen
    assert caught.value.exit_code == 3


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for _ in range(28):
        graph = helper.make_graph([helper.make_node("Loop", ["x"], ["y"], body=graph)], "g", [], [])
    assert scan(helper.make_model(graph), tmp_path).ops[0].count == 28
    encoded = graph.SerializeToString()
    for _ in range(40):  # by hand: onnx itself can't write so deep
        attribute = _field(1, b"body") + _field(6, encoded)
        encoded = _field(1, _field(4, b"Loop") + _field(5, attribute))
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x08" + _field(7, encoded) + _field(8, b"\x10\x11"))
    with pytest.raises(RefusedError, match="malformed"):
        scan_model(tmp_path / "deep.onnx")


def _field(number: int, data: bytes) -> bytes:
    out = bytearray([number << 3 | 2])
    length = len(data)
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(out + bytes([length])) + data


def test_wire_errors() -> None:
    with pytest.raises(WireError, match="more than ten bytes"):
        varint(b"\xff" * 11, 0, 11)
    for data, reason in (
        (b"\x00", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x05ab", "5 bytes where 2 are left"),
        (b"\x0d\x00", "4 bytes"),
    ):
        with pytest.raises(WireError, match=reason):
            list(fields(data, 0, len(data)))


class TestTraining:
    def leftovers(
        self, tmp_path: Path, node: onnx.NodeProto, opset: int, *extra: onnx.NodeProto, **options: Any
    ) -> list[str]:
        summary = scan(model_of([*extra, node], opset=opset, **options), tmp_path)
        return [leftover.reason for leftover in summary.leftovers]

    def test_dropout(self, tmp_path: Path) -> None:
        true = numpy_helper.from_array(np.array(True), "train")
        false = helper.make_tensor("train", TensorProto.BOOL, [], [False])
        dropout = helper.make_node("Dropout", ["x", "ratio", "train"], ["y"], name="d")
        assert self.leftovers(tmp_path, dropout, 13, initializers=[true]) == ["training_mode is true"]
        assert self.leftovers(
            tmp_path, dropout, 13, initializers=[helper.make_tensor("train", TensorProto.BOOL, [], [True])]
        ) == ["training_mode is true"]
        assert self.leftovers(tmp_path, dropout, 13, initializers=[false]) == []
        assert self.leftovers(
            tmp_path, dropout, 13, helper.make_node("Constant", [], ["train"], value=true)
        ) == ["training_mode is true"]
        assert self.leftovers(tmp_path, dropout, 13, helper.make_node("Not", ["z"], ["train"])) == [
            "its training_mode (train) is computed when the net runs"
        ]
        asked = [value("x"), value("train", [], TensorProto.BOOL)]
        assert self.leftovers(tmp_path, dropout, 13, inputs=asked) == [
            "its training_mode (train) is an input"
        ]
        assert self.leftovers(tmp_path, helper.make_node("Dropout", ["x"], ["y"]), 13) == []
        assert self.leftovers(tmp_path, helper.make_node("Dropout", ["x"], ["y"], ratio=0.5), 10) == []
        assert self.leftovers(tmp_path, helper.make_node("Dropout", ["x"], ["y"]), 6) == [
            "is_test is 0, which is training in opset 6"
        ]
        assert self.leftovers(tmp_path, helper.make_node("Dropout", ["x"], ["y"], is_test=1), 6) == []

    def test_batch_normalization(self, tmp_path: Path) -> None:
        inputs = ["x", "s", "b", "m", "v"]
        assert self.leftovers(
            tmp_path, helper.make_node("BatchNormalization", inputs, ["y", "p", "q"], training_mode=1), 15
        ) == ["training_mode is 1"]
        assert (
            self.leftovers(
                tmp_path, helper.make_node("BatchNormalization", inputs, ["y"], training_mode=0), 15
            )
            == []
        )
        assert self.leftovers(tmp_path, helper.make_node("BatchNormalization", inputs, ["y"]), 9) == []
        assert self.leftovers(tmp_path, helper.make_node("BatchNormalization", inputs, ["y", "p"]), 9) == [
            "it also gives p, which is training in opset 9"
        ]

    def test_batch_statistics_of_constants(self, tmp_path: Path) -> None:
        """Weights that are standardized: the same at inference, whatever stands between."""
        norm = helper.make_node(
            "BatchNormalization", ["r", "s", "b", "m", "v"], ["y", "p", "q"], training_mode=1
        )
        kept = numpy_helper.from_array(np.ones((1, 2, 3), np.float32), "w")
        shape = helper.make_node("Reshape", ["w", "to"], ["r"])
        to = numpy_helper.from_array(np.array([1, 2, -1]), "to")
        assert self.leftovers(tmp_path, norm, 15, shape, initializers=[kept, to]) == []
        assert self.leftovers(tmp_path, norm, 15, helper.make_node("Constant", [], ["r"], value=kept)) == []
        of_input = helper.make_node("Mul", ["x", "w"], ["r"])
        drawn = helper.make_node("RandomNormal", [], ["r"], shape=[1, 2, 3])
        for maker in (of_input, drawn):
            assert self.leftovers(tmp_path, norm, 15, maker, initializers=[kept]) == ["training_mode is 1"]
        for maker, status in ((shape, Status.PASSED), (of_input, Status.FAILED), (drawn, Status.FAILED)):
            graph = helper.make_graph([maker, norm], "net", [value("x")], [value("y")], [kept, to])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
            assert inference_mode(model).status is status

    def test_inside_a_subgraph_with_its_place(self, tmp_path: Path) -> None:
        inner = helper.make_node(
            "BatchNormalization", ["x", "s", "b", "m", "v"], ["t"], name="bn", training_mode=1
        )
        branch = helper.make_graph([inner], "then", [], [value("t")])
        node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
        places = [leftover.node for leftover in scan(model_of([node]), tmp_path).leftovers]
        assert sorted(places) == ["choice/else_branch/bn", "choice/then_branch/bn"]

    def test_a_training_algorithm(self, tmp_path: Path) -> None:
        model = small_model()
        model.training_info.add()
        assert [leftover.node for leftover in scan(model, tmp_path).leftovers] == ["training_info"]


class TestExternal:
    def model(self, location: str, shape: tuple[int, ...] = (2, 3), length: int = 24) -> onnx.ModelProto:
        tensor = TensorProto(name="w", data_type=FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, entry in (("location", location), ("offset", "8"), ("length", str(length))):
            tensor.external_data.add(key=key, value=entry)
        return model_of([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor])

    def test_present(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(bytes(32))
        summary = scan(self.model("w.data"), tmp_path)
        (file,) = summary.external
        assert (file.location, file.tensors, file.needed, file.size, file.problem) == (
            "w.data",
            1,
            32,
            32,
            "",
        )
        assert summary.initializers.total.bytes == 24
        require_loadable(summary, 1000)

    @pytest.mark.parametrize(
        ("location", "problem"),
        [
            ("gone.data", "missing"),
            ("short.data", "too short"),
            ("/etc/hostname", "absolute"),
            ("C:\\w.data", "absolute"),
            ("../w.data", "leaves"),
            ("a/../../w", "leaves"),
            ("a\0b", "missing"),
        ],
    )
    def test_unusable(self, tmp_path: Path, location: str, problem: str) -> None:
        (tmp_path / "short.data").write_bytes(bytes(31))
        summary = scan(self.model(location), tmp_path)
        assert problem in summary.external[0].problem
        with pytest.raises(RefusedError, match="external data") as caught:
            require_loadable(summary, 1000)
        assert problem in caught.value.seen

    def test_contradictions_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "w.data").write_bytes(bytes(99))
        assert "takes 24 bytes" in scan(self.model("w.data", length=20), tmp_path).problems[0]
        assert "unusable" in scan(self.model("", length=24), tmp_path).problems[0]
        lying = TensorProto(name="w", data_type=FLOAT, dims=[4], raw_data=b"12345678")
        assert "takes 16 bytes and holds 8" in scan(model_of([], initializers=[lying]), tmp_path).problems[0]
        empty = TensorProto(name="w", data_type=FLOAT, dims=[4])
        assert "has no data" in scan(model_of([], initializers=[empty]), tmp_path).problems[0]


def test_a_file_beyond_protobuf_is_refused_with_the_remedy(tmp_path: Path) -> None:
    summary = scan(small_model(), tmp_path)
    require_loadable(summary, PROTOBUF_LIMIT - 1)
    with pytest.raises(RefusedError, match="2 GiB") as caught:
        require_loadable(summary, PROTOBUF_LIMIT)
    assert "save_as_external_data=True" in caught.value.next
    assert caught.value.exit_code == 3


def test_the_scan_imports_nothing_heavy() -> None:
    code = (
        "import sys, mnnprep.formats.onnx.scan; print(sorted({'onnx', 'onnx_ir', 'numpy', 'torch'} &"
        " set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(mnnprep.__file__).parent.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.strip() == "[]"
