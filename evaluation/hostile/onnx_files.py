"""ONNX files that read elsewhere, unfold without bound, are no graphs, or carry text for a terminal or a
page.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evaluation.hostile.case import Canary, field, hostile, relative, shared_library

node = helper.make_node
X = ("x", [1, 16])
Y = ("y", [1, 16])
BIG = 1 << 40


def model(
    nodes: Iterable[Any],
    weights: dict[str, Any] | None = None,
    inputs: Iterable[Any] = (X,),
    outputs: Iterable[Any] = (Y,),
    functions: Iterable[Any] = (),
    domains: Iterable[str] = (),
    opset: int = 17,
) -> Any:
    tensors = [
        a if isinstance(a, TensorProto) else numpy_helper.from_array(np.asarray(a), n)
        for n, a in (weights or {}).items()
    ]
    described = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values]
        for values in (inputs, outputs)
    ]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        helper.make_graph(list(nodes), "net", *described, tensors),
        opset_imports=opsets,
        ir_version=9,
        functions=list(functions),
    )


def save(canary: Canary, nodes: Iterable[Any], weights: dict[str, Any] | None = None, **more: Any) -> Path:
    path = canary.model / "model.onnx"
    path.write_bytes(model(nodes, weights, **more).SerializeToString())
    return path


def external(canary: Canary, location: str, **entries: Any) -> Path:
    """y = x + a weight of 16 numbers whose bytes are at *location*."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": 64, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return save(
        canary,
        [node("Add", ["x", "w"], ["a"]), node("Identity", ["w"], ["z"]), node("Add", ["a", "z"], ["y"])],
        {"w": tensor},
    )


EXTERNAL: dict[str, tuple[str, Callable[[Canary], tuple[str, dict[str, Any]]]]] = {
    "parent": ("bytes of the secret by ..", lambda c: (relative(c.secret, c.model), {})),
    "absolute": ("bytes of the secret by its absolute path", lambda c: (c.secret, {})),
    "symlink": (
        "bytes of the secret by a link beside the model",
        lambda c: (os.symlink(c.secret, c.model / "w.bin") or "w.bin", {}),
    ),
    "linked-directory": (
        "bytes of the secret by a linked directory",
        lambda c: (os.symlink(c.secrets, c.model / "d") or "d/secret.bin", {}),
    ),
    "inner-parent": (
        "bytes of the secret by a directory and ..",
        lambda c: (os.mkdir(c.model / "d") or "d/../../secrets/secret.bin", {}),
    ),
    "backslash": ("bytes of the secret by .. and backslashes", lambda c: ("..\\secrets\\secret.bin", {})),
    "nul": ("a name cut by a NUL", lambda c: (f"{relative(c.secret, c.model)}\0.data", {})),
    "device": ("/dev/zero for a weight", lambda c: ("/dev/zero", {})),
    "huge-offset": ("an offset of 2^63", lambda c: (_local(c), {"offset": (1 << 63) - 1})),
    "negative-offset": ("an offset below 0", lambda c: (_local(c), {"offset": -64})),
    "huge-length": ("a length of 2^62", lambda c: (_local(c), {"length": 1 << 62})),
    "text-offset": ("an offset that is no number", lambda c: (_local(c), {"offset": "nan"})),
    "fifo": ("a pipe that nobody writes to", lambda c: (os.mkfifo(c.model / "pipe") or "pipe", {})),
}


def _local(canary: Canary) -> str:
    (canary.model / "w.bin").write_bytes(bytes(64))
    return "w.bin"


for _name, (_tries, _where) in EXTERNAL.items():

    @hostile(
        "onnx",
        "external-data",
        _name,
        _tries,
        control="onnx-data"
        if _name in ("parent", "absolute", "symlink", "linked-directory", "inner-parent")
        else "",
    )
    def _(canary: Canary, where: Any = _where) -> Path:
        location, entries = where(canary)
        return external(canary, location, **entries)


@hostile("onnx", "external-data", "in-constant", "a Constant node whose tensor lies in the secret")
def _(canary: Canary) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=relative(canary.secret, canary.model))
    return save(canary, [node("Constant", [], ["w"], value=tensor), node("Add", ["x", "w"], ["y"])])


@hostile(
    "onnx", "code", "custom-library", "metadata that name a library of custom operators, and its operator"
)
def _(canary: Canary) -> Path:
    library = shared_library(canary)
    made = model([node("Evil", ["x"], ["y"], domain="evil")], domains=["evil"])
    helper.set_model_props(
        made,
        {
            "custom_ops_library": str(library),
            "ort_config": '{"session_options": {"custom_op_library": "evil.so"}}',
        },
    )
    path = canary.model / "model.onnx"
    onnx.save(made, path)
    return path


@hostile("onnx", "code", "python-op", "the operator of onnxruntime-training and torch that calls Python")
def _(canary: Canary) -> Path:
    return save(
        canary,
        [
            node("PythonOp", ["x"], ["y"], domain="com.microsoft", func_name="os.system"),
            node("ATen", ["x"], ["z"], domain="org.pytorch.aten", operator="save"),
        ],
        domains=["com.microsoft", "org.pytorch.aten"],
    )


@hostile("onnx", "code", "contrib-writer", "session configuration in the metadata, with a profile to write")
def _(canary: Canary) -> Path:
    made = model([node("Relu", ["x"], ["y"])])
    helper.set_model_props(
        made,
        {
            "ort_config": f'{{"session_options": {{"enable_profiling": 1, "profile_file_prefix": "{canary.written}", '
            f'"optimized_model_filepath": "{canary.written}"}}}}'
        },
    )
    path = canary.model / "model.onnx"
    onnx.save(made, path)
    return path


@hostile("onnx", "code", "tensorrt-cache", "an EPContext node that names a file", control="")
def _(canary: Canary) -> Path:
    return save(
        canary,
        [
            node(
                "EPContext",
                ["x"],
                ["y"],
                domain="com.microsoft",
                embed_mode=0,
                ep_cache_context=canary.secret,
                source="x",
            )
        ],
        domains=["com.microsoft"],
    )


def i64(*values: int) -> Any:
    return np.array(values, np.int64)


def summed(nodes: list[Any], value: str = "b") -> list[Any]:
    """y = x + the sum of *value*."""
    return [*nodes, node("ReduceSum", [value], ["s"], keepdims=0), node("Add", ["x", "s"], ["y"])]


BOMBS: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "constant-of-shape": (
        "2^40 numbers by ConstantOfShape",
        summed([node("ConstantOfShape", ["n"], ["b"])]),
        {"n": i64(BIG)},
    ),
    "range": (
        "2^40 numbers by Range",
        summed([node("Range", ["a", "n", "d"], ["b"])]),
        {"a": np.float32(0), "n": np.float32(BIG), "d": np.float32(1)},
    ),
    "range-medium": (
        "2^30 numbers by Range",
        summed([node("Range", ["a", "n", "d"], ["r"]), node("Cast", ["r"], ["b"], to=1)]),
        {"a": i64(0)[0], "n": i64(1 << 30)[0], "d": i64(1)[0]},
    ),
    "expand": (
        "2^40 numbers by Expand",
        summed([node("Expand", ["v", "n"], ["b"])]),
        {"v": np.float32(1), "n": i64(1 << 20, 1 << 20)},
    ),
    "expand-medium": (
        "4 GB by Expand of a constant",
        summed([node("Expand", ["v", "n"], ["b"])]),
        {"v": np.float32(1), "n": i64(1 << 15, 1 << 15)},
    ),
    "tile": (
        "2^40 numbers by Tile",
        summed([node("Tile", ["v", "n"], ["b"])]),
        {"v": np.ones(16, np.float32), "n": i64(1 << 36)},
    ),
    "pad": (
        "2^40 numbers by Pad",
        summed([node("Pad", ["v", "n"], ["b"])]),
        {"v": np.ones(1, np.float32), "n": i64(0, BIG)},
    ),
    "resize": (
        "2^40 numbers by Resize",
        summed([node("Resize", ["v", "", "", "n"], ["b"])]),
        {"v": np.ones((1, 1, 1, 1), np.float32), "n": i64(1, 1, 1 << 20, 1 << 20)},
    ),
    "one-hot": (
        "2^40 numbers by OneHot",
        summed([node("OneHot", ["i", "n", "v"], ["b"])]),
        {"i": i64(1, 2), "n": i64(BIG)[0], "v": np.array([0, 1], np.float32)},
    ),
    "eye-like": (
        "2^40 numbers by EyeLike",
        summed([node("ConstantOfShape", ["n"], ["c"]), node("EyeLike", ["c"], ["b"])]),
        {"n": i64(1 << 20, 1 << 20)},
    ),
    "outer-product": (
        "2^36 numbers by a product of constants",
        summed([node("MatMul", ["v", "w"], ["b"])]),
        {"v": np.ones((1 << 18, 1), np.float32), "w": np.ones((1, 1 << 18), np.float32)},
    ),
    "chain": (
        "constants that double 40 times",
        summed(
            [node("Concat", [f"c{i}" if i else "v"] * 2, [f"c{i + 1}"], axis=0) for i in range(40)], "c40"
        ),
        {"v": np.ones(16, np.float32)},
    ),
    "gather": (
        "2^32 numbers by Gather of Gather",
        summed([node("Gather", ["v", "i"], ["g"]), node("Gather", ["g", "i"], ["b"], axis=1)]),
        {"v": np.ones((2, 2), np.float32), "i": np.zeros(1 << 16, np.int64)},
    ),
    "in-dynamic": (
        "2^40 numbers that depend on the input's size",
        summed(
            [
                node("Shape", ["x"], ["h"]),
                node("Mul", ["h", "m"], ["n"]),
                node("ConstantOfShape", ["n"], ["b"]),
            ]
        ),
        {"m": i64(1 << 20, 1 << 16)},
    ),
}
for _name, (_tries, _nodes, _weights) in BOMBS.items():

    @hostile("onnx", "bomb", _name, _tries)
    def _(canary: Canary, nodes: Any = _nodes, weights: Any = _weights) -> Path:
        return save(canary, nodes, weights)


@hostile("onnx", "bomb", "declared-initializer", "an initializer that declares 2^40 numbers and has none")
def _(canary: Canary) -> Path:
    return save(
        canary,
        [node("Add", ["x", "w"], ["y"])],
        {"w": TensorProto(name="w", data_type=1, dims=[1 << 20, 1 << 20], raw_data=b"")},
    )


@hostile("onnx", "bomb", "sparse", "a sparse initializer of 2^40 numbers with one value")
def _(canary: Canary) -> Path:
    made = model([node("ReduceSum", ["w"], ["s"], keepdims=0), node("Add", ["x", "s"], ["y"])])
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", 1, [1], [1.0]), helper.make_tensor("w_i", 7, [1], [0]), [1 << 20, 1 << 20]
    )
    made.graph.sparse_initializer.append(sparse)
    path = canary.model / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@hostile("onnx", "bomb", "input-shape", "an input of 2^40 numbers")
def _(canary: Canary) -> Path:
    return save(
        canary,
        [node("Relu", ["x"], ["y"])],
        inputs=[("x", [1 << 20, 1 << 20])],
        outputs=[("y", [1 << 20, 1 << 20])],
    )


@hostile("onnx", "bomb", "loop", "a Loop of 2^62 rounds")
def _(canary: Canary) -> Path:
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"]), node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("v", 1, None),
        ],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_tensor_value_info("v2", 1, None)],
    )
    return save(
        canary, [node("Loop", ["n", "t", "x"], ["y"], body=body)], {"n": i64(1 << 62)[0], "t": np.array(True)}
    )


@hostile("onnx", "bomb", "constant-loop", "a Loop of 2^62 rounds over constants alone")
def _(canary: Canary) -> Path:
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"]), node("Neg", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("v", 1, None),
        ],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_tensor_value_info("v2", 1, None)],
    )
    nodes = [node("Loop", ["n", "t", "w"], ["b"], body=body), node("Add", ["x", "b"], ["y"])]
    return save(canary, nodes, {"n": i64(1 << 62)[0], "t": np.array(True), "w": np.ones(16, np.float32)})


@hostile("onnx", "bomb", "functions", "functions that double 30 times")
def _(canary: Canary) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], opsets)]
    for i in range(30):
        calls = [node(f"F{i}", ["a"], ["m"], domain="f"), node(f"F{i}", ["m"], ["b"], domain="f")]
        functions.append(helper.make_function("f", f"F{i + 1}", ["a"], ["b"], calls, opsets))
    return save(canary, [node("F30", ["x"], ["y"], domain="f")], functions=functions, domains=["f"])


@hostile("onnx", "bomb", "recursive-function", "a function that calls itself")
def _(canary: Canary) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    mutual = [
        helper.make_function("f", a, ["a"], ["b"], [node(b, ["a"], ["b"], domain="f")], opsets)
        for a, b in (("F", "G"), ("G", "F"))
    ]
    return save(canary, [node("F", ["x"], ["y"], domain="f")], functions=mutual, domains=["f"])


@hostile("onnx", "graph", "deep-subgraphs", "10,000 If nodes in each other")
def _(canary: Canary) -> Path:
    graph = field(
        1,
        [
            field(2, "y0"),
            field(4, "Constant"),
            field(
                5, [field(1, "value"), field(20, 4), field(5, [field(2, 1), field(4, 1.0), field(8, "v")])]
            ),
        ],
    )
    graph = graph + field(2, "g") + field(12, [field(1, "y0")])
    for _ in range(10_000):
        branches = [
            field(5, [field(1, name), field(20, 5), field(6, graph if name == "then_branch" else b"")])
            for name in ("then_branch",)
        ]
        graph = (
            field(1, [field(1, "c"), field(2, "y0"), field(4, "If"), *branches])
            + field(2, "g")
            + field(12, [field(1, "y0")])
        )
    path = canary.model / "model.onnx"
    path.write_bytes(field(1, 9) + field(8, [field(1, ""), field(2, 17)]) + field(7, graph))
    return path


GRAPHS: dict[str, tuple[str, list[Any]]] = {
    "cyclic": (
        "two nodes that need each other",
        [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])],
    ),
    "self": ("a node that is its own input", [node("Add", ["x", "y"], ["y"])]),
    "twice": ("a value that is made twice", [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])]),
    "absent": ("an input that nothing makes", [node("Add", ["x", "nowhere"], ["y"])]),
    "few-inputs": (
        "nodes without their inputs",
        [
            node("Conv", [], ["a"]),
            node("Resize", ["a"], ["b"]),
            node("Gather", ["b"], ["c"]),
            node("LSTM", ["c"], ["y"]),
        ],
    ),
    "few-outputs": (
        "nodes without outputs",
        [node("Split", ["x"], []), node("Relu", ["x"], ["y"]), node("LSTM", ["x", "x", "x"], [])],
    ),
    "odd-attributes": (
        "attributes of other types",
        [
            node("Conv", ["x", "x"], ["a"], pads="text", strides=[0, -1], group=0),
            node("Transpose", ["a"], ["b"], perm=[9, -3]),
            node("Softmax", ["b"], ["y"], axis=[1]),
        ],
    ),
    "no-operator": ("nodes without a type", [node("", ["x"], ["y"])]),
}
for _name, (_tries, _nodes) in GRAPHS.items():

    @hostile("onnx", "graph", _name, _tries)
    def _(canary: Canary, nodes: Any = _nodes) -> Path:
        return save(canary, nodes)


@hostile("onnx", "graph", "odd-tensors", "weights of wrong size, unknown dtype and negative shape")
def _(canary: Canary) -> Path:
    tensors = {
        n: TensorProto(name=n, data_type=t, dims=d, raw_data=b"abc")
        for n, t, d in (("a", 1, [16]), ("b", 99, [2]), ("c", 1, [-5, 3]), ("d", 0, []))
    }
    return save(canary, [node("Sum", ["x", "a", "b", "c", "d"], ["y"])], tensors)


@hostile("onnx", "graph", "no-graph-parts", "a graph with nodes of empty messages")
def _(canary: Canary) -> Path:
    path = canary.model / "model.onnx"
    path.write_bytes(
        field(1, 9)
        + field(8, [field(2, 17)])
        + field(
            7, [field(1, b""), field(5, b""), field(11, b""), field(12, b""), field(13, b""), field(15, b"")]
        )
    )
    return path


NAMES = {
    "long": "n" * 70_000,
    "escapes": "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m",
    "bidi": "a\u202egpj.exe\u2066\u2069\u200f",
    "carriage": "a\rFAKE: proven\b\b",
    "script": "<script>document.title='executed'</script>\"'><img src=x onerror=alert(1)>",
    "template": "{{7*7}}{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
    "path": "../../fired/written",
    "absolute": "/etc/passwd",
    "markup": "[red]bold[/red][link=file:///etc/passwd]x[/link]",
    "format": "{0.__class__}%s%n",
    "newline": "a\nverdict: proven\n",
    "surrogate": b"\xed\xa0\x80\xff".decode("utf-8", "surrogateescape"),
    "empty": "",
}
for _name, _text in NAMES.items():

    @hostile("onnx", "names", _name, f"names, operators and metadata that are {_name}")
    def _(canary: Canary, name: str = _name, text: str = _text) -> Path:
        if name == "surrogate":
            value = field(1, [field(1, "Xbad")])
            made = (
                model([node("Relu", ["Xbad"], ["y"], name="Xbad")], inputs=[("Xbad", [1, 16])])
                .SerializeToString()
                .replace(b"Xbad", b"\xff\xed\xa0\x80")
            )
            path = canary.model / "model.onnx"
            path.write_bytes(made if value else b"")
            return path
        out = f"{text}_y"
        made = model(
            [
                node("Relu", [text or "x"], ["a"], name=text),
                node("Tanh", ["a"], [out], name=text),
                node("Celu", ["a"], ["z"], name=text),
            ],
            inputs=[(text or "x", [1, 16])],
            outputs=[(out, [1, 16]), ("z", [1, 16])],
        )
        helper.set_model_props(made, {text: text, "description": text})
        made.producer_name = made.doc_string = made.graph.name = text
        path = canary.model / "model.onnx"
        path.write_bytes(made.SerializeToString())
        return path


@hostile("onnx", "names", "operator", "an operator and a domain that are escapes and a script")
def _(canary: Canary) -> Path:
    text = NAMES["escapes"] + NAMES["script"] + NAMES["bidi"]
    return save(canary, [node(text, ["x"], ["y"], domain=text, name=text)], domains=[text])
