"""TFLite and MNN: flatbuffers with bad offsets, loops, outside buffers; MNN as JSON with odd things in it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import Canary, hostile
from evaluation.places import environment

MNN = ("inspect", "check", "json", "prepare", "compare")


def tflite(
    canary: Canary,
    change: Callable[[Any], None] = lambda m: None,
    operator: int = 0,
    custom: str = "",
    suffix: bytes = b"",
) -> Path:
    """y = x + w of 16 numbers (or another operator), with the object of the schema changed before it is
    written.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    model = s.ModelT()
    model.version, model.description = 3, "net"
    code = s.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version, code.customCode = (
        operator,
        min(operator, 127),
        1,
        custom or None,
    )
    model.operatorCodes = [code]
    data = s.BufferT()
    data.data = list(struct.pack("<16f", *range(16)))
    model.buffers = [s.BufferT(), data]
    graph = s.SubGraphT()
    graph.name = "main"
    graph.tensors = []
    for name, buffer in (("x", 0), ("w", 1), ("y", 0)):
        tensor = s.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, 16], 0, buffer
        graph.tensors.append(tensor)
    node = s.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 1], [2]
    if operator == 0 and not custom:
        node.builtinOptionsType, node.builtinOptions = s.BuiltinOptions.AddOptions, s.AddOptionsT()
    graph.operators, graph.inputs, graph.outputs = [node], [0], [2]
    model.subgraphs = [graph]
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = canary.model / "model.tflite"
    path.write_bytes(bytes(builder.Output()) + suffix)
    return path


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """A change: the attribute that *path* names (``subgraphs.0.inputs``) becomes *value*."""

    def change(model: Any) -> None:
        *way, last = path.split(".")
        for part in way:
            model = model[int(part)] if part.isdigit() else getattr(model, part)
        setattr(model, last, value)

    return change


TFLITE: dict[str, tuple[str, Callable[[Canary], Path]]] = {
    "outside-buffer": (
        "a buffer far beyond the file",
        lambda c: tflite(
            c,
            lambda m: (
                _set("buffers.1.data", None)(m),
                _set("buffers.1.offset", 1 << 40)(m),
                _set("buffers.1.size", 64)(m),
            )[0],
        ),
    ),
    "huge-buffer": (
        "a buffer of 2^62 bytes behind the flatbuffer",
        lambda c: tflite(
            c,
            lambda m: (
                _set("buffers.1.data", None)(m),
                _set("buffers.1.offset", 64)(m),
                _set("buffers.1.size", 1 << 62)(m),
            )[0],
            suffix=bytes(128),
        ),
    ),
    "buffer-index": (
        "a tensor whose buffer is not there",
        lambda c: tflite(c, _set("subgraphs.0.tensors.1.buffer", 1 << 30)),
    ),
    "tensor-index": (
        "operators of tensors that are not there",
        lambda c: tflite(c, _set("subgraphs.0.operators.0.inputs", [1 << 30, -7])),
    ),
    "output-index": (
        "outputs that are not there",
        lambda c: tflite(c, _set("subgraphs.0.outputs", [99, -5])),
    ),
    "opcode-index": (
        "an operator whose code is not there",
        lambda c: tflite(c, _set("subgraphs.0.operators.0.opcodeIndex", 4_000_000_000)),
    ),
    "negative-shape": (
        "sizes below 0",
        lambda c: tflite(c, _set("subgraphs.0.tensors.0.shape", [-5, -2147483648])),
    ),
    "huge-shape": (
        "an input of 2^60 numbers",
        lambda c: tflite(c, _set("subgraphs.0.tensors.0.shape", [1 << 30, 1 << 30])),
    ),
    "small-buffer": (
        "a weight whose buffer is too small",
        lambda c: tflite(c, _set("subgraphs.0.tensors.1.shape", [1, 1 << 28])),
    ),
    "no-subgraphs": ("no graph", lambda c: tflite(c, _set("subgraphs", []))),
    "type": ("a tensor of an unknown type", lambda c: tflite(c, _set("subgraphs.0.tensors.0.type", 99))),
    "self": (
        "a node that is its own input",
        lambda c: tflite(c, _set("subgraphs.0.operators.0.inputs", [0, 2])),
    ),
    "names": (
        "names that are escapes, paths and a script",
        lambda c: tflite(
            c,
            lambda m: (
                _set("description", "\x1b[31m\u202e{{7*7}}")(m),
                _set(
                    "subgraphs.0.tensors.0.name",
                    "\x1b]0;x\x07\u202e<script>document.title='executed'</script>/../../x",
                )(m),
                _set("subgraphs.0.tensors.2.name", "../../fired/written")(m),
            )[0],
        ),
    ),
    "long-name": (
        "a name of 70,000 letters",
        lambda c: tflite(c, _set("subgraphs.0.tensors.0.name", "n" * 70_000)),
    ),
    "not-utf8": (
        "a name that is no UTF-8",
        lambda c: tflite(c, _set("subgraphs.0.tensors.0.name", b"\xff\xfe\xed\xa0\x80")),
    ),
    "custom": (
        "a custom operator named as a library",
        lambda c: tflite(c, operator=32, custom=str(c.model / "evil.so")),
    ),
    "custom-escape": (
        "a custom operator whose name is escapes",
        lambda c: tflite(c, operator=32, custom="\x1b[31mFlexWriteFile\u202e"),
    ),
    "flex": (
        "TensorFlow's WriteFile as a Flex operator",
        lambda c: tflite(c, operator=32, custom="FlexWriteFile"),
    ),
    "call-once": (
        "CALL_ONCE of the graph itself",
        lambda c: tflite(c, lambda m: _call_once(m, 0), operator=129),
    ),
    "call-once-absent": (
        "CALL_ONCE of a graph that is not there",
        lambda c: tflite(c, lambda m: _call_once(m, 77), operator=129),
    ),
    "while": ("WHILE of the graph itself, for ever", lambda c: tflite(c, _while, operator=119)),
    "fill": ("2^40 numbers by FILL", lambda c: tflite(c, _fill, operator=94)),
    "sparsity": ("a sparse weight of 2^40 numbers", lambda c: tflite(c, _sparse)),
    "metadata": ("metadata that name a buffer that is not there", lambda c: tflite(c, _metadata)),
}


def _call_once(model: Any, graph: int) -> None:
    from ai_edge_litert import schema_py_generated as s

    node = model.subgraphs[0].operators[0]
    node.builtinOptionsType, node.builtinOptions = s.BuiltinOptions.CallOnceOptions, s.CallOnceOptionsT()
    node.builtinOptions.initSubgraphIndex = graph
    node.inputs, node.outputs = [], []


def _while(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as s

    node = model.subgraphs[0].operators[0]
    node.builtinOptionsType, node.builtinOptions = s.BuiltinOptions.WhileOptions, s.WhileOptionsT()
    node.builtinOptions.condSubgraphIndex = node.builtinOptions.bodySubgraphIndex = 0
    node.inputs = [0]


def _fill(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[1].type, graph.tensors[1].shape = 2, [2]
    model.buffers[1].data = list(struct.pack("<2i", 1 << 20, 1 << 20))
    graph.operators[0].inputs = [1, 0]
    graph.tensors[0].shape, graph.tensors[2].shape = [], [1 << 20, 1 << 20]


def _sparse(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as s

    tensor = model.subgraphs[0].tensors[1]
    tensor.shape, tensor.sparsity = [1 << 20, 1 << 20], s.SparsityParametersT()
    tensor.sparsity.traversalOrder, tensor.sparsity.dimMetadata = [0, 1], []
    for size in (1 << 20, 1 << 20):
        dimension = s.DimensionMetadataT()
        dimension.format, dimension.denseSize = 0, size
        tensor.sparsity.dimMetadata.append(dimension)


def _metadata(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as s

    one = s.MetadataT()
    one.name, one.buffer = "\x1b[31mTFLITE_METADATA", 4_000_000
    model.metadata = [one]


for _name, (_tries, _make) in TFLITE.items():

    @hostile("tflite", "flatbuffer", _name, _tries)
    def _(canary: Canary, make: Any = _make) -> Path:
        return make(canary)


def offsets(data: bytes, number: int) -> bytes:
    """The bytes with every *number*-th of the 32-bit words that look like offsets turned to lead far away, or
    back to the start.
    """
    made = bytearray(data)
    found = [at for at in range(0, len(data) - 4, 4) if 0 < struct.unpack_from("<I", data, at)[0] < len(data)]
    for order, at in enumerate(found):
        if order % 7 == number:
            struct.pack_into(
                "<I", made, at, (0xFFFFFFF0, 4, 0, 0x7FFFFFFF, len(data) - 1, 1, 0x80000000)[number]
            )
    made[4:8] = data[4:8]
    return bytes(made)


for _number in range(7):

    @hostile("tflite", "offsets", f"bad-{_number}", "every seventh offset leads far away, back, or nowhere")
    def _(canary: Canary, number: int = _number) -> Path:
        path = tflite(canary)
        path.write_bytes(offsets(path.read_bytes(), number))
        return path

    @hostile(
        "mnn",
        "offsets",
        f"bad-{_number}",
        "every seventh offset leads far away, back, or nowhere",
        commands=MNN,
    )
    def _(canary: Canary, number: int = _number) -> Path:
        path = mnn(canary)
        path.write_bytes(offsets(path.read_bytes(), number))
        return path


# --- MNN
# ------------------------------------------------------------------------------------------------------------


def mnn(canary: Canary, *options: str) -> Path:
    """A converted model of one convolution."""
    import numpy as np

    from evaluation.hostile.onnx_files import node, save

    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    source = save(
        canary,
        [node("Conv", ["x", "w"], ["y"])],
        {"w": weight},
        inputs=[("x", [1, 3, 8, 8])],
        outputs=[("y", [1, 4, 6, 6])],
    )
    path = canary.model / "model.mnn"
    code = "import sys, _tools; _tools.mnnconvert(['MNNConvert', *sys.argv[1:]])"
    command = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "x", *options]
    subprocess.run(
        [sys.executable, "-c", code, *command], cwd=canary.root, check=True, stdout=subprocess.DEVNULL
    )
    source.unlink()
    return path


@hostile("mnn", "external", "linked", "the file of the weights is a link to the secret", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary, "--saveExternalData")
    for side in canary.model.glob("*.weight"):
        side.unlink()
    (canary.secrets / "long.bin").write_bytes(canary.token * 64)
    os.symlink(canary.secrets / "long.bin", canary.model / "model.mnn.weight")
    return path


@hostile("mnn", "external", "device", "the file of the weights is a link to /dev/zero", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary, "--saveExternalData")
    for side in canary.model.glob("*.weight"):
        side.unlink()
    os.symlink("/dev/zero", canary.model / "model.mnn.weight")
    return path


@hostile("mnn", "external", "pipe", "the file of the weights is a pipe", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary, "--saveExternalData")
    for side in canary.model.glob("*.weight"):
        side.unlink()
    os.mkfifo(canary.model / "model.mnn.weight")
    return path


@hostile("mnn", "external", "absent", "no file of the weights", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary, "--saveExternalData")
    for side in canary.model.glob("*.weight"):
        side.unlink()
    return path


@hostile("mnn", "flatbuffer", "truncated", "the first half of a model", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@hostile("mnn", "flatbuffer", "huge-vector", "a list of operators of 2^32 - 1", commands=MNN)
def _(canary: Canary) -> Path:
    path = mnn(canary)
    data = bytearray(path.read_bytes())
    for at in range(0, len(data) - 4, 4):
        if struct.unpack_from("<I", data, at)[0] in (1, 2, 3):
            struct.pack_into("<I", data, at, 0xFFFFFFFF)
    path.write_bytes(data)
    return path


def as_json(canary: Canary) -> tuple[Path, dict[str, Any]]:
    path = mnn(canary)
    target = canary.model / "model.json"

    subprocess.run(
        [sys.executable, "-m", "mnnprep", "json", str(path), "-o", str(target)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    path.unlink()
    return target, json.loads(target.read_text())


def _ops(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    for op in value["oplists"]:
        op.update(changes)
    return value


JSON: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "list": ("a list in place of a model", lambda v: [v]),
    "number": ("a number in place of a model", lambda v: 5),
    "unknown-type": (
        "operators of an unknown type",
        lambda v: _ops(v, type="__import__('os')", main_type="Evil"),
    ),
    "wrong-main": ("operators whose parameters are another's", lambda v: _ops(v, main_type="Plugin")),
    "huge-index": ("inputs that are not there", lambda v: _ops(v, inputIndexes=[1 << 31, -5])),
    "text-for-list": ("text for lists", lambda v: _ops(v, inputIndexes="abc", name=5)),
    "big-number": ("numbers beyond their type", lambda v: _ops(v, inputIndexes=[1 << 70])),
    "nan": ("numbers that are none", lambda v: v | {"sourceType": float("nan")}),
    "plugin": (
        "a Plugin with a library",
        lambda v: _ops(v, type="Plugin", main_type="Plugin", main={"type": "/tmp/evil.so", "attr": []}),
    ),
    "names": (
        "names that are escapes and a script",
        lambda v: (
            _ops(v, name="\x1b[31m\u202e<script>document.title='executed'</script>")
            | {"tensorName": ["../../fired/written", "\x1b]0;x\x07"]}
        ),
    ),
    "long-name": ("names of 70,000 letters", lambda v: _ops(v, name="n" * 70_000)),
    "surrogate": ("names that are half a surrogate", lambda v: _ops(v, name="\ud800")),
    "null": ("nothing for everything", lambda v: dict.fromkeys(v)),
    "empty": ("no operators", lambda v: v | {"oplists": []}),
    "external": (
        "weights outside at an offset of 2^60",
        lambda v: _ops(
            v, externalPath="../secrets/secret.bin", main={"common": {}, "external": [1 << 60, 64, 64]}
        ),
    ),
}
for _name, (_tries, _change) in JSON.items():

    @hostile("mnn-json", "odd", _name, _tries, commands=("json", "inspect"))
    def _(canary: Canary, change: Any = _change) -> Path:
        path, value = as_json(canary)
        path.write_text(json.dumps(change(value)))
        return path


@hostile("mnn-json", "odd", "deep", "100,000 lists in each other", commands=("json", "inspect"))
def _(canary: Canary) -> Path:
    path = canary.model / "model.json"
    path.write_text('{"oplists":' + "[" * 100_000 + "]" * 100_000 + "}")
    return path
