"""Constants that an ONNX graph computes for itself are measured before a runtime computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.constant_growth import require_bounded
from support.command import call

BIG = 1 << 30


def model(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    """A net whose input is added to the sum of the constant ``b``."""
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y")]
    last = [
        helper.make_node("ReduceSum", ["b"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    graph = helper.make_graph([*nodes, *last], "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


ONE = np.float32(1)
node = helper.make_node
GROWING = {
    "Range": (
        [node("Range", ["a", "n", "d"], ["r"]), node("Cast", ["r"], ["b"], to=1)],
        {"a": int64(0)[0], "n": int64(BIG)[0], "d": int64(1)[0]},
    ),
    "Expand": ([node("Expand", ["v", "n"], ["b"])], {"v": ONE, "n": int64(1 << 15, 1 << 15)}),
    "ConstantOfShape": (
        [node("Mul", ["n", "m"], ["k"]), node("ConstantOfShape", ["k"], ["b"])],
        {"n": int64(1 << 15), "m": int64(1 << 15)},
    ),
    "Tile": ([node("Tile", ["v", "n"], ["b"])], {"v": np.ones(16, np.float32), "n": int64(BIG)}),
    "Pad": ([node("Pad", ["v", "n"], ["b"])], {"v": np.ones(1, np.float32), "n": int64(0, BIG)}),
    "Concat": (
        [
            node("Concat", [f"c{i}" if i else "v"] * 2, [f"c{i + 1}" if i < 39 else "b"], axis=0)
            for i in range(40)
        ],
        {"v": np.ones(16, np.float32)},
    ),
    "Gather": (
        [node("Gather", ["v", "i"], ["g"]), node("Gather", ["g", "i"], ["b"], axis=1)],
        {"v": np.ones((2, 2), np.float32), "i": np.zeros(1 << 16, np.int64)},
    ),
    "Add": (
        [node("Add", ["v", "w"], ["b"])],
        {"v": np.ones((1 << 15, 1), np.float32), "w": np.ones((1, 1 << 15), np.float32)},
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_constant_that_would_fill_the_memory_is_refused(name: str) -> None:
    nodes, constants = GROWING[name]
    with pytest.raises(RefusedError, match="computes a constant of") as caught:
        require_bounded(model(nodes, **constants), "m.onnx")
    assert name in caught.value.seen


def test_one_in_a_branch_is_refused() -> None:
    inner = helper.make_graph(
        [node("Expand", ["v", "n"], ["e"])], "then", [], [helper.make_empty_tensor_value_info("e")]
    )
    branch = node("If", ["c"], ["b"], then_branch=inner, else_branch=inner)
    with pytest.raises(RefusedError, match="computes a constant"):
        require_bounded(model([branch], v=ONE, n=int64(1 << 15, 1 << 15), c=np.bool_(True)), "m.onnx")


def test_usual_ones_are_not() -> None:
    nodes = [
        node("Range", ["a", "n", "d"], ["r"]),
        node("Cast", ["r"], ["f"], to=1),
        node("Expand", ["f", "s"], ["b"]),
    ]
    given = {"a": int64(0)[0], "n": int64(4096)[0], "d": int64(1)[0], "s": int64(4096, 4096)}
    require_bounded(model(nodes, **given), "m.onnx")
    dynamic = [node("Shape", ["x"], ["h"]), node("ConstantOfShape", ["h"], ["b"])]
    require_bounded(model(dynamic), "m.onnx")


@pytest.mark.parametrize("command", ["check", "prepare", "compare"])
def test_every_command_refuses_it(tmp_path: Path, command: str) -> None:
    path = tmp_path / "m.onnx"
    nodes, constants = GROWING["Range"]
    onnx.save(model(nodes, **constants), path)
    more = {"prepare": ["-o", tmp_path / "out"], "compare": [path]}.get(command, [])
    result = call(command, path, *more)
    assert result.code == 3, result.err
    assert "computes a constant of 1.07e+09 elements" in result.err


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    sound = model([node("Identity", ["v"], ["b"])], v=np.ones(2, np.float32)).SerializeToString()
    path.write_bytes(sound.replace(b"\x01x", b"\x01\xff"))
    result = call("prepare", path, "-o", tmp_path / "out")
    assert result.code == 3, result.err
    assert "is no text" in result.err
