"""Operators that write or read files: told from the protobuf, wherever a node stands, before TensorFlow
imports the graph.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flatbuffers
import pytest

from evaluation.nets.tf_models import QUIET, needs_tensorflow
from mnnprep.commands.check import check_file
from mnnprep.commands.inspect import inspect_file
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import operators
from mnnprep.formats.tflite import scan
from mnnprep.formats.tflite.net import refuse_unsupported
from mnnprep.formats.tflite.scan import scan_model
from mnnprep.wire.protobuf import delimited

FILES = frozenset(
    word
    for line in (
        "WriteFile ReadFile MatchingFiles Save SaveV2 SaveSlices Restore RestoreSlice RestoreV2",
        (
            "MergeV2Checkpoints PrintV2 Print PyFunc EagerPyFunc PyFuncStateless TFRecordReaderV2"
            " TFRecordDataset"
        ),
        "TextLineDataset FixedLengthRecordDatasetV2 WholeFileReaderV2 SqlDataset LMDBDataset",
        "SnapshotDatasetV2 SaveDataset LoadDataset CacheDatasetV2 DatasetFromGraph DatasetToTFRecord",
        "InitializeTableFromTextFileV2 InitializeTableFromDataset ImmutableConst DecodeProtoV2 EncodeProto",
        "DebugIdentity DebugIdentityV2 DumpTensor CreateSummaryFileWriter WriteSummary WriteScalarSummary",
        "SummaryWriter ImportEvent LoadAndRemapMatrix Skipgram GenerateVocabRemapping",
        "FixedUnigramCandidateSampler CalibrationStatisticsSaver FileSystemSetConfiguration QueueDequeueV2",
        "FIFOQueueV2 Send Recv _Send _Recv RpcCall RpcServer RemoteCall XlaCustomCallV2 XlaCallModule",
        "XlaHostCompute TPUExecute TPUPartitionedCall ConfigureDistributedTPU DataServiceDatasetV4",
        "DistributedSave RecordInput Abort",
    )
    for word in line.split()
)


def test_no_operator_that_reaches_out_is_in_the_list() -> None:
    assert not FILES & operators.ALLOWED
    assert not operators.EAGER & operators.ALLOWED


def in_tensorflow(code: str, directory: Path) -> object:
    """What *code* gives to ``answer``, run beside TensorFlow in *directory*."""
    head = (
        "import json, sys\nimport tensorflow as tf\nfrom mnnprep.formats.tensorflow import effects\nv1 ="
        " tf.compat.v1\n"
    )
    tail = "\nopen('answer.json', 'w').write(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", head + code + tail],
        env=os.environ | QUIET,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((directory / "answer.json").read_text())


REGISTRY = """
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session as session
listed = op_def_pb2.OpList()
listed.ParseFromString(session.TF_GetBuffer(session.TF_GetAllOpList()))
answer = {o.name: o.is_stateful for o in listed.op}
"""


@needs_tensorflow
def test_the_lists_are_those_of_the_installed_registry(tmp_path: Path) -> None:
    stateful = in_tensorflow(REGISTRY, tmp_path)
    assert isinstance(stateful, dict)
    assert stateful.keys() >= operators.ALLOWED
    assert [name for name in operators.STATELESS if stateful[name]] == []
    assert [name for name in operators.COMPUTING if not stateful[name]] == []
    assert [name for name in operators.EAGER if stateful[name]] == []
    assert stateful.keys() >= FILES


def node(name: str, op: str, *inputs: str) -> bytes:
    """A NodeDef in a GraphDef."""
    body = (
        delimited(1, name.encode())
        + delimited(2, op.encode())
        + b"".join(delimited(3, i.encode()) for i in inputs)
    )
    return delimited(1, body)


def test_inspect_and_check_name_the_same_operators(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(
        node("x", "Placeholder") + node("w", "WriteFile", "x", "x") + node("y", "Relu", "x", "^w")
    )
    assert any("WriteFile w" in warning and "--trust" in warning for warning in inspect_file(path).warnings)
    hazards = [h.operator for h in check_file(path).hazards if h.rule == "side-effect"]
    assert hazards == ["WriteFile"]


@pytest.mark.parametrize(
    "operator",
    [
        "CUSTOM:FlexWriteFile",
        "CUSTOM:Own",
        "DELEGATE",
        "STABLEHLO_CUSTOM_CALL",
        "BUILTIN_999",
        "CALL_ONCE",
        "VAR_HANDLE",
        "HASHTABLE",
    ],
)
def test_tflite_runs_its_own_kernels_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operator: str
) -> None:
    builder = flatbuffers.Builder(0)
    (tmp_path / "model.tflite").write_bytes(one_operator(builder))
    assert scan_model(tmp_path / "model.tflite").custom == ()
    monkeypatch.setattr(scan, "_operator", lambda code: operator)
    with pytest.raises(RefusedError, match=r"does not define|keeps state"):
        refuse_unsupported(tmp_path / "model.tflite")


def one_operator(builder: Any) -> bytes:
    """A model whose one operator is ADD, without tensors (schema.fbs: Model, OperatorCode, SubGraph,
    Operator).
    """

    def vector(offsets: list[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def table(slots: int, **values: int) -> int:
        builder.StartObject(slots)
        for slot, value in values.items():
            builder.PrependUOffsetTRelativeSlot(int(slot[1:]), value, 0)
        return int(builder.EndObject())

    codes, operators_ = vector([table(4)]), vector([table(3)])
    graphs = vector([table(5, _3=operators_)])
    builder.Finish(table(8, _1=codes, _2=graphs), file_identifier=b"TFL3")
    return bytes(builder.Output())


GRAPHS = """
answer = {}

def graph_of(build):
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [2], name="x")
        y = tf.identity(tf.nn.relu(build(x)), name="y")
        return graph.as_graph_def()

def write(x):
    return tf.io.write_file("canary", "x")

def by_control(x):
    with tf.control_dependencies([write(x)]):
        return x + 1

@tf.function
def called(x):
    write(x)
    return x * 2

def branch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: by_control(x), lambda: x)

def loop(x):
    return tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, called(x)), [0, x])[1]

def nested(x):
    return tf.function(lambda x: tf.function(called)(x))(x)

def beside(x):
    write(x)
    return x

def read(x):
    return x + tf.strings.to_number(tf.io.read_file("/etc/passwd"))

builds = dict(by_control=by_control, called=called, branch=branch, loop=loop)
for name, build in (builds | dict(nested=nested, beside=beside, read=read)).items():
    graph = graph_of(build)
    answer[name] = sorted(set(effects.of_graph(graph, ["y"])))
    answer[name + " whole"] = len(list(effects.of_graph(graph)))

graph = graph_of(lambda x: x)  # an operator that is a function of the graph, under the name of a harmless one
graph.library.CopyFrom(graph_of(called).library)
function = next(f for f in graph.library.function if any(n.op == "WriteFile" for n in f.node_def))
function.signature.name = "Relu"
answer["hidden"] = sorted(effects.of_graph(graph, ["y"]))
"""


@needs_tensorflow
def test_a_node_is_judged_if_it_can_run(tmp_path: Path) -> None:
    found = in_tensorflow(GRAPHS, tmp_path)
    assert isinstance(found, dict)
    for name in ("by_control", "called", "branch", "loop", "nested", "hidden"):
        assert [e.partition(" ")[0] for e in found[name]] == ["WriteFile"], name
    assert found["read"] == ["ReadFile ReadFile"]
    assert found["beside"] == []  # nothing that the outputs need
    assert found["beside whole"] == 1
    assert not (tmp_path / "canary").exists()


SAVED = """
from tensorflow.python.saved_model.loader_impl import parse_saved_model

class Net(tf.Module):
    def __init__(self, mode):
        self.mode = mode
        self.scale = tf.Variable(2.0)
        if mode == "table":
            keys, values = tf.constant([1, 2], tf.int64), tf.constant([3, 4], tf.int64)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
        if mode == "asset":
            open("words.txt", "w").write("a\\nb\\n")
            word, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            read = tf.lookup.TextFileInitializer("words.txt", tf.string, word, tf.int64, line)
            self.table = tf.lookup.StaticVocabularyTable(read, 1)

    @tf.function(input_signature=[tf.TensorSpec([2])])
    def run(self, x):
        if self.mode == "write":
            tf.io.write_file("canary", "x")
        if self.mode == "print":
            tf.print("x", output_stream="file://canary")
        if self.mode == "python":
            x = tf.numpy_function(lambda v: v, [x], tf.float32)
        return {"y": x * self.scale}

answer = {}
for mode in ("plain", "table", "asset", "write", "print", "python"):
    net = Net(mode)
    tf.saved_model.save(net, mode, signatures=net.run)
    answer[mode] = effects.of_saved_model(mode)

def changed(name, change):
    saved = parse_saved_model("plain")
    meta = saved.meta_graphs[0]
    change(meta, {n.name: n for n in meta.graph_def.node})
    answer[name] = sorted(set(effects.of_meta_graph(meta)))

def restores(meta, nodes):  # what a loader of TensorFlow 1 would run
    meta.ClearField("object_graph_def")
    node = meta.graph_def.node.add(name="w", op="WriteFile")
    nodes[meta.saver_def.restore_op_name].input.append("^w")

def restores_within(meta, nodes):
    name = nodes[meta.saver_def.restore_op_name].attr["f"].func.name
    function = next(f for f in meta.graph_def.library.function if f.signature.name == name)
    function.node_def.add(name="w", op="WriteFile")

def restores_another(meta, nodes):
    other = meta.graph_def.node.add(name="other", op="Const")
    call = nodes[meta.saver_def.restore_op_name]
    call.input[0] = "other"

def initializes(meta, nodes):
    meta.graph_def.node.add(name="w", op="WriteFile")
    meta.collection_def["saved_model_main_op"].node_list.value.append("w")

def named(meta, nodes):  # a function of the saver alone, which an object calls
    name = nodes[meta.saver_def.restore_op_name].attr["f"].func.name
    meta.object_graph_def.nodes.add().function.concrete_functions.append(name)

def swapped(meta, nodes):
    meta.ClearField("object_graph_def")
    function = meta.graph_def.library.function.add()
    function.signature.name = "f"
    function.attr["api_implements"].s = b"x"
    function.node_def.add(name="w", op="WriteFile")

def evaluated(meta, nodes):
    meta.graph_def.node.add(name="r", op="ReadFile")

for change in (restores, restores_within, restores_another, initializes, named, swapped, evaluated):
    changed(change.__name__, change)
"""


@needs_tensorflow
def test_what_loading_or_running_a_saved_model_may_do(tmp_path: Path) -> None:
    found = in_tensorflow(SAVED, tmp_path)
    assert isinstance(found, dict)
    assert found["plain"] == found["table"] == []
    first = {name: {e.partition(" ")[0] for e in effects} for name, effects in found.items()}
    assert first["write"] == {"WriteFile"}
    assert first["print"] == {"PrintV2"}
    assert first["python"] <= {"PyFunc", "EagerPyFunc"}
    assert first["asset"] == {"InitializeTableFromTextFileV2"}
    for name in ("restores", "restores_within", "initializes", "swapped"):
        assert first[name] == {"WriteFile"}, name
    assert first["restores_another"] == {"RestoreV2"}
    assert "RestoreV2" in first["named"]
    assert first["evaluated"] == {"ReadFile"}
    assert not (tmp_path / "canary").exists()
