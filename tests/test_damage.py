"""What a stranger wrote is read within limits, and what is not as its format says is refused: never a
traceback, never without end.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import onnx
import pytest
from onnx import TensorProto, helper

from evaluation.nets.mnn_models import floats, matmul, node, save
from mnnprep import consolidate
from mnnprep.bundle.manifest import read_manifest
from mnnprep.commands import reading as reading_aside
from mnnprep.commands.check import check_file
from mnnprep.commands.inspect import inspect_file, read_file
from mnnprep.commands.resolve import resolve
from mnnprep.errors import InternalError, RefusedError, SystemFault, UsageError
from mnnprep.formats.onnx.expansion import MAIN, MOST_NODES, Endless, expanded_nodes
from mnnprep.formats.onnx.scan import scan_model
from mnnprep.formats.onnx.sound import require_sound
from mnnprep.formats.tensor_info import MAX_ELEMENTS, element_count
from mnnprep.model.request import Limits, Request
from mnnprep.repair import steps
from mnnprep.repair.table import RULES
from mnnprep.safety.damage import reading
from mnnprep.weights.plan import Tensor
from mnnprep.weights.read import read_state
from mnnprep.wire.protobuf import delimited, encoded
from mnnprep.workers.host import StepFailed
from support.command import call

LAYERS = 60_000
DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    "met",
    [
        IndexError("list index out of range"),
        KeyError("absent"),
        struct.error("unpack requires 4 bytes"),
        RecursionError(),
        ZeroDivisionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        TypeError("int + str"),
        AttributeError("x"),
        AssertionError(),
        OverflowError("too large"),
        OSError("unable to open file (bad object header)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_reader_meets_in_damaged_bytes_is_a_refusal(met: Exception) -> None:
    with pytest.raises(RefusedError) as caught, reading(Path("m.tflite"), "TFLite model"):
        raise met
    assert caught.value.what.startswith("the TFLite model is damaged")
    assert caught.value.seen.startswith(f"m.tflite: {type(met).__name__}")
    assert caught.value.__cause__ is met


def test_the_refusal_names_the_reader_and_not_all_that_the_file_says() -> None:
    with pytest.raises(RefusedError) as caught, reading(Path("m.keras")):
        raise ValueError("\x1b[2J\nsecond " + "x" * 10_000)
    assert "\x1b" not in caught.value.seen
    assert "second" not in caught.value.seen
    with pytest.raises(RefusedError) as caught, reading(Path("m.keras")):
        expanded_nodes({})
    assert caught.value.seen == "m.keras: KeyError: ('', '') (in expansion.expanded_nodes)"


def test_faults_of_ours_and_of_the_system_are_not_called_damage() -> None:
    for met in (NameError("typo"), ImportError("no module"), MemoryError(), UsageError("wrong")):
        with pytest.raises(type(met)), reading(Path("m.onnx")):
            raise met
    for number, kind in ((errno.EMFILE, SystemFault), (errno.EACCES, RefusedError)):
        with pytest.raises(kind) as caught, reading(Path("m.onnx")):
            raise OSError(number, os.strerror(number))
        assert "damaged" not in str(caught.value)


@pytest.fixture(scope="module")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of very many layers, which takes more than a second to read."""
    path = tmp_path_factory.mktemp("long") / "net.prototxt"
    layers = "".join(
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "data" top: "data" }}\n' for i in range(LAYERS)
    )
    path.write_text('input: "data" input_shape { dim: 1 dim: 3 }\n' + layers)
    return path


READERS: dict[str, Callable[[Path, Limits], Any]] = {
    "inspect": lambda path, limits: inspect_file(path, limits=limits),
    "check": lambda path, limits: check_file(path, limits=limits),
    "prepare": lambda path, limits: resolve(Request(source=str(path), limits=limits)),
    "weights": lambda path, limits: reading_aside.kind_aside(path, limits),
}


@pytest.fixture(scope="module")
def long_pickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that puts None on the stack and takes it away, a million times."""
    path = tmp_path_factory.mktemp("long") / "net.pt"
    path.write_bytes(b"\x80\x02" + b"N0" * 1_000_000 + b"N.")
    return path


@pytest.mark.parametrize("write", [False, True])
def test_a_checkpoint_is_read_within_its_limits(long_pickle: Path, tmp_path: Path, write: bool) -> None:
    target = tmp_path / "out.safetensors" if write else None
    with pytest.raises(RefusedError, match=r"took longer than 0\.2 s"):
        consolidate(long_pickle, target, timeout=0.2)
    with pytest.raises(RefusedError, match="took more than 1 MiB"):
        consolidate(long_pickle, target, memory=1 << 20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_reading_ends_with_its_time(long_text: Path, command: str) -> None:
    with pytest.raises(RefusedError, match=r"took longer than 0\.2 s") as caught:
        READERS[command](long_text, Limits(timeout=0.2))
    assert "--timeout 2" in caught.value.next


@pytest.mark.parametrize("command", ["inspect", "prepare"])
def test_reading_ends_with_its_memory(long_text: Path, command: str) -> None:
    long_text.with_suffix(".caffemodel").write_bytes(b"")
    with pytest.raises(RefusedError, match="took more than 1 MiB") as caught:
        READERS[command](long_text, Limits(memory=1 << 20))
    assert "--memory" in caught.value.next


class Fails:
    """A host of which every step fails in one way."""

    def __init__(self, fate: str) -> None:
        self.fate = fate

    def run(self, *_: object, **__: object) -> None:
        raise StepFailed(self.fate, "crashed with SIGSEGV", log="the last words")


def test_a_reader_that_crashes_is_a_refusal_and_one_that_does_not_answer_a_defect() -> None:
    job, path = reading_aside.PathJob.of(Path("/m.h5")), Path("/m.h5")
    with pytest.raises(RefusedError, match="reading the file crashed with SIGSEGV"):
        reading_aside.run_bounded(cast("Any", Fails("crash")), reading_aside.KIND, job, path, Limits())
    with pytest.raises(InternalError):
        reading_aside.run_bounded(cast("Any", Fails("reply")), reading_aside.KIND, job, path, Limits())


def test_the_time_to_read_grows_with_that_of_a_step() -> None:
    for step, read in ((1800.0, 60.0), (30.0, 30.0), (18_000.0, 600.0)):
        assert reading_aside.for_reading(Limits(timeout=step)).timeout == read


def test_limits_are_options_of_what_reads(long_text: Path, long_pickle: Path) -> None:
    for words in (("inspect", long_text), ("check", long_text), ("consolidate", long_pickle, "--dry-run")):
        found = call(*words, "--memory", "1MB", "--json")
        assert (found.code, json.loads(found.out)["error"]["what"]) == (
            3,
            "reading the file took more than 1 MiB",
        )


def test_json_without_end_is_damage(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    header = b'{"a":' + deep
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(RefusedError):
        read_file(tmp_path / "m.safetensors")
    (tmp_path / "manifest.json").write_bytes(b'{"schema":' + deep)
    with pytest.raises(RefusedError, match="could not be read"):
        read_manifest(tmp_path)
    (tmp_path / "m.json").write_bytes(b'{"oplists":' + deep)
    assert call("json", tmp_path / "m.json", "-o", tmp_path / "m.mnn").code == 3


@pytest.mark.parametrize("name", ["a\0b", "x" * 70_000])
def test_a_manifest_names_what_can_be_files(tmp_path: Path, name: str) -> None:
    document = json.loads((DATA / "manifest-proven.json").read_bytes())
    document["artifact"]["files"][0]["path"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert call("verify", tmp_path).code == 3
    with pytest.raises(RefusedError, match="could not be read"):
        read_manifest(tmp_path)


def test_a_checkpoint_whose_reader_fails_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("mnnprep.weights.layouts.read_content", fails)
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"")
    with pytest.raises(RefusedError, match="the checkpoint is damaged"):
        read_state(path)


def graph(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:]),
        opset_imports=opsets,
        functions=functions,
        ir_version=8,
    )


CIRCLE = (
    node("Add", ["x", "b"], ["a"], name="one"),
    node("Relu", ["a"], ["b"], name="two"),
    node("Relu", ["x"], ["y"], name="free"),
)
LATE = helper.make_graph(
    [node("Neg", ["late"], ["z"])], "body", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
)


class TestSound:
    @pytest.mark.parametrize(
        ("nodes", "seen"),
        [
            (CIRCLE, "the nodes form a cycle: Add one; Relu two"),
            ((node("Relu", ["y"], ["y"], name="own"),), "the nodes form a cycle: Relu own"),
            (
                (node("If", ["x"], ["late"], name="choice", then_branch=LATE, else_branch=LATE),),
                "form a cycle: If choice",
            ),
            ((node("Conv", ["x"], ["y"], name="c"),), "Conv c has 1 inputs, but the operator has 2 to 3"),
            ((node("MatMul", ["", "x"], ["y"], name="m"),), "MatMul m lacks its input A"),
            ((node("Relu", ["x"], [], name="r"),), "Relu r has 0 outputs, not 1"),
            ((node("Concat", ["x", "x"], ["y"], name="c"),), "Concat c lacks its attribute axis"),
            (
                (node("Concat", ["x", "x"], ["y"], name="c", axis=1.5),),
                "Concat c has the attribute axis of another type",
            ),
            (
                (node("Resize", ["x", "", "x"], ["y"], name="z", mode=b"l\xff"),),
                "Resize z has bytes that are not text in its attribute mode",
            ),
        ],
    )
    def test_a_graph_that_is_none_is_refused_with_its_nodes(
        self, tmp_path: Path, nodes: tuple[onnx.NodeProto, ...], seen: str
    ) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(graph(*nodes).SerializeToString())
        with pytest.raises(RefusedError, match="ONNX does not allow its graph") as caught:
            steps.check(steps.CheckJob(model=str(path)))
        assert seen in caught.value.seen
        assert "free" not in caught.value.seen

    def test_order_and_operators_that_onnx_does_not_know_are_no_matter(self) -> None:
        import onnx_ir

        unordered = graph(
            node("Relu", ["a"], ["y"]),
            node("Own", [], ["a"], domain="own"),
            node("NotYetAnOperator", ["x"], ["z"]),
        )
        require_sound(onnx_ir.from_proto(unordered), "m.onnx")

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(
            graph(node("Relu", ["x"], ["y"], name="NAME"))
            .SerializeToString()
            .replace(b"NAME", b"\xff\xfe\xfd\xfc")
        )
        with pytest.raises(RefusedError):
            steps.check(steps.CheckJob(model=str(path)))


class TestBlame:
    """Of a rule that fails, ONNX's own checker says whether the model is at fault."""

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def find(view: Any) -> list[Any]:
            raise IndexError("tuple index out of range")

        monkeypatch.setattr(steps, "RULES", (dataclasses.replace(RULES[0], find=find, preparation=False),))

    @pytest.mark.usefixtures("failing")
    def test_a_valid_model_is_not_blamed(self, tmp_path: Path) -> None:
        with pytest.raises(IndexError):
            steps.check(steps.CheckJob(model=str(matmul(tmp_path / "m.onnx"))))

    @pytest.mark.usefixtures("failing")
    def test_an_invalid_one_is(self, tmp_path: Path) -> None:
        path = save(
            tmp_path / "m.onnx",
            [node("Transpose", ["x"], ["y"], perm=[0, 7])],
            [floats("x", 1, 4)],
            [floats("y", 4, 1)],
        )
        with pytest.raises(RefusedError, match="ONNX does not allow its graph"):
            steps.check(steps.CheckJob(model=str(path)))


class TestExpansion:
    def test_functions_count_where_they_are_called(self) -> None:
        calls = {
            MAIN: {("own", "F"): 3, ("", "Relu"): 2},
            ("own", "F"): {("own", "G"): 2},
            ("own", "G"): {("", "Erf"): 1, ("", "Mul"): 1},
        }
        assert expanded_nodes(calls) == 3 * 2 * 2 + 2

    def test_a_function_that_calls_itself_has_no_end(self) -> None:
        with pytest.raises(Endless, match="own::"):
            expanded_nodes(
                {MAIN: {("own", "F"): 1}, ("own", "F"): {("own", "G"): 1}, ("own", "G"): {("own", "F"): 1}}
            )

    def test_functions_that_double_are_refused_before_anything_unfolds_them(self, tmp_path: Path) -> None:
        opsets = [helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]
        functions = [
            helper.make_function(
                "own",
                f"F{i}",
                ["a"],
                ["c"],
                [
                    node(f"F{i + 1}", ["a"], ["b"], domain="own"),
                    node(f"F{i + 1}", ["b"], ["c"], domain="own"),
                ],
                opsets,
            )
            for i in range(30)
        ]
        functions.append(
            helper.make_function("own", "F30", ["a"], ["c"], [node("Relu", ["a"], ["c"])], opsets)
        )
        path = tmp_path / "m.onnx"
        path.write_bytes(
            graph(node("F0", ["x"], ["y"], domain="own"), functions=tuple(functions)).SerializeToString()
        )
        assert scan_model(path).nodes == MOST_NODES + 1
        for command in (["check", path], ["prepare", path, "-o", tmp_path / "out"]):
            found = call(*command)
            assert found.code == 3
            assert "unfold to more nodes" in found.err
        assert any("unfold" in warning for warning in read_file(path).warnings)

    def test_a_recursive_file_is_malformed(self, tmp_path: Path) -> None:
        own = helper.make_function(
            "own", "F", ["a"], ["b"], [node("F", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
        )
        path = tmp_path / "m.onnx"
        path.write_bytes(graph(node("F", ["x"], ["y"], domain="own"), functions=(own,)).SerializeToString())
        with pytest.raises(RefusedError, match="malformed") as caught:
            scan_model(path)
        assert "own::F calls itself" in caught.value.seen


MANY = 100_000  # dimensions, each of 2^62: their product takes minutes


class TestDimensions:
    def test_a_count_of_elements_ends_where_no_tensor_is_larger(self) -> None:
        assert [element_count(shape) for shape in ((), (2, 3), (5, 0, 1 << 62), (-1, 4))] == [1, 6, 0, -4]
        assert element_count((1 << 62,) * MANY) == MAX_ELEMENTS + 1

    def test_dimensions_beyond_all_frameworks_are_refused(self, tmp_path: Path) -> None:
        entry = {"dtype": "F32", "shape": [(1 << 62) - 1] * MANY, "data_offsets": [0, 4]}
        header = json.dumps({"w": entry}).encode()
        (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        sizes = delimited(7, delimited(1, encoded((1 << 62) - 1) * MANY))
        blob = delimited(7, sizes + delimited(5, bytes(4)))
        (tmp_path / "m.caffemodel").write_bytes(
            delimited(100, delimited(1, b"c") + delimited(2, b"Convolution") + blob)
        )
        for name in ("m.safetensors", "m.caffemodel"):
            with pytest.raises(RefusedError, match=r"header|dimensions"):
                read_file(tmp_path / name)
        with pytest.raises(RefusedError, match="more dimensions"):
            Tensor("float32", (1,) * MANY, ())
