"""SavedModels, frozen graphs and TF1 checkpoints whose operators write, read and load; most are messages
written by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from evaluation.hostile.case import Canary, field, hostile, shared_library
from evaluation.hostile.graphdef import (
    FLOAT,
    INT32,
    INT64,
    PLACEHOLDER,
    STRING,
    Node,
    added,
    after,
    decoded,
    graph,
    node,
    number,
    numbers,
    saved_model,
    shape,
    text,
    vector,
)


def looked_up(*controls: str) -> list[Node]:
    """y = the first letters of the first line of the file that the tensor f names, by a table that the
    operator init fills.
    """
    after = [f"^{c}" for c in controls]
    return [
        node("tb", "HashTableV2", key_dtype=INT64, value_dtype=STRING, shared_name="tb"),
        node(
            "init",
            "InitializeTableFromTextFileV2",
            ["tb", "f"],
            key_index={3: -1},
            value_index={3: -2},
            vocab_size={3: -1},
        ),
        number("k", 0, INT64),
        text("z", ""),
        node("look", "LookupTableFindV2", ["tb", "k", "z", *after], Tin=INT64, Tout=STRING),
        node("dr", "DecodeRaw", ["look"], out_type=4, little_endian=True),
        node("cu", "Cast", ["dr"], SrcT=4, DstT=FLOAT),
        numbers("b", 0),
        numbers("e", 16),
        node("sl", "Slice", ["cu", "b", "e"], T=FLOAT, Index=INT32),
        *added("sl"),
    ]


Make = Callable[[Canary], list[Node]]
EFFECTS: dict[str, tuple[str, Make]] = {
    "write-file": (
        "WriteFile behind an output",
        lambda c: [text("f", c.written), text("t", "x"), node("w", "WriteFile", ["f", "t"]), *after("w")],
    ),
    "read-file": (
        "ReadFile of the secret into an output",
        lambda c: [text("f", c.secret), node("r", "ReadFile", ["f"]), *decoded("r")],
    ),
    "matching-files": (
        "MatchingFiles, and ReadFile of what it finds",
        lambda c: [
            text("f", f"{c.secrets}/*.bin"),
            node("m", "MatchingFiles", ["f"]),
            numbers("z", 0),
            node("n", "Reshape", ["m", "e"], T=STRING, Tshape=INT32),
            node("e", "Const", dtype=INT32, value={8: field(1, INT32) + field(2, shape((0,)))}),
            node("r", "ReadFile", ["n"]),
            *decoded("r"),
        ],
    ),
    "save-v2": (
        "SaveV2 to another place",
        lambda c: [
            text("f", c.written),
            vector("n", "a"),
            vector("s", ""),
            node("w", "SaveV2", ["f", "n", "s", "x"], dtypes=[FLOAT]),
            *after("w"),
        ],
    ),
    "save": (
        "Save, the old operator",
        lambda c: [
            text("f", c.written),
            vector("n", "a"),
            node("w", "Save", ["f", "n", "x"], T=[FLOAT]),
            *after("w"),
        ],
    ),
    "print": (
        "PrintV2 to a file",
        lambda c: [
            text("t", "x"),
            node("w", "PrintV2", ["t"], output_stream=f"file://{c.written}"),
            *after("w"),
        ],
    ),
    "read-record": (
        "a FixedLengthRecordReader over the secret",
        lambda c: [
            node("q", "FIFOQueueV2", component_types=[STRING]),
            vector("f", c.secret),
            node("rd", "FixedLengthRecordReaderV2", record_bytes={3: 64}),
            node("eq", "QueueEnqueueManyV2", ["q", "f"], Tcomponents=[STRING]),
            node("rr", "ReaderReadV2", ["rd", "q", "^eq"]),
            *decoded("rr:1"),
        ],
    ),
    "whole-file": (
        "a WholeFileReader over the secret",
        lambda c: [
            node("q", "FIFOQueueV2", component_types=[STRING]),
            vector("f", c.secret),
            node("rd", "WholeFileReaderV2"),
            node("eq", "QueueEnqueueManyV2", ["q", "f"], Tcomponents=[STRING]),
            node("rr", "ReaderReadV2", ["rd", "q", "^eq"]),
            *decoded("rr:1"),
        ],
    ),
    "dataset": (
        "a FixedLengthRecordDataset over the secret",
        lambda c: [
            vector("f", c.secret),
            number("h", 0, INT64),
            number("r", 64, INT64),
            number("b", 0, INT64),
            node("d", "FixedLengthRecordDataset", ["f", "h", "r", "h", "b"]),
            node("u", "DatasetToSingleElement", ["d"], output_types=[STRING], output_shapes=[()]),
            *decoded("u"),
        ],
    ),
    "text-dataset": (
        "a TextLineDataset over the secret",
        lambda c: [
            vector("f", c.secret_text),
            text("z", ""),
            number("b", 0, INT64),
            node("d", "TextLineDataset", ["f", "z", "b"]),
            node("u", "DatasetToSingleElement", ["d"], output_types=[STRING], output_shapes=[()]),
            node("dr", "DecodeRaw", ["u"], out_type=4, little_endian=True),
            node("cu", "Cast", ["dr"], SrcT=4, DstT=FLOAT),
            node("s", "Sum", ["cu", "ax"], T=FLOAT, Tidx=INT32),
            numbers("ax", 0),
            *added("s"),
        ],
    ),
    "table": (
        "a lookup table made from the secret",
        lambda c: [text("f", c.secret_text), *looked_up("init")],
    ),
    "restore": (
        "RestoreV2 of a checkpoint outside",
        lambda c: [
            text("f", str(c.secrets / "ckpt")),
            vector("n", "w"),
            vector("s", ""),
            node("w", "RestoreV2", ["f", "n", "s"], dtypes=[FLOAT]),
            *added("w"),
        ],
    ),
    "py-func": (
        "PyFunc with a token",
        lambda c: [node("p", "PyFunc", ["x"], token="pyfunc_0", Tin=[FLOAT], Tout=[FLOAT]), *added("p")],
    ),
    "eager-py-func": (
        "EagerPyFunc with a token",
        lambda c: [node("p", "EagerPyFunc", ["x"], token="pyfunc_0", Tin=[FLOAT], Tout=[FLOAT]), *added("p")],
    ),
    "dump-graph": (
        "a DebugIdentity that dumps to a file",
        lambda c: [
            node("p", "DebugIdentityV2", ["x"], T=FLOAT, debug_urls={1: field(2, f"file://{c.written}")}),
            *added("p"),
        ],
    ),
    "summary-writer": (
        "a summary writer in another directory",
        lambda c: [
            text("f", f"{c.written}-events"),
            number("q", 1),
            number("m", 1),
            text("sf", ".v2"),
            node("sw", "SummaryWriter", shared_name="s", container=""),
            node("w", "CreateSummaryFileWriter", ["sw", "f", "q", "m", "sf"]),
            *after("w"),
        ],
    ),
    "merge-checkpoints": (
        "MergeV2Checkpoints, which deletes what it merges",
        lambda c: [
            vector("f", str(c.secrets / "ckpt")),
            text("t", c.written),
            node("w", "MergeV2Checkpoints", ["f", "t"], delete_old_dirs=True),
            *after("w"),
        ],
    ),
    "sharded-cache": (
        "a CacheDataset that writes a file",
        lambda c: [
            number("a", 0, INT64),
            number("b", 1, INT64),
            node("d", "RangeDataset", ["a", "b", "b"], output_types=[INT64], output_shapes=[()]),
            text("f", c.written),
            node("cd", "CacheDataset", ["d", "f"], output_types=[INT64], output_shapes=[()]),
            node("u", "DatasetToSingleElement", ["cd"], output_types=[INT64], output_shapes=[()]),
            *after("u"),
        ],
    ),
    "lmdb": ("an LMDB reader", lambda c: [node("rd", "LMDBReader"), *after("rd")]),
    "remote-call": (
        "a server and a call to it",
        lambda c: [text("a", "localhost:9"), node("rc", "RpcClient", ["a"], shared_name=""), *after("rc")],
    ),
    "xla-launch": (
        "a custom call by XLA",
        lambda c: [
            node(
                "p",
                "XlaCustomCallV2",
                ["x"],
                call_target_name="system",
                backend_config=c.shell,
                has_side_effect=True,
                operand_dtypes=[FLOAT],
                result_dtypes=[FLOAT],
                result_shapes=[(1, 16)],
            ),
            *added("p"),
        ],
    ),
    "unknown": ("an operator that no library has", lambda c: [node("p", "EvilOp", ["x"]), *added("p")]),
}
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
    raw_ops.SaveV2(
        prefix=str(canary.secrets / "ckpt"), tensor_names=["w"], shape_and_slices=[""], tensors=[list(values)]
    )


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
    signature = (
        field(1, "f")
        + field(2, [field(1, "a"), field(3, FLOAT)])
        + field(3, [field(1, "b"), field(3, FLOAT)])
        + field(17, 1)
    )
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

    @hostile(
        "frozen-graph", "functions", _op.lower(), f"WriteFile in a function that {_op} calls", control="graph"
    )
    def _(canary: Canary, op: str = _op) -> Path:
        call = node("p", op, ["x"], Tin=[FLOAT], Tout=[FLOAT], f={10: field(1, "f")})
        return graph(canary, [PLACEHOLDER, call, *added("p")], function_library(canary))

    @hostile(
        "savedmodel",
        "functions",
        _op.lower(),
        f"WriteFile in a function that {_op} calls",
        control="savedmodel",
    )
    def _(canary: Canary, op: str = _op) -> Path:
        call = node("p", op, ["x"], Tin=[FLOAT], Tout=[FLOAT], f={10: field(1, "f")})
        return saved_model(canary, [PLACEHOLDER, call, *added("p")], function_library(canary))


@hostile(
    "frozen-graph",
    "functions",
    "direct-call",
    "a node whose operator is a function of the library that writes",
    control="graph",
)
def _(canary: Canary) -> Path:
    return graph(canary, [PLACEHOLDER, node("p", "f", ["x"]), *added("p")], function_library(canary))


@hostile("frozen-graph", "functions", "hidden-branch", "WriteFile in a branch of If", control="graph")
def _(canary: Canary) -> Path:
    flag = node("c", "Const", dtype=10, value={8: field(1, 10) + field(2, b"") + field(11, 1)})
    branch = {10: field(1, "f")}
    call = node(
        "p",
        "If",
        ["c", "x"],
        Tcond=10,
        Tin=[FLOAT],
        Tout=[FLOAT],
        then_branch=branch,
        else_branch=branch,
        output_shapes=[(1, 16)],
    )
    return graph(canary, [PLACEHOLDER, flag, call, *added("p")], function_library(canary))


@hostile("frozen-graph", "functions", "dead-function", "WriteFile in a function that nothing calls")
def _(canary: Canary) -> Path:
    return graph(canary, [PLACEHOLDER, *after()], function_library(canary))


@hostile(
    "frozen-graph", "functions", "gradient", "a gradient function that hides a writer behind a harmless one"
)
def _(canary: Canary) -> Path:
    library = function_library(canary) + field(2, [field(1, "Relu"), field(2, "f")])
    return graph(
        canary,
        [
            PLACEHOLDER,
            node(
                "p", "SymbolicGradient", ["x", "x"], Tin=[FLOAT, FLOAT], Tout=[FLOAT], f={10: field(1, "f")}
            ),
            *added("p"),
        ],
        library,
    )


def filled(name: str, count: int) -> list[Node]:
    return [
        numbers(f"{name}_n", count, 16),
        node(
            f"{name}_v",
            "Const",
            dtype=FLOAT,
            value={8: field(1, FLOAT) + field(2, b"") + field(5, struct.pack("<f", 1))},
        ),
        node(name, "Fill", [f"{name}_n", f"{name}_v"], T=FLOAT, index_type=INT32),
    ]


ODD: dict[str, tuple[str, Make]] = {
    "fill": (
        "2^34 numbers by Fill",
        lambda c: [
            *filled("b", 1 << 30),
            numbers("ax", 0, 1),
            node("s", "Sum", ["b", "ax"], T=FLOAT, Tidx=INT32),
            *added("s"),
        ],
    ),
    "const": (
        "a constant that declares 2^40 numbers",
        lambda c: [
            node(
                "b",
                "Const",
                dtype=FLOAT,
                value={
                    8: field(1, FLOAT) + field(2, shape((1 << 20, 1 << 20))) + field(5, struct.pack("<f", 1))
                },
            ),
            *added("b"),
        ],
    ),
    "cyclic": (
        "nodes that need each other",
        lambda c: [
            node("a", "AddV2", ["x", "b"], T=FLOAT),
            node("b", "Identity", ["a"], T=FLOAT),
            *added("b"),
        ],
    ),
    "while": (
        "an endless loop of the first TensorFlow",
        lambda c: [
            node("e", "Enter", ["x"], T=FLOAT, frame_name="f"),
            node("m", "Merge", ["e", "n"], T=FLOAT, N={3: 2}),
            node("t", "Const", ["^m"], dtype=10, value={8: field(1, 10) + field(2, b"") + field(11, 1)}),
            node("lc", "LoopCond", ["t"]),
            node("s", "Switch", ["m", "lc"], T=FLOAT),
            node("i", "Identity", ["s:1"], T=FLOAT),
            node("n", "NextIteration", ["i"], T=FLOAT),
            node("ex", "Exit", ["s"], T=FLOAT),
            *added("ex"),
        ],
    ),
    "names": (
        "names that are escapes and a script",
        lambda c: [
            node("\x1b[31mred\u202e<script>document.title='executed'</script>", "Relu", ["x"], T=FLOAT),
            *after(),
        ],
    ),
    "device": (
        "nodes on a device of another machine",
        lambda c: [
            node("a", "Relu", ["x"], T=FLOAT) + field(4, "/job:worker/replica:0/task:9/device:GPU:0"),
            *added("a"),
        ],
    ),
    "library": (
        "a node with the path of a library",
        lambda c: [node("a", "Relu", ["x"], T=FLOAT, _library=str(shared_library(c))), *added("a")],
    ),
}
for _name, (_tries, _make) in ODD.items():

    @hostile("frozen-graph", "odd", _name, _tries)
    def _(canary: Canary, make: Make = _make) -> Path:
        return graph(canary, [PLACEHOLDER, *make(canary)])
