"""`check --target`: what half precision breaks in a net, and what not, as measured with MNN 3.6.1 on ARM64.

The numbers beside the nets are the SQNR that MNN had at precision low, emulated, on a CPU with float16.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import mnnprep
from mnnprep.cli.check import command
from mnnprep.cli.sarif import document
from mnnprep.commands.check_target import in_half
from mnnprep.errors import UsageError
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.target import Target
from mnnprep.repair.low_hazards.step import LowFindings, LowJob, low_hazards

Make = Callable[["Net"], str]


class Net:
    """A graph under construction; operands that are no names become initializers."""

    def __init__(self, opset: int = 13) -> None:
        self.random = np.random.default_rng(1)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.feeds: dict[str, Any] = {}
        self.opset = opset

    def input(self, array: Any, name: str = "x") -> str:
        self.feeds[name] = np.asarray(array, np.float32)
        return name

    def normal(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> str:
        return self.input(self.random.standard_normal(shape) * scale + offset)

    def uniform(self, low: float, high: float, *shape: int) -> str:
        return self.input(self.random.uniform(low, high, shape))

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        return self.stored(self.random.standard_normal(shape) * scale)

    def stored(self, array: Any, dtype: str = "f4") -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, operator: str, *operands: Any, **attributes: Any) -> str:
        names = [o if isinstance(o, str) else self.stored(o) for o in operands]
        name = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, names, [name], f"{operator}_{len(self.nodes)}", **attributes)
        )
        return name

    def sum(self, value: str, *axes: int) -> str:
        return self.op("ReduceSum", value, self.stored(axes, "i8"))

    def mean(self, value: str, axis: int = -1) -> str:
        return self.op("ReduceMean", value, axes=[axis])

    def save(self, path: Path, output: str) -> Path:
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in self.feeds.items()]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.weights)
        imports = [helper.make_opsetid("", self.opset)]
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=imports, ir_version=8)
        )
        onnx.save(model, path)
        return path


def softmax_without_shift(n: Net) -> str:
    e = n.op("Exp", n.normal(4, 64, offset=11))
    return n.op("Div", e, n.sum(e, -1))


def norm(n: Net, square: str = "Pow", *, scale: float = 400.0) -> str:
    x = n.normal(1, 16, 256, scale=scale)
    d = n.op("Sub", x, n.mean(x))
    squares = n.op("Pow", d, 2.0) if square == "Pow" else n.op("Mul", d, d)
    return n.op("Div", d, n.op("Sqrt", n.op("Add", n.mean(squares), 1e-5)))


def rms(n: Net, power: bool = False) -> str:
    x = n.normal(1, 16, 256, scale=400)
    inner = n.op("Add", n.mean(n.op("Mul", x, x)), 1e-6)
    return n.op("Mul", x, n.op("Pow", inner, -0.5)) if power else n.op("Div", x, n.op("Sqrt", inner))


def l2(n: Net, scale: float) -> str:
    x = n.normal(4, 256, scale=scale)
    return n.op("Div", x, n.op("Sqrt", n.sum(n.op("Mul", x, x), 1)))


def masked(n: Net, value: float) -> str:
    mask = n.input(n.random.uniform(size=(1, 16, 16)) > 0.3, "mask")
    x = n.op("Mul", n.normal(1, 16, 16), 1.1)
    return n.op("Softmax", n.op("Add", x, n.op("Mul", n.op("Sub", 1.0, mask), value)), axis=-1)


def scores(n: Net, size: float, scale: float) -> str:
    x = n.normal(1, 16, 64)
    q, k = (n.op("MatMul", x, n.weight(64, 64, scale=size / 8)) for _ in range(2))
    product = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    return n.op("Softmax", n.op("Mul", product, scale), axis=-1)


def convolution(n: Net, largest: float) -> str:
    x = n.random.standard_normal((1, 16, 24, 24))
    w = n.weight(16, 16, 3, 3, scale=0.08)
    return n.op("Mul", n.op("Conv", n.input(x / np.abs(x).max() * largest), w), 1e-3)


def large_result(n: Net, largest: float) -> str:
    w = n.random.uniform(0, 1, (8, 16, 3, 3))
    w *= largest / 150 / w.sum((1, 2, 3), keepdims=True)
    return n.op("Mul", n.op("Conv", n.uniform(0, 255, 1, 16, 16, 16), w, pads=[1] * 4), 1e-3)


def cancelling(n: Net) -> str:
    w = np.concatenate([np.full((512, 16), 20.0), np.full((512, 16), -20.0)])
    return n.op("MatMul", n.uniform(9, 11, 4, 1024), w)


def log_of(n: Net, epsilon: float) -> str:
    x = n.random.uniform(0, 1, (4, 64)) * (n.random.uniform(size=(4, 64)) > 0.5)
    return n.op("Log", n.op("Add", n.input(x), epsilon))


def pixels(n: Net) -> str:
    x = n.uniform(0, 255, 1, 3, 32, 32)
    return n.op("Div", n.sum(n.op("Mul", x, x), 1, 2, 3), 1e4)


def variance(n: Net) -> str:
    x = n.normal(4, 256, offset=30)
    m = n.mean(x, 1)
    return n.op("Sub", n.mean(n.op("Mul", x, x), 1), n.op("Mul", m, m))


def convnet(n: Net) -> str:
    value, channels = n.normal(1, 3, 24, 24), 3
    for _ in range(3):
        value = n.op("Relu", n.op("Conv", value, n.weight(32, channels, 3, 3, scale=0.1), pads=[1] * 4))
        channels = 32
    return n.op("Softmax", n.op("Flatten", n.op("GlobalAveragePool", value)), axis=1)


# What MNN gets wrong at low: the finding, and the operator it is at.
WRONG: dict[str, tuple[Make, str, str]] = {
    "sum of squares of pixels": (pixels, "half-overflow", "ReduceSum"),  # 0 dB
    "softmax without its shift": (softmax_without_shift, "half-overflow", "Exp"),  # -29 dB
    "norm of large numbers": (lambda n: l2(n, 50), "half-overflow", "ReduceSum"),  # -15 dB
    "norm of tiny numbers": (lambda n: l2(n, 1e-4), "half-underflow", "Mul"),  # 6 dB
    "layer norm squared by a Mul": (lambda n: norm(n, "Mul"), "half-overflow", "Mul"),  # 5 dB
    "RMS norm with a power": (lambda n: rms(n, power=True), "half-overflow", "Mul"),  # 5 dB
    "scores of 70,000": (lambda n: scores(n, 65, 0.001), "half-overflow", "MatMul"),  # NaN
    "exp": (lambda n: n.op("Mul", n.op("Exp", n.uniform(9, 11.5, 4, 64)), 1e-5), "half-overflow", "Exp"),
    "log with a tiny epsilon": (lambda n: log_of(n, 1e-10), "half-vanished", "Log"),  # -69 dB
    "variance by E[x2]-E[x]2": (variance, "half-cancellation", "Sub"),  # 7 dB
    "an offset": (lambda n: n.op("Sub", n.uniform(2000, 2001, 4, 64), 2000.0), "half-cancellation", "Sub"),
    "phase": (lambda n: n.op("Sin", n.uniform(0, 6000, 4, 64)), "half-argument", "Sin"),  # 4 dB
    "a constant": (
        lambda n: n.op("Mul", n.op("Mul", n.normal(4, 64), 1e-8), 1e8),
        "half-constant",
        "Mul",
    ),  # 0 dB
    "global pool": (
        lambda n: n.op("GlobalAveragePool", n.uniform(0, 1, 1, 4, 128, 128)),
        "half-pool",
        "GlobalAveragePool",
    ),  # 2.5 dB
    "convolution of large numbers": (lambda n: convolution(n, 2500), "half-winograd", "Conv"),  # NaN
    "convolution to a large result": (lambda n: large_result(n, 45000), "half-winograd", "Conv"),  # NaN
    "norm of order 1": (
        lambda n: n.op("LpNormalization", n.normal(4, 5000, scale=60), axis=1, p=1),
        "half-overflow",
        "LpNormalization",
    ),
    "sums that cancel": (cancelling, "half-sum", "MatMul"),  # NaN
    "softplus": (lambda n: n.op("Softplus", n.normal(4, 64, scale=15)), "half-overflow", "Softplus"),  # 6 dB
    "LRN": (
        lambda n: n.op("LRN", n.normal(1, 8, 8, 8, scale=300), size=5),
        "half-lrn",
        "LRN",
    ),  # 0.8 dB
    "log-sum-exp": (
        lambda n: n.op("ReduceLogSumExp", n.normal(4, 64, offset=12), axes=[1]),
        "half-overflow",
        "ReduceLogSumExp",
    ),  # 9.6 dB
}
# What MNN gets right there, though plain rounding says otherwise or the numbers look dangerous.
RIGHT: dict[str, Make] = {
    "convnet": convnet,  # 45 dB
    "layer norm of large numbers": norm,  # 69 dB
    "layer norm of tiny numbers": lambda n: norm(n, scale=1e-3),  # 69 dB
    "RMS norm of large numbers": rms,  # 71 dB
    "mask of -1e9": lambda n: masked(n, -1e9),  # 63 dB
    "mask of the least float": lambda n: masked(n, float(np.finfo("f4").min)),  # 64 dB
    "scores of 10,000": lambda n: scores(n, 22, 0.01),  # 51 dB
    "mean of a large map": lambda n: n.op(
        "ReduceMean", n.uniform(0, 20, 1, 4, 100, 100), axes=[2, 3]
    ),  # 70 dB
    "pool of a small map": lambda n: n.op("GlobalAveragePool", n.uniform(0, 1, 1, 4, 32, 32)),  # 54 dB
    "statistics of a batch norm": lambda n: n.op(
        "BatchNormalization", n.normal(1, 4, 8, 8, scale=1e3), *(np.full(4, v) for v in (1, 0, 0, 1e6))
    ),  # 66 dB
    "tanh of infinity": lambda n: n.op("Tanh", n.op("Mul", n.normal(4, 64, scale=300), 300.0)),  # 96 dB
    "sigmoid written out": lambda n: n.op(
        "Div", 1.0, n.op("Add", 1.0, n.op("Exp", n.op("Neg", n.normal(4, 64, scale=15))))
    ),  # 75 dB
    "convolution of 1,000": lambda n: convolution(n, 1000),  # 42 dB
    "convolution to a result of 10,000": lambda n: large_result(n, 12000),  # 59 dB
    "log with an epsilon": lambda n: log_of(n, 1e-4),
    "cumulative sum": lambda n: n.op("CumSum", n.uniform(0, 1, 2, 3000), n.stored(1, "i4")),  # 48 dB
    "softplus of small numbers": lambda n: n.op("Softplus", n.normal(4, 64, scale=2)),
}


Ranges = dict[str, tuple[float, float]]


def told(tmp_path: Path, make: Make, ranges: Ranges | None = None) -> LowFindings:
    net = Net()
    model = net.save(tmp_path / "m.onnx", make(net))
    save_arrays(tmp_path / "0.npz", {f"inputs/{n}": a for n, a in net.feeds.items()})
    cases = [CaseFile(index=0, origin="seed 0", dims={}, file=file_ref(tmp_path / "0.npz"))]
    return low_hazards(LowJob(model=str(model), cases=cases, directory=str(tmp_path), ranges=ranges or {}))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_at_its_node(tmp_path: Path, name: str) -> None:
    make, rule, operator = WRONG[name]
    found = told(tmp_path, make).findings
    assert (rule, operator) in [(f.rule, f.operator) for f in found]
    assert len(found) == 1
    assert found[0].detail


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_left_alone(tmp_path: Path, name: str) -> None:
    assert told(tmp_path, RIGHT[name]).findings == []


def projected(n: Net, scale: float, end: str = "Mul") -> str:
    """Sums of many signs: far from float16's limit for ordinary values, beyond it where all agree."""
    signs = n.stored(np.sign(n.random.standard_normal((2048, 4))) * scale)
    made = n.op("MatMul", n.uniform(-60, 60, 1, 2048), signs)
    return n.op("Mul", made, 1e-3) if end == "Mul" else n.op(end, made)


def filtered(n: Net) -> str:
    signs = n.stored(np.sign(n.random.standard_normal((4, 128, 3, 3))))
    return n.op("Mul", n.op("Conv", n.uniform(-60, 60, 1, 128, 9, 9), signs, strides=[3, 3]), 1e-3)


def squared(n: Net) -> str:
    return n.op("Mul", n.op("Exp", n.uniform(0, 8, 1, 16)), 1e-3)


WIDE: Ranges = {"x": (-60.0, 60.0)}
AT_CORNERS: dict[str, tuple[Make, Ranges, str]] = {
    "signs of a product": (lambda n: projected(n, 1.0), WIDE, "MatMul"),
    "signs of a convolution": (filtered, WIDE, "Conv"),
    "the greatest of all": (squared, {"x": (0.0, 12.0)}, "Exp"),
}


@pytest.mark.parametrize("name", AT_CORNERS)
def test_what_overflows_at_a_corner_of_the_ranges_was_seen_there(tmp_path: Path, name: str) -> None:
    make, ranges, operator = AT_CORNERS[name]
    assert told(tmp_path, make).findings == []
    (finding,) = told(tmp_path, make, ranges).findings
    assert (finding.rule, finding.operator) == ("half-overflow", operator)
    assert finding.detail.endswith("at a corner of the declared ranges")


HELD: dict[str, tuple[Make, Ranges]] = {
    "a bound within the range": (lambda n: projected(n, 0.4), WIDE),
    "what saturates": (lambda n: projected(n, 1.0, "Tanh"), WIDE),
    "a norm of equal numbers": (lambda n: norm(n, scale=1.0), {"x": (-2.0, 2.0)}),
    "an input of another name": (squared, {"z": (0.0, 12.0)}),
}


@pytest.mark.parametrize("name", HELD)
def test_a_corner_raises_no_false_alarm(tmp_path: Path, name: str) -> None:
    make, ranges = HELD[name]
    assert told(tmp_path, make, ranges).findings == []


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    net = Net()
    return net.save(tmp_path / "pixels.onnx", pixels(net))


class TestCommand:
    def test_a_finding_has_node_value_limit_and_remedy(self, wrong: Path) -> None:
        assert mnnprep.check(wrong, rules_only=True).clean
        report = mnnprep.check(wrong, rules_only=True, targets=["arm64:low"], ranges={"x": (0, 255)})
        (hazard,) = report.hazards
        assert hazard.repaired  # by the rule power-of-two
        assert (hazard.rule, hazard.node, hazard.severity) == (
            "half-overflow",
            "ReduceSum ReduceSum_1",
            "wrong",
        )
        assert "65,504" in hazard.detail
        assert hazard.remedy
        results = document(report)["runs"][0]["results"]
        assert [result["ruleId"] for result in results] == ["half-overflow"]

    def test_the_values_of_the_inputs_decide(self, wrong: Path, tmp_path: Path) -> None:
        assert mnnprep.check(wrong, rules_only=True, targets=["arm64:low"], ranges={"x": (0, 1)}).clean
        for index in range(8):
            np.savez(tmp_path / f"{index}.npz", x=np.full((1, 3, 32, 32), 100 + index, "f4"))
        report = mnnprep.check(
            wrong, rules_only=True, targets=["arm64:low"], ranges={"x": (0, 1)}, samples=tmp_path
        )
        assert [h.rule for h in report.hazards] == ["half-overflow"]

    def test_the_command_line(self, wrong: Path) -> None:
        ran = CliRunner().invoke(
            command, [str(wrong), "--target", "arm64:low", "--json", "--rules-only"], standalone_mode=False
        )
        assert ran.return_value == 1
        assert json.loads(ran.output)["targets"] == ["arm64:low"]

    @pytest.mark.parametrize("target", ["arm64:high", "host:low", "arm64:low,cpu=cortex-a53"])
    def test_where_mnn_computes_in_float32_nothing_is_run(self, wrong: Path, target: str) -> None:
        if target == "host:low" and in_half(Target.parse(target)):
            pytest.skip("this machine computes in half precision")
        report = mnnprep.check(wrong, rules_only=True, targets=[target])
        assert report.clean
        assert "float32" in report.notes[0]

    def test_other_formats_are_told_to_prepare(self, tmp_path: Path) -> None:
        from evaluation.nets import caffe_nets

        small = caffe_nets.Small(
            caffe_nets.header((1, 4, 6, 6)) + caffe_nets.layer("relu", "ReLU"), (1, 4, 6, 6), {}
        )
        report = mnnprep.check(caffe_nets.write(tmp_path, small), targets=["arm64:low"])
        assert "prepare --target" in report.notes[0]

    def test_the_rules_for_low_precision_are_asked_too(self, tmp_path: Path) -> None:
        net = Net()
        x = net.normal(20, 1, 16)
        lstm = net.op("LSTM", x, *(net.weight(1, 96, k, scale=0.2) for k in (16, 24)), hidden_size=24)
        model = net.save(tmp_path / "lstm.onnx", lstm)
        for targets, severity in (([], "low"), (["arm64:low"], "wrong")):
            report = mnnprep.check(model, rules_only=True, targets=targets)
            found = [h for h in report.hazards if h.rule == "recurrent-sequence"]
            assert [(h.severity, h.repaired) for h in found] == [(severity, True)]

    def test_a_target_that_is_none(self, wrong: Path) -> None:
        with pytest.raises(UsageError):
            mnnprep.check(wrong, targets=["mars"])
