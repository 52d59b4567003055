"""The rules for precision low: the same in onnxruntime and, at high, in MNN; nothing where nothing is to do.

What MNN computes at low without and with them is measured by ``evaluation.low_precision``, on a CPU that has
half-precision arithmetic or an emulated one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from mnnprep.commands.check import check_file
from mnnprep.repair.table import all_rules, always_rules, low_rules
from mnnprep.workers.host import Host
from support.rewriting import Arrays, close, reference, repaired, same_bits, through_mnn

RANDOM = np.random.default_rng(0)
Case = tuple[Any, list[Arrays]]


def draw(*shape: int, scale: float = 1.0) -> Any:
    return (scale * RANDOM.standard_normal(shape)).astype(np.float32)


def recurrent(
    kind: str, *, steps: int | str = 6, both: bool = False, states: bool = False, lengths: bool = False
) -> Case:
    """A recurrent net whose outputs of all steps, and last states, are given."""
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + both
    weights = {"w": draw(ways, gates * 5, 3), "r": draw(ways, gates * 5, 5), "b": draw(ways, gates * 10)}
    if states:
        weights["h"] = draw(ways, 2, 5)
        weights["c"] = draw(ways, 2, 5)
    if lengths:
        weights["l"] = np.array([6, 4], np.int32)
    outputs = ["y", "last", "cell"] if kind == "LSTM" else ["y", "last"]
    given = ["x", "w", "r", "b", "l" if lengths else "", *(["h"] if states else [])]
    given += ["c"] if states and kind == "LSTM" else []
    node = onnx.helper.make_node(
        kind,
        given,
        outputs,
        hidden_size=5,
        direction="bidirectional" if both else "forward",
        **({"linear_before_reset": 1} if kind == "GRU" else {}),
    )
    weights = {name: array for name, array in weights.items() if name in given}
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [onnx.helper.make_tensor_value_info("x", 1, [steps, 2, 3])],
        [onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    sizes = [steps] if isinstance(steps, int) else [6] if lengths else [6, 1, 9]
    return model, [{"x": draw(size, 2, 3)} for size in sizes]


def loop(*, ends: bool = False, kind: str = "float", count: str = "Gather<axis=0>(s, zero)") -> Case:
    """A Loop that carries a sum and collects two values; with *ends* until the sum is 3."""
    told = "m = ReduceMax<keepdims=0>(sum2) \n c2 = Less(m, three)" if ends else "c2 = Identity(c)"
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["": 14]>
        net (float[t, 2] x) => (float[2] sum, {kind}[u, 2] y, int32[u, 2] z)
        <float[2] start = {{0, 0}}, int64 zero = {{0}}, bool go = {{1}}, float three = {{3}}> {{
            s = Shape(x)
            n = {count}
            sum, y, z = Loop(n, go, start) <body = step (int64 i, bool c, float[2] old)
                => (bool c2, float[2] sum2, {kind}[2] a, int32[2] b) {{
                row = Gather<axis=0>(x, i)
                size = Abs(row)
                sum2 = Add(old, size)
                tanh = Tanh(sum2)
                a = Cast<to = {1 if kind == "float" else 6}>(tanh)
                b = Cast<to = 6>(sum2)
                {told}
            }}>
        }}""")
    return model, [{"x": draw(size, 2)} for size in (9, 5, 1)]


CASES: dict[str, tuple[str, Callable[[], Case], float]] = {
    "LSTM of fixed length": ("recurrent-sequence", lambda: recurrent("LSTM"), 1e-5),
    "GRU of open length": ("recurrent-sequence", lambda: recurrent("GRU", steps="t"), 1e-5),
    "bidirectional LSTM of open length with states": (
        "recurrent-sequence",
        lambda: recurrent("LSTM", steps="t", both=True, states=True),
        1e-5,
    ),
    "a Loop that collects": ("loop-collected", loop, 0.0),
    "a Loop that collects and may end early": ("loop-collected", lambda: loop(ends=True), 0.0),
}
# Where MNN, at high too, does not compute the source right.
WRONG_AT_HIGH: dict[str, tuple[str, Callable[[], Case], float]] = {
    "LSTM of open length with lengths": (
        "recurrent-sequence",
        lambda: recurrent("LSTM", steps="t", both=True, lengths=True),
        1e-5,
    ),
}
LEFT_ALONE: dict[str, Callable[[], Case]] = {
    "RNN": lambda: recurrent("RNN"),
    "LSTM of one step": lambda: recurrent("LSTM", steps=1),
    "LSTM of which the last state is used": lambda: without("y", recurrent("LSTM")),
    "a Loop that collects integers": lambda: loop(kind="int32"),
    "a Loop of whose floats none is used": lambda: without("y", loop()),
    "a Loop of a count that stands for no end": lambda: loop(
        ends=True, count="Constant<value_int=2147483647>()"
    ),
}


def without(name: str, case: Case) -> Case:
    """The net with one output less."""
    model, feeds = case
    kept = [value for value in model.graph.output if value.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model, feeds


@pytest.mark.parametrize("name", CASES | WRONG_AT_HIGH)
def test_the_same_after(host: Host, tmp_path: Path, name: str) -> None:
    rule, make, tolerance = (CASES | WRONG_AT_HIGH)[name]
    model, feeds = make()
    expected = reference(model, feeds)
    result, done = repaired(model, tmp_path / "repair", *low_rules())
    assert [f.rule for f in done.fired] == [rule]
    found = reference(result, feeds)
    assert close(found, expected, tolerance) if tolerance else same_bits(found, expected)
    assert close(through_mnn(host, result, feeds, tmp_path / "mnn"), expected, 1e-5)
    assert not repaired(result, tmp_path / "again", *low_rules())[1].fired
    initializers = [{i.name for i in m.graph.initializer} for m in (model, result)]
    assert initializers[0] <= initializers[1]


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone(tmp_path: Path, name: str) -> None:
    model, _ = LEFT_ALONE[name]()
    assert not repaired(model, tmp_path / "repair", *low_rules())[1].fired


def test_none_is_applied_without_a_target() -> None:
    assert low_rules()
    assert not set(low_rules()) & {*all_rules(), *always_rules()}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_check_names_what_is_wrong_at_low_whatever_the_values(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(recurrent(kind)[0], path)
    report = check_file(path)
    assert [(h.rule, h.repaired) for h in report.hazards] == (
        [] if kind == "RNN" else [("recurrent-sequence", True)]
    )
    assert report.clean  # at high it is right
