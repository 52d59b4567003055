"""The rewrites for models of open sizes: wrong in MNN or refused without them, right with them at every size
that is tried, the same in onnxruntime, and nothing where MNN is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from evaluation.nets.mnn_models import node
from mnnprep.repair.table import all_rules
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.rewriting import Arrays, build, close, reference, repaired, through_mnn

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Sizes = Mapping[str, int]
IMAGES = ({"n": 2, "h": 8, "w": 5}, {"n": 1, "h": 3, "w": 7})
SEQUENCES = ({"s": 5, "b": 3}, {"s": 2, "b": 1})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(Worker("test", ("numpy", "MNN", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


def weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def feeds_of(model: Any, sizes: Sizes, indices: tuple[int, int] = (0, 1)) -> Arrays:
    """Random inputs at *sizes*; integers within *indices*."""
    random = np.random.default_rng(7)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or sizes[d.dim_param] for d in kind.shape.dim]
        if kind.elem_type == INT64:
            feeds[value.name] = random.integers(indices[0], indices[1] + 1, shape)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(np.float32)
    return feeds


# -- the models ------------------------------------------------------------------------------------


def resized(mode: str, scales: Sequence[float] = (), opset: int = 13, **attributes: Any) -> Any:
    """Resize by *scales*; without them to 11 x 13."""
    held = {"s": np.array([1, 1, *scales], np.float32)}
    nodes = [node("Resize", ["x", "", "s"] if opset > 10 else ["x", "s"], ["y"], mode=mode, **attributes)]
    if not scales:
        held = {"c": np.array([11, 13]), "a": np.array([0]), "b": np.array([2])}
        nodes = [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape", "a", "b"], ["kept"]),
            node("Concat", ["kept", "c"], ["sizes"], axis=0),
            node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode, **attributes),
        ]
    return build(nodes, [("x", FLOAT, ["n", 2, "h", "w"])], [("y", FLOAT, None)], held, opset)


def transposed(rank: int, kernel: int = 3, stride: int = 2, sizes: Sequence[Any] = (), **kept: Any) -> Any:
    """A ConvTranspose over *rank* axes, open but for *sizes*."""
    inside = list(sizes) or ["h", "w", "h"][:rank]
    attributes = {"strides": [stride] * rank, "kernel_shape": [kernel] * rank, **kept}
    return build(
        [node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)],
        [("x", FLOAT, ["n", 2, *inside])],
        [("y", FLOAT, None)],
        {"w": weights(2, 3, *[kernel] * rank), "b": weights(3 * kept.get("group", 1))},
    )


def scattered(op: str, reduction: str, data: list[Any], indices: list[Any], **attributes: Any) -> Any:
    updates = indices if op == "ScatterElements" else [*indices[:-1], *data[indices[-1] :]]
    return build(
        [node(op, ["x", "i", "u"], ["y"], reduction=reduction, **attributes)],
        [("x", FLOAT, data), ("i", INT64, indices), ("u", FLOAT, updates)],
        [("y", FLOAT, None)],
        {},
        18,
    )


def divided(divisor: Sequence[Any], left: str = "x") -> Any:
    """x by the number of its rows (`rows`), after the nodes *divisor* made `d` of it."""
    return build(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "first"], ["count"]),
            node("Cast", ["count"], ["rows"], to=FLOAT),
            *divisor,
            node("Div", [left, "d"], ["q"]),
            node("Mul", ["x", "q"], ["y"]),
        ],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, None)],
        {"first": np.array(0), "one": np.float32(1)},
    )


def lstm(steps: Any, batch: Any, states: str, **attributes: Any) -> Any:
    """An LSTM on the model's input whose initial states are zeros, an input, or left out."""
    inputs: list[Any] = [("x", FLOAT, [steps, batch, 6])]
    held = {"w": weights(1, 20, 6), "r": weights(1, 20, 5, seed=1), "b": weights(1, 40, seed=2)}
    nodes, given = [], ["x", "w", "r", "b"]
    if states == "zero":
        held |= {"at": np.array([1]), "one": np.array([1]), "five": np.array([5])}
        nodes = [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "at"], ["batch"]),
            node("Concat", ["one", "batch", "five"], ["wanted"], axis=0),
            node("ConstantOfShape", ["wanted"], ["zeros"], value=helper.make_tensor("v", FLOAT, [1], [0.0])),
        ]
        given += ["", "zeros", "zeros"]
    elif states == "given":
        inputs += [("h", FLOAT, [1, batch, 5]), ("c", FLOAT, [1, batch, 5])]
        given += ["", "h", "c"]
    nodes.append(node("LSTM", given, ["y", "h1", "c1"], hidden_size=5, **attributes))
    return build(nodes, inputs, [(name, FLOAT, None) for name in ("y", "h1", "c1")], held)


def lengths(kind: str) -> Any:
    """A recurrent net in both directions over sequences of their own lengths; their longest is open."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    held = {"w": weights(2, gates * 5, 6), "r": weights(2, gates * 5, 5), "b": weights(2, gates * 10)}
    outputs = ["y", "h1", "c1"][: 3 if kind == "LSTM" else 2]
    attributes = {"hidden_size": 5, "direction": "bidirectional"}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    return build(
        [
            node("Cast", ["l"], ["lengths"], to=TensorProto.INT32),
            node(kind, ["x", "w", "r", "b", "lengths"], outputs, **attributes),
        ],
        [("x", FLOAT, ["s", "b", 6]), ("l", INT64, ["b"])],
        [(name, FLOAT, None) for name in outputs],
        held,
    )


Case = tuple[str, Callable[[], Any], Sequence[Sizes]]
CASES: dict[str, Case] = {
    "Resize 10, linear": ("resize-forms", lambda: resized("linear", (2, 2), 10), IMAGES),
    "Resize 10, nearest by 1.9": ("resize-forms", lambda: resized("nearest", (1.9, 2), 10), IMAGES),
    "Resize 10, nearest by 0.3": ("resize-forms", lambda: resized("nearest", (0.3, 0.7), 10), IMAGES),
    "Resize, cubic": (
        "resize-forms",
        lambda: resized("cubic", (2, 2), coordinate_transformation_mode="pytorch_half_pixel"),
        IMAGES,
    ),
    "Resize, cubic to sizes": ("resize-forms", lambda: resized("cubic", cubic_coeff_a=-0.5), IMAGES),
    "Resize, cubic, nothing outside": (
        "resize-forms",
        lambda: resized("cubic", (1.9, 2), exclude_outside=1),
        IMAGES,
    ),
    "Resize, antialias": ("resize-forms", lambda: resized("linear", (0.3, 0.7), 18, antialias=1), IMAGES),
    "Resize, symmetric": (
        "resize-forms",
        lambda: resized("cubic", (1.9, 2), 19, coordinate_transformation_mode="half_pixel_symmetric"),
        IMAGES,
    ),
    "Resize, nearest up": (
        "resize-forms",
        lambda: resized("nearest", nearest_mode="ceil", coordinate_transformation_mode="asymmetric"),
        IMAGES,
    ),
    "ConvTranspose, SAME_LOWER": (
        "deconv-padding",
        lambda: transposed(2, auto_pad="SAME_LOWER"),
        IMAGES,
    ),
    "ConvTranspose, output_shape": (
        "deconv-padding",
        lambda: transposed(2, sizes=(5, 6), output_shape=[10, 12]),
        IMAGES,
    ),
    "ConvTranspose 3-D": ("conv3d-forms", lambda: transposed(3), IMAGES),
    "ConvTranspose 3-D, padded": (
        "conv3d-forms",
        lambda: transposed(3, pads=[1, 0, 1, 1, 1, 0], output_padding=[0, 1, 1]),
        IMAGES,
    ),
    "ConvTranspose 3-D, SAME": ("conv3d-forms", lambda: transposed(3, auto_pad="SAME_UPPER"), IMAGES),
    "ConvTranspose 3-D, wide strides": ("conv3d-forms", lambda: transposed(3, 2, 3, group=2), IMAGES),
    **{
        f"ScatterND, {reduction}": (
            "scatter-reduction",
            lambda reduction=reduction: scattered("ScatterND", reduction, ["n", 2, "h"], ["w", 2]),
            IMAGES[:1],
        )
        for reduction in ("add", "mul", "max", "min")
    },
    "ScatterND, a row of fixed data": (
        "scatter-reduction",
        lambda: scattered("ScatterND", "add", [5, 3], ["h", 1]),
        IMAGES,
    ),
    "ScatterElements, add": (
        "scatter-reduction",
        lambda: scattered("ScatterElements", "add", ["n", "h"], ["n", "w"], axis=1),
        IMAGES,
    ),
    "ScatterElements, max": (
        "scatter-reduction",
        lambda: scattered("ScatterElements", "max", ["h", 4], ["w", 2]),
        IMAGES,
    ),
    "Div by rows": ("div-by-size", lambda: divided([node("Identity", ["rows"], ["d"])]), IMAGES),
    "Div by the root of rows": ("div-by-size", lambda: divided([node("Sqrt", ["rows"], ["d"])]), IMAGES),
    "Div of two sizes": (
        "div-by-size",
        lambda: divided([node("Sqrt", ["rows"], ["d"])], left="rows"),
        IMAGES,
    ),
    "LSTM, states of zero": ("lstm-initial-states", lambda: lstm("s", "b", "zero"), SEQUENCES),
    "LSTM, states given": ("lstm-initial-states", lambda: lstm("s", "b", "given"), SEQUENCES),
    "LSTM, one sequence": ("lstm-initial-states", lambda: lstm("s", 1, "zero"), SEQUENCES),
    "LSTM, three sequences": ("lstm-initial-states", lambda: lstm("s", 3, "given"), SEQUENCES),
    "LSTM backwards": (
        "lstm-initial-states",
        lambda: lstm("s", 3, "given", direction="reverse"),
        SEQUENCES,
    ),
    **{
        f"{kind} with lengths": ("recurrent-inputs", lambda kind=kind: lengths(kind), SEQUENCES[:1])
        for kind in ("LSTM", "GRU", "RNN")
    },
}
# Models that look like one of the above, and that MNN computes right.
RIGHT: dict[str, Callable[[], Any]] = {
    "Resize 10, nearest by 2": lambda: resized("nearest", (2, 2), 10),
    "ConvTranspose, SAME_LOWER, even": lambda: transposed(2, 4, auto_pad="SAME_LOWER"),
    "ConvTranspose, SAME_UPPER": lambda: transposed(2, auto_pad="SAME_UPPER"),
    "Div by what the input decides": lambda: divided([node("ReduceMax", ["x"], ["d"], keepdims=0)]),
    "LSTM, no states": lambda: lstm("s", 3, "none"),
    "LSTM, fixed steps": lambda: lstm(4, "b", "given"),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_without_and_right_with(name: str, host: Host, tmp_path: Path) -> None:
    rule, make, all_sizes = CASES[name]
    model = make()
    feeds = [feeds_of(model, sizes) for sizes in all_sizes]
    expected = reference(model, feeds)
    assert not close(through_mnn(host, model, feeds, tmp_path / "before"), expected, 1e-3)
    new, done = repaired(model, tmp_path / "rule", rule)
    assert [applied.rule for applied in done.fired] == [rule]
    assert close(reference(new, feeds), expected, 1e-5)
    new, _ = repaired(new, tmp_path / "all", *all_rules())
    assert close(through_mnn(host, new, feeds, tmp_path / "after"), expected, 1e-4)
    again, done = repaired(new, tmp_path / "again", rule)
    assert again is new
    assert not done.fired


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_are_left_alone(name: str, host: Host, tmp_path: Path) -> None:
    model = RIGHT[name]()
    sizes = {"n": 2, "h": 5, "w": 6, "s": 5, "b": 3}
    feeds = [feeds_of(model, sizes)]
    assert close(through_mnn(host, model, feeds, tmp_path / "mnn"), reference(model, feeds), 1e-4)
    _, done = repaired(model, tmp_path / "rules", *(rule for rule, _, _ in CASES.values()))
    assert not done.fired


def test_fused_operators_behind_fused_operators(host: Host, tmp_path: Path) -> None:
    """The sizes that the second one needs are known only after the first is written out."""
    model = build(
        [
            helper.make_node("SimplifiedLayerNormalization", ["x", "g"], ["n"], axis=-1, epsilon=1e-5),
            node("MatMul", ["n", "w"], ["q"]),
            helper.make_node(
                "RotaryEmbedding", ["q", "p", "cos", "sin"], ["y"], domain="com.microsoft", num_heads=2
            ),
        ],
        [("x", FLOAT, ["b", "s", 8]), ("p", INT64, ["b", "s"])],
        [("y", FLOAT, ["b", "s", 8])],
        {
            "g": weights(8),
            "w": weights(8, 8),
            "cos": np.cos(np.outer(np.arange(8), [1, 0.01])).astype(np.float32),
            "sin": np.sin(np.outer(np.arange(8), [1, 0.01])).astype(np.float32),
        },
        17,
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    feeds = [feeds_of(model, sizes, (0, 7)) for sizes in SEQUENCES]
    expected = reference(model, feeds)
    new, done = repaired(model, tmp_path / "rule", "microsoft-operators")
    assert [len(applied.nodes) for applied in done.fired] == [2]
    assert close(reference(new, feeds), expected, 1e-5)
    assert close(through_mnn(host, new, feeds, tmp_path / "after"), expected, 1e-4)
