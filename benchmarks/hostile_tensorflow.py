"""SavedModels, frozen graphs and TF1 checkpoints whose operators write, read and load; most are messages written by hand."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hostile_case import Canary, field, hostile, relative
from hostile_keras import shared_library

FLOAT, INT32, STRING, INT64, RESOURCE = 1, 3, 7, 9, 20
Node = bytes


def attribute(value: Any) -> bytes:
    """An AttrValue: an int is a dtype, a tuple a shape, a list one of dtypes or shapes, a dict ready-made fields."""
    if isinstance(value, bool):
        return field(5, value)
    if isinstance(value, int):
        return field(6, value)
    if isinstance(value, str | bytes):
        return field(2, value)
    if isinstance(value, tuple):
        return field(7, shape(value))
    if isinstance(value, dict):
        return b"".join(field(k, v) for k, v in value.items())
    return field(1, [field(7, shape(v)) if isinstance(v, tuple) else field(6, v) for v in value])


def shape(sizes: Iterable[int]) -> bytes:
    return b"".join(field(2, [field(1, n)]) for n in sizes)


def node(name: str, op: str, inputs: Iterable[str] = (), **attributes: Any) -> Node:
    entries = [field(5, [field(1, k), field(2, attribute(v))]) for k, v in attributes.items()]
    return field(1, name) + field(2, op) + b"".join(field(3, i) for i in inputs) + b"".join(entries)


def text(name: str, *values: str) -> Node:
    """A constant of strings; of one, a scalar."""
    sizes = () if len(values) == 1 else (len(values),)
    tensor = field(1, STRING) + field(2, shape(sizes)) + b"".join(field(8, v) for v in values)
    return node(name, "Const", dtype=STRING, value={8: tensor})


def vector(name: str, *values: str) -> Node:
    return node(name, "Const", dtype=STRING, value={8: field(1, STRING) + field(2, shape((len(values),))) + b"".join(field(8, v) for v in values)})


def number(name: str, value: int, dtype: int = INT32) -> Node:
    packed = struct.pack("<i" if dtype == INT32 else "<q", value)
    return node(name, "Const", dtype=dtype, value={8: field(1, dtype) + field(2, b"") + field(4, packed)})


def numbers(name: str, *values: int) -> Node:
    packed = struct.pack(f"<{len(values)}i", *values)
    return node(name, "Const", dtype=INT32, value={8: field(1, INT32) + field(2, shape((len(values),))) + field(4, packed)})


PLACEHOLDER = node("x", "Placeholder", dtype=FLOAT, shape=(1, 16))


def after(*controls: str) -> list[Node]:
    """y = x + 0, behind *controls*."""
    return [node("y", "Identity", ["x", *(f"^{c}" for c in controls)], T=FLOAT)]


def added(value: str) -> list[Node]:
    """y = *value* + 0 x: it depends on the input, and is the value."""
    zero = node("zero", "Const", dtype=FLOAT, value={8: field(1, FLOAT) + field(2, b"") + field(5, struct.pack("<f", 0))})
    return [zero, node("none", "Mul", ["x", "zero"], T=FLOAT), node("y", "AddV2", ["none", value], T=FLOAT)]


def decoded(value: str) -> list[Node]:
    """y = the bytes of the string *value*, as float32."""
    return [node("decoded", "DecodeRaw", [value], out_type=FLOAT, little_endian=True), *added("decoded")]


def graph_bytes(nodes: Iterable[Node], library: bytes = b"") -> bytes:
    return b"".join(field(1, n) for n in nodes) + (field(2, library) if library else b"") + field(4, [field(1, 1882)])


def graph(canary: Canary, nodes: Iterable[Node], library: bytes = b"") -> Path:
    path = canary.model / "model.pb"
    path.write_bytes(graph_bytes(nodes, library))
    return path


def saved_model(canary: Canary, nodes: Iterable[Node], library: bytes = b"", collections: bytes = b"", assets: bytes = b"") -> Path:
    """A SavedModel as TensorFlow 1 wrote it, without variables."""

    def info(name: str) -> bytes:
        return field(1, f"{name}:0") + field(2, FLOAT) + field(3, shape((1, 16)))

    signature = (
        field(1, [field(1, "x"), field(2, info("x"))]) + field(2, [field(1, "y"), field(2, info("y"))]) + field(3, "tensorflow/serving/predict")
    )
    meta = field(1, [field(4, "serve"), field(5, "2.15.0")]) + field(2, graph_bytes(nodes, library)) + collections
    meta += field(5, [field(1, "serving_default"), field(2, signature)]) + assets
    (canary.model / "saved").mkdir()
    (canary.model / "saved" / "saved_model.pb").write_bytes(field(1, 1) + field(2, meta))
    return canary.model / "saved"


def looked_up(*controls: str) -> list[Node]:
    """y = the first letters of the first line of the file that the tensor f names, by a table that the operator init fills."""
    after = [f"^{c}" for c in controls]
    return [
        node("tb", "HashTableV2", key_dtype=INT64, value_dtype=STRING, shared_name="tb"),
        node("init", "InitializeTableFromTextFileV2", ["tb", "f"], key_index={3: -1}, value_index={3: -2}, vocab_size={3: -1}),
        number("k", 0, INT64), text("z", ""), node("look", "LookupTableFindV2", ["tb", "k", "z", *after], Tin=INT64, Tout=STRING),
        node("dr", "DecodeRaw", ["look"], out_type=4, little_endian=True), node("cu", "Cast", ["dr"], SrcT=4, DstT=FLOAT),
        numbers("b", 0), numbers("e", 16), node("sl", "Slice", ["cu", "b", "e"], T=FLOAT, Index=INT32), *added("sl"),
    ]  # fmt: skip


Make = Callable[[Canary], list[Node]]
EFFECTS: dict[str, tuple[str, Make]] = {
    "write-file": ("WriteFile behind an output", lambda c: [text("f", c.written), text("t", "x"), node("w", "WriteFile", ["f", "t"]), *after("w")]),
    "read-file": ("ReadFile of the secret into an output", lambda c: [text("f", c.secret), node("r", "ReadFile", ["f"]), *decoded("r")]),
    "matching-files": ("MatchingFiles, and ReadFile of what it finds", lambda c: [text("f", f"{c.secrets}/*.bin"), node("m", "MatchingFiles", ["f"]), numbers("z", 0),
        node("n", "Reshape", ["m", "e"], T=STRING, Tshape=INT32), node("e", "Const", dtype=INT32, value={8: field(1, INT32) + field(2, shape((0,)))}),
        node("r", "ReadFile", ["n"]), *decoded("r")]),
    "save-v2": ("SaveV2 to another place", lambda c: [text("f", c.written), vector("n", "a"), vector("s", ""), node("w", "SaveV2", ["f", "n", "s", "x"], dtypes=[FLOAT]), *after("w")]),
    "save": ("Save, the old operator", lambda c: [text("f", c.written), vector("n", "a"), node("w", "Save", ["f", "n", "x"], T=[FLOAT]), *after("w")]),
    "print": ("PrintV2 to a file", lambda c: [text("t", "x"), node("w", "PrintV2", ["t"], output_stream=f"file://{c.written}"), *after("w")]),
    "read-record": ("a FixedLengthRecordReader over the secret", lambda c: [node("q", "FIFOQueueV2", component_types=[STRING]), vector("f", c.secret),
        node("rd", "FixedLengthRecordReaderV2", record_bytes={3: 64}), node("eq", "QueueEnqueueManyV2", ["q", "f"], Tcomponents=[STRING]),
        node("rr", "ReaderReadV2", ["rd", "q", "^eq"]), *decoded("rr:1")]),
    "whole-file": ("a WholeFileReader over the secret", lambda c: [node("q", "FIFOQueueV2", component_types=[STRING]), vector("f", c.secret),
        node("rd", "WholeFileReaderV2"), node("eq", "QueueEnqueueManyV2", ["q", "f"], Tcomponents=[STRING]),
        node("rr", "ReaderReadV2", ["rd", "q", "^eq"]), *decoded("rr:1")]),
    "dataset": ("a FixedLengthRecordDataset over the secret", lambda c: [vector("f", c.secret), number("h", 0, INT64), number("r", 64, INT64), number("b", 0, INT64),
        node("d", "FixedLengthRecordDataset", ["f", "h", "r", "h", "b"]), node("it", "OneShotIterator", dataset_factory={10: field(1, "none")}, output_types=[STRING], output_shapes=[()]),
        node("u", "DatasetToSingleElement", ["d"], output_types=[STRING], output_shapes=[()]), *decoded("u")]),
    "text-dataset": ("a TextLineDataset over the secret", lambda c: [vector("f", c.secret_text), text("z", ""), number("b", 0, INT64), node("d", "TextLineDataset", ["f", "z", "b"]),
        node("u", "DatasetToSingleElement", ["d"], output_types=[STRING], output_shapes=[()]), node("dr", "DecodeRaw", ["u"], out_type=4, little_endian=True),
        node("cu", "Cast", ["dr"], SrcT=4, DstT=FLOAT), node("s", "Sum", ["cu", "ax"], T=FLOAT, Tidx=INT32), numbers("ax", 0), *added("s")]),
    "table": ("a lookup table made from the secret", lambda c: [text("f", c.secret_text), *looked_up("init")]),
    "restore": ("RestoreV2 of a checkpoint outside", lambda c: [text("f", str(c.secrets / "ckpt")), vector("n", "w"), vector("s", ""),
        node("w", "RestoreV2", ["f", "n", "s"], dtypes=[FLOAT]), *added("w")]),
    "py-func": ("PyFunc with a token", lambda c: [node("p", "PyFunc", ["x"], token="pyfunc_0", Tin=[FLOAT], Tout=[FLOAT]), *added("p")]),
    "eager-py-func": ("EagerPyFunc with a token", lambda c: [node("p", "EagerPyFunc", ["x"], token="pyfunc_0", Tin=[FLOAT], Tout=[FLOAT]), *added("p")]),
    "dump-graph": ("a DebugIdentity that dumps to a file", lambda c: [node("p", "DebugIdentityV2", ["x"], T=FLOAT, debug_urls={1: field(2, f"file://{c.written}")}), *added("p")]),
    "summary-writer": ("a summary writer in another directory", lambda c: [text("f", f"{c.written}-events"), number("q", 1), number("m", 1), text("sf", ".v2"),
        node("sw", "SummaryWriter", shared_name="s", container=""), node("w", "CreateSummaryFileWriter", ["sw", "f", "q", "m", "sf"]), *after("w")]),
    "merge-checkpoints": ("MergeV2Checkpoints, which deletes what it merges", lambda c: [vector("f", str(c.secrets / "ckpt")), text("t", c.written),
        node("w", "MergeV2Checkpoints", ["f", "t"], delete_old_dirs=True), *after("w")]),
    "sharded-cache": ("a CacheDataset that writes a file", lambda c: [number("a", 0, INT64), number("b", 1, INT64), node("d", "RangeDataset", ["a", "b", "b"], output_types=[INT64], output_shapes=[()]),
        text("f", c.written), node("cd", "CacheDataset", ["d", "f"], output_types=[INT64], output_shapes=[()]),
        node("u", "DatasetToSingleElement", ["cd"], output_types=[INT64], output_shapes=[()]), *after("u")]),
    "lmdb": ("an LMDB reader", lambda c: [node("rd", "LMDBReader"), *after("rd")]),
    "remote-call": ("a server and a call to it", lambda c: [text("a", "localhost:9"), node("rc", "RpcClient", ["a"], shared_name=""), *after("rc")]),
    "xla-launch": ("a custom call by XLA", lambda c: [node("p", "XlaCustomCallV2", ["x"], call_target_name="system", backend_config=c.shell, has_side_effect=True,
        operand_dtypes=[FLOAT], result_dtypes=[FLOAT], result_shapes=[(1, 16)]), *added("p")]),
    "unknown": ("an operator that no library has", lambda c: [node("p", "EvilOp", ["x"]), *added("p")]),
}  # fmt: skip
FIRES = (
    "write-file",
    "read-file",
    "matching-files",
    "save-v2",
    "save",
    "print",
    "read-record",
    "whole-file",
    "dataset",
    "table",
    "dump-graph",
    "summary-writer",
    "sharded-cache",
)


def checkpoint(canary: Canary) -> None:
    """A TensorFlow checkpoint of the secret, for graphs that restore it."""
    from tensorflow.compat.v1 import raw_ops  # type: ignore[import-not-found]

    values = struct.unpack("<16f", canary.token)
    raw_ops.SaveV2(prefix=str(canary.secrets / "ckpt"), tensor_names=["w"], shape_and_slices=[""], tensors=[list(values)])


for _name, (_tries, _make) in EFFECTS.items():
    _control = _name in FIRES

    @hostile("frozen-graph", "effects", _name, _tries, control="graph" if _control else "")
    def _(canary: Canary, name: str = _name, make: Make = _make) -> Path:
        if name in ("restore", "merge-checkpoints"):
            checkpoint(canary)
        return graph(canary, [PLACEHOLDER, *make(canary)])

    @hostile("savedmodel", "effects", _name, _tries, control="savedmodel" if _control else "")
    def _(canary: Canary, name: str = _name, make: Make = _make) -> Path:
        if name in ("restore", "merge-checkpoints"):
            checkpoint(canary)
        return saved_model(canary, [PLACEHOLDER, *make(canary)])


def function_library(canary: Canary) -> bytes:
    """A function ``f`` from x to x that writes a file on its way."""
    signature = field(1, "f") + field(2, [field(1, "a"), field(3, FLOAT)]) + field(3, [field(1, "b"), field(3, FLOAT)]) + field(17, 1)
    body = [
        text("f", canary.written),
        text("t", "x"),
        node("w", "WriteFile", ["f:output:0", "t:output:0"]),
        node("i", "Identity", ["a", "^w"], T=FLOAT),
    ]
    return field(
        1,
        [
            field(1, signature),
            *(field(3, n) for n in body),
            field(4, [field(1, "b"), field(2, "i:output:0")]),
            field(6, [field(1, "w"), field(2, "w")]),
        ],
    )


for _op in ("PartitionedCall", "StatefulPartitionedCall"):

    @hostile("frozen-graph", "functions", _op.lower(), f"WriteFile in a function that {_op} calls", control="graph")
    def _(canary: Canary, op: str = _op) -> Path:
        call = node("p", op, ["x"], Tin=[FLOAT], Tout=[FLOAT], f={10: field(1, "f")})
        return graph(canary, [PLACEHOLDER, call, *added("p")], function_library(canary))

    @hostile("savedmodel", "functions", _op.lower(), f"WriteFile in a function that {_op} calls", control="savedmodel")
    def _(canary: Canary, op: str = _op) -> Path:
        call = node("p", op, ["x"], Tin=[FLOAT], Tout=[FLOAT], f={10: field(1, "f")})
        return saved_model(canary, [PLACEHOLDER, call, *added("p")], function_library(canary))


@hostile("frozen-graph", "functions", "direct-call", "a node whose operator is a function of the library that writes", control="graph")
def _(canary: Canary) -> Path:
    return graph(canary, [PLACEHOLDER, node("p", "f", ["x"]), *added("p")], function_library(canary))


@hostile("frozen-graph", "functions", "hidden-branch", "WriteFile in a branch of If", control="graph")
def _(canary: Canary) -> Path:
    flag = node("c", "Const", dtype=10, value={8: field(1, 10) + field(2, b"") + field(11, 1)})
    branch = {10: field(1, "f")}
    call = node("p", "If", ["c", "x"], Tcond=10, Tin=[FLOAT], Tout=[FLOAT], then_branch=branch, else_branch=branch, output_shapes=[(1, 16)])
    return graph(canary, [PLACEHOLDER, flag, call, *added("p")], function_library(canary))


@hostile("frozen-graph", "functions", "dead-function", "WriteFile in a function that nothing calls")
def _(canary: Canary) -> Path:
    return graph(canary, [PLACEHOLDER, *after()], function_library(canary))


@hostile("frozen-graph", "functions", "gradient", "a gradient function that hides a writer behind a harmless one")
def _(canary: Canary) -> Path:
    library = function_library(canary) + field(2, [field(1, "Relu"), field(2, "f")])
    return graph(
        canary,
        [PLACEHOLDER, node("p", "SymbolicGradient", ["x", "x"], Tin=[FLOAT, FLOAT], Tout=[FLOAT], f={10: field(1, "f")}), *added("p")],
        library,
    )


def collection(name: str, *nodes: str) -> bytes:
    return field(4, [field(1, name), field(2, [field(1, [field(1, n) for n in nodes])])])


for _key in ("saved_model_main_op", "legacy_init_op"):

    @hostile("savedmodel", "init", _key, "an operation that loading runs, and that writes", control="savedmodel")
    def _(canary: Canary, key: str = _key) -> Path:
        nodes = [PLACEHOLDER, text("f", canary.written), text("t", "x"), node("init", "WriteFile", ["f", "t"]), *after()]
        return saved_model(canary, nodes, collections=collection(key, "init"))


@hostile("savedmodel", "init", "table-initializer", "a table initializer that writes", control="savedmodel")
def _(canary: Canary) -> Path:
    nodes = [PLACEHOLDER, text("f", canary.written), text("t", "x"), node("init", "WriteFile", ["f", "t"]), *after()]
    return saved_model(canary, nodes, collections=collection("table_initializer", "init"))


def asset(canary: Canary, name: str) -> Path:
    """A SavedModel that reads an asset of this name into its output."""
    info = field(1, [field(1, "f:0")]) + field(2, name)
    any_info = field(1, "type.googleapis.com/tensorflow.AssetFileDef") + field(2, info)
    collections = field(4, [field(1, "saved_model_assets"), field(2, [field(5, [field(1, any_info)])])])
    nodes = [PLACEHOLDER, text("f", "none"), *looked_up()]
    return saved_model(canary, nodes, collections=collections + collection("saved_model_main_op", "init"), assets=field(6, info))


@hostile("savedmodel", "assets", "parent", "an asset with .. in its name, read into an output", control="savedmodel")
def _(canary: Canary) -> Path:
    return asset(canary, relative(canary.secret_text, canary.model / "saved" / "assets"))


@hostile("savedmodel", "assets", "absolute", "an asset with an absolute name, read into an output", control="savedmodel")
def _(canary: Canary) -> Path:
    return asset(canary, canary.secret_text)


@hostile("savedmodel", "assets", "symlink", "an asset that is a link to the secret, read into an output", control="savedmodel")
def _(canary: Canary) -> Path:
    made = asset(canary, "a.txt")
    (made / "assets").mkdir()
    os.symlink(canary.secret_text, made / "assets" / "a.txt")
    return made


@hostile("savedmodel", "assets", "extra-symlink", "variables that are a link to the secrets")
def _(canary: Canary) -> Path:
    made = saved_model(canary, [PLACEHOLDER, *after()])
    checkpoint(canary)
    (made / "variables").mkdir()
    for end in ("index", "data-00000-of-00001"):
        os.symlink(canary.secrets / f"ckpt.{end}", made / "variables" / f"variables.{end}")
    return made


@hostile("savedmodel", "init", "tf2-initialize", "a resource of a TF2 SavedModel whose initializer writes when it is loaded", control="savedmodel")
def _(canary: Canary) -> Path:
    return _tf2(canary, "initialize")


@hostile("savedmodel", "init", "tf2-restore", "a restore function of a TF2 object that writes when it is loaded", control="savedmodel")
def _(canary: Canary) -> Path:
    return _tf2(canary, "restore")


@hostile("savedmodel", "effects", "tf2-function", "a TF2 SavedModel whose signature writes", control="savedmodel")
def _(canary: Canary) -> Path:
    return _tf2(canary, "function")


@hostile("savedmodel", "effects", "tf2-read", "a TF2 SavedModel whose signature reads the secret", control="savedmodel")
def _(canary: Canary) -> Path:
    return _tf2(canary, "read")


@hostile("savedmodel", "assets", "tf2-asset", "a TF2 SavedModel with a tracked asset whose name was changed to the secret's", control="savedmodel")
def _(canary: Canary) -> Path:
    (canary.root / "vocabulary.txt").write_text("a" * 64)
    made = _tf2(canary, "asset")
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # type: ignore[import-not-found]

    saved = SavedModel.FromString((made / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].asset_file_def[0].filename = relative(canary.secret, made / "assets")
    (made / "saved_model.pb").write_bytes(saved.SerializeToString())
    return made


def _tf2(canary: Canary, kind: str) -> Path:
    import tensorflow as tf  # type: ignore[import-not-found]

    class Writer(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc, name-defined]
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file(canary.written, "x")

        def _serialize_to_tensors(self) -> dict[str, Any]:
            return {"a": tf.constant(1.0)}

        def _restore_from_tensors(self, restored: dict[str, Any]) -> Any:
            return tf.io.write_file(canary.written, tf.strings.as_string(restored["a"]))

    made = tf.Module()
    if kind in ("initialize", "restore"):
        made.held = Writer()
        assert made.held.resource_handle is not None
    if kind == "asset":
        made.held = tf.saved_model.Asset(str(canary.root / "vocabulary.txt"))

    def call(x: Any) -> dict[str, Any]:
        if kind == "function":
            tf.io.write_file(canary.written, "x")
        if kind in ("read", "asset"):
            name = made.held.asset_path if kind == "asset" else canary.secret
            return {"y": 0 * x + tf.io.decode_raw(tf.io.read_file(name), tf.float32)}
        if kind == "initialize":
            with tf.control_dependencies([tf.raw_ops.LookupTableSizeV2(table_handle=made.held.resource_handle)]):
                return {"y": tf.identity(x)}
        return {"y": tf.identity(x)}

    made.f = tf.function(call, input_signature=[tf.TensorSpec([1, 16], tf.float32, name="x")])
    target = canary.model / "saved"
    tf.saved_model.save(made, str(target), signatures={"serving_default": made.f})
    Path(canary.written).unlink(missing_ok=True)
    return target


@hostile("tf-checkpoint", "effects", "write-on-restore", "a meta graph whose restore operation writes", extra=("--outputs", "y"))
def _(canary: Canary) -> Path:
    checkpoint(canary)
    for end in ("index", "data-00000-of-00001"):
        (canary.secrets / f"ckpt.{end}").rename(canary.model / f"net.{end}")
    saver = field(1, "f:0") + field(2, "f:0") + field(3, "init")
    nodes = [PLACEHOLDER, text("f", canary.written), text("t", "x"), node("init", "WriteFile", ["f", "t"]), *after()]
    path = canary.model / "net.meta"
    path.write_bytes(field(1, [field(4, "train")]) + field(2, graph_bytes(nodes)) + field(3, saver))
    return path


@hostile("tf-checkpoint", "effects", "linked", "a checkpoint whose index and data are links to the secrets", extra=("--outputs", "y"))
def _(canary: Canary) -> Path:
    checkpoint(canary)
    for end in ("index", "data-00000-of-00001"):
        os.symlink(canary.secrets / f"ckpt.{end}", canary.model / f"net.{end}")
    saver = field(1, "f:0") + field(2, "f:0") + field(3, "f")
    path = canary.model / "net.meta"
    path.write_bytes(field(1, [field(4, "train")]) + field(2, graph_bytes([PLACEHOLDER, text("f", "x"), *after()])) + field(3, saver))
    return path


def filled(name: str, count: int) -> list[Node]:
    return [numbers(f"{name}_n", count, 16), node(f"{name}_v", "Const", dtype=FLOAT, value={8: field(1, FLOAT) + field(2, b"") + field(5, struct.pack("<f", 1))}),
            node(name, "Fill", [f"{name}_n", f"{name}_v"], T=FLOAT, index_type=INT32)]  # fmt: skip


ODD: dict[str, tuple[str, Make]] = {
    "fill": ("2^34 numbers by Fill", lambda c: [*filled("b", 1 << 30), numbers("ax", 0, 1), node("s", "Sum", ["b", "ax"], T=FLOAT, Tidx=INT32), *added("s")]),
    "const": ("a constant that declares 2^40 numbers", lambda c: [node("b", "Const", dtype=FLOAT, value={8: field(1, FLOAT) + field(2, shape((1 << 20, 1 << 20))) + field(5, struct.pack("<f", 1))}), *added("b")]),
    "cyclic": ("nodes that need each other", lambda c: [node("a", "AddV2", ["x", "b"], T=FLOAT), node("b", "Identity", ["a"], T=FLOAT), *added("b")]),
    "while": ("an endless loop of the first TensorFlow", lambda c: [node("e", "Enter", ["x"], T=FLOAT, frame_name="f"), node("m", "Merge", ["e", "n"], T=FLOAT, N={3: 2}),
        node("t", "Const", ["^m"], dtype=10, value={8: field(1, 10) + field(2, b"") + field(11, 1)}), node("lc", "LoopCond", ["t"]), node("s", "Switch", ["m", "lc"], T=FLOAT),
        node("i", "Identity", ["s:1"], T=FLOAT), node("n", "NextIteration", ["i"], T=FLOAT), node("ex", "Exit", ["s"], T=FLOAT), *added("ex")]),
    "names": ("names that are escapes and a script", lambda c: [node("\x1b[31mred\u202e<script>document.title='executed'</script>", "Relu", ["x"], T=FLOAT), *after()]),
    "device": ("nodes on a device of another machine", lambda c: [node("a", "Relu", ["x"], T=FLOAT) + field(4, "/job:worker/replica:0/task:9/device:GPU:0"), *added("a")]),
    "library": ("a node with the path of a library", lambda c: [node("a", "Relu", ["x"], T=FLOAT, _library=str(shared_library(c))), *added("a")]),
}  # fmt: skip
for _name, (_tries, _make) in ODD.items():

    @hostile("frozen-graph", "odd", _name, _tries)
    def _(canary: Canary, make: Make = _make) -> Path:
        return graph(canary, [PLACEHOLDER, *make(canary)])
