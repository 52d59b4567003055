"""The repair rules: wrong or refused by MNN without them, right with them, the same in onnxruntime, and
nothing where nothing is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from evaluation.nets.mnn_models import Value, floats, node
from mnnprep.errors import UsageError
from mnnprep.repair.steps import Repaired
from mnnprep.repair.table import RULES, all_rules, always_rules
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.rewriting import Arrays, build, close, reference, repaired, same_bits, through_mnn

X: Value = floats("x", "a", "b")
POISON = {  # glibc fills all that it gives: uninitialised memory is never zero by chance
    "MALLOC_PERTURB_": "153",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in POISON.items():
            patch.setenv(name, value)
        with Host(Worker("test", ("numpy", "MNN", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
            yield host


def in_branch(model: Any) -> Any:
    """The same model with its nodes in one branch of an If (on the sum of the first input being above
    -1e30).
    """
    graph = model.graph
    outputs = [
        helper.make_tensor_value_info(f"{o.name}_branch", o.type.tensor_type.elem_type, None)
        for o in graph.output
    ]
    leave = [helper.make_node("Identity", [o.name], [f"{o.name}_branch"]) for o in graph.output]
    taken = helper.make_graph([*graph.node, *leave], "taken", [], outputs)
    other = helper.make_graph([node("Neg", ["x"], [o.name]) for o in outputs], "other", [], outputs)
    if any(o.type.tensor_type.elem_type != TensorProto.FLOAT for o in outputs):
        raise ValueError("the other branch is float32")
    test = [node("ReduceMax", ["x"], ["_m"], keepdims=0)]
    test += [
        node("Greater", ["_m", "_low"], ["_c"]),
        node("If", ["_c"], [o.name for o in graph.output], then_branch=taken, else_branch=other),
    ]
    weights = [*graph.initializer, numpy_helper.from_array(np.float32(-1e30), "_low")]
    free = [helper.make_tensor_value_info(o.name, TensorProto.FLOAT, None) for o in graph.output]
    return helper.make_model(
        helper.make_graph(test, "net", graph.input, free, weights),
        opset_imports=model.opset_import,
        ir_version=8,
    )


def random(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- the models ------------------------------------------------------------------------------------


def filled(value: Any, shape: list[int] | None, to: int | None = TensorProto.FLOAT) -> Any:
    """y = x + ConstantOfShape(shape, or the shape of x), or that itself as y where *to* is None."""
    attributes = {} if value is None else {"value": numpy_helper.from_array(np.array(value).reshape(1), "v")}
    nodes = [] if shape is not None else [node("Shape", ["x"], ["s"])]
    nodes.append(node("ConstantOfShape", ["s"], ["c"], **attributes))
    if value is None:
        nodes.append(node("Concat", ["x", "c"], ["y"], axis=0))
    else:
        nodes += [node("Cast", ["c"], ["f"], to=to), node("Add", ["f", "x"], ["y"])]
    return build(
        nodes,
        [X],
        [("y", TensorProto.FLOAT, None)],
        {} if shape is None else {"s": np.array(shape, np.int64)},
    )


def gelu(
    *,
    x_first: bool = True,
    half_first: bool = False,
    one_first: bool = False,
    divide: bool = True,
    halve_by_div: bool = False,
    dtype: Any = np.float32,
    shared: bool = False,
    last: str = "y",
) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    scale = np.sqrt(2) if divide else np.sqrt(0.5)
    weights = {"k": dtype(scale), "one": dtype(1), "half": dtype(2 if halve_by_div else 0.5)}
    nodes = [
        node("Div" if divide else "Mul", ["x", "k"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["one", "e"] if one_first else ["e", "one"], ["a"]),
        node("Mul", ["x", "a"] if x_first else ["a", "x"], ["p"]),
        node(
            "Div" if halve_by_div else "Mul",
            ["half", "p"] if half_first else ["p", "half"],
            [last],
            name="halve",
        ),
    ]
    outputs: list[Any] = [(last, kind, None)]
    if shared:
        outputs += [("p", kind, None), ("a", kind, None)]
    return build(nodes, [("x", kind, ("a", "b"))], outputs, weights)


def guard(version: int = 13, dtype: Any = np.float32, axis: int | None = -1, shared: bool = False) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("Softmax", ["x"], ["s"], **attributes),
        node("IsNaN", ["s"], ["n"], name="guard"),
        node("Where", ["n", "z", "s"], ["y"]),
    ]
    outputs: list[Any] = [("y", kind, None)]
    if shared:
        nodes += [node("Where", ["n", "one", "s"], ["w"]), node("Mul", ["s", "one"], ["m"])]
        outputs += [("w", kind, None), ("m", kind, None)]
    return build(nodes, [("x", kind, ("a", "b", "c"))], outputs, {"z": dtype(0), "one": dtype(1)}, version)


def masked(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Rows that are partly masked, one wholly, one by the lowest finite number throughout."""
    x = random(*shape, dtype=dtype, seed=seed)
    x[np.random.default_rng(seed + 1).random(shape) < 0.3] = -np.inf
    x[0, 0] = -np.inf
    x[-1, -1] = np.finfo(dtype).min
    return x


def product(
    left: Sequence[int | str], right: Sequence[int | str], weight: Any = None, version: int = 13
) -> Any:
    nodes = [node("Relu", ["x"], ["l"])]
    if weight is None:
        nodes += [node("Neg", ["w"], ["r"]), node("MatMul", ["l", "r"], ["y"])]
        return build(
            nodes, [floats("x", *left), floats("w", *right)], [("y", TensorProto.FLOAT, None)], opset=version
        )
    nodes.append(node("MatMul", ["l", "w"], ["y"]))
    return build(nodes, [floats("x", *left)], [("y", TensorProto.FLOAT, None)], {"w": weight}, version)


def pooled(pads: Sequence[int] | None = (0,) * 6, used: bool = True, **attributes: Any) -> Any:
    """A MaxPool over three dimensions, its result used or the output."""
    given = {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], **attributes} | (
        {} if pads is None else {"pads": list(pads)}
    )
    nodes = [node("MaxPool", ["x"], ["p" if used else "y"], **given)]
    if used:
        nodes.append(node("Abs", ["p"], ["y"]))
    return build(nodes, [floats("x", "n", 2, "d", 8, 6)], [floats("y", "n", 2, "e", None, None)])


def products(*shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Arrays]:
    return [{"x": random(*a, seed=i), "w": random(*b, seed=i + 50)} for i, (a, b) in enumerate(shapes)]


SIZES = [{"x": random(2, 3)}, {"x": random(4, 5, seed=1)}]
ONE_SIZE = [{"x": random(2, 3)}, {"x": random(2, 3, seed=1)}]
CURVE = [{"x": np.linspace(-6, 6, 4001, dtype=np.float32).reshape(1, -1)}]
MASKS = [{"x": masked(3, 4, 5)}, {"x": masked(2, 2, 7, seed=3)}]
RANK4 = ["p", "h", 4, 5], ["q", "g", 5, 6]
CHANGES = products(
    ((3, 3, 1, 4, 5), (3, 3, 1, 5, 6)), ((1, 3, 1, 4, 5), (1, 3, 2, 5, 6)), ((2, 1, 1, 4, 5), (2, 3, 1, 5, 6))
)
BOXES = [{"x": random(n, 2, d, 8, 6, seed=n)} for n, d in ((1, 4), (2, 5), (3, 4))]
TALL = ["p", "h", "i", 4, 5], ["q", "g", "j", 5, 6]

HAZARDS = [
    rule.name for rule in RULES if rule.rewrite is not None and not rule.preparation
]  # constants may be folded in any model

# rule, model, cases, tolerance: what MNN gets wrong, refuses or crashes on, and gets right when repaired
BROKEN: dict[str, tuple[str, Callable[[], Any], list[Arrays], float]] = {
    "value missing": ("constant-of-shape", lambda: filled(None, None), SIZES, 0.0),
    "scalar of int32": ("constant-of-shape", lambda: filled(np.int32(5), []), ONE_SIZE, 0.0),
    "scalar of int64": ("constant-of-shape", lambda: filled(np.int64(5), []), ONE_SIZE, 0.0),
    "scalar of bool": ("constant-of-shape", lambda: filled(np.True_, []), ONE_SIZE, 0.0),
    "float16": ("constant-of-shape", lambda: filled(np.float16(1.5), None), SIZES, 0.0),
    "float16, shape constant": ("constant-of-shape", lambda: filled(np.float16(1.5), [2, 3]), ONE_SIZE, 0.0),
    "uint8": ("constant-of-shape", lambda: filled(np.uint8(200), None), SIZES, 0.0),
    "int8": ("constant-of-shape", lambda: filled(np.int8(-3), None), SIZES, 0.0),
    "gelu": ("gelu-erf", gelu, CURVE, 1e-6),
    "gelu, other order": ("gelu-erf", lambda: gelu(x_first=False), CURVE, 1e-6),
    "gelu, scaled by Mul": ("gelu-erf", lambda: gelu(divide=False), CURVE, 1e-6),
    "gelu, halved by Div": ("gelu-erf", lambda: gelu(halve_by_div=True), CURVE, 1e-6),
    "gelu, its parts used elsewhere": ("gelu-erf", lambda: gelu(shared=True, x_first=False), CURVE, 1e-6),
    "guard": ("softmax-isnan-guard", guard, MASKS, 1e-6),
    "guard, opset 18": ("softmax-isnan-guard", lambda: guard(18), MASKS, 1e-6),
    "guard, another axis": ("softmax-isnan-guard", lambda: guard(axis=1), MASKS, 1e-6),
    "guard, several uses": (
        "softmax-isnan-guard",
        lambda: guard(shared=True),
        [{"x": random(3, 4, 5)}],
        1e-6,
    ),
    "MatMul": ("broadcast-matmul", lambda: product(*TALL), CHANGES, 1e-5),
    "MatMul, opset 9": ("broadcast-matmul", lambda: product(*TALL, version=9), CHANGES, 1e-5),
    "MatMul with a constant": (
        "broadcast-matmul",
        lambda: product(["p", "h", 4, 5], [], random(3, 5, 6)),
        [{"x": random(2, 3, 4, 5)}, {"x": random(3, 1, 4, 5)}, {"x": random(1, 3, 4, 5)}],
        1e-5,
    ),
    "MaxPool in 3-D without pads": ("max-pool-3d", lambda: pooled(None), BOXES, 0.0),
    "MaxPool in 3-D without pads, an output": ("max-pool-3d", lambda: pooled(None, used=False), BOXES, 0.0),
    "MaxPool in 3-D of a batch": ("max-pool-3d", pooled, BOXES[1:], 0.0),
    "MaxPool in 3-D, padded": ("max-pool-3d", lambda: pooled((1, 1, 0, 0, 1, 1)), BOXES, 0.0),
    "MaxPool in 3-D, padded by rule": (
        "max-pool-3d",
        lambda: pooled(None, auto_pad="SAME_UPPER"),
        BOXES,
        0.0,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_mnn_is_right_with_the_rule_only(host: Host, tmp_path: Path, name: str) -> None:
    rule, make, feeds, tolerance = BROKEN[name]
    model = make()
    expected = reference(model, feeds)
    assert not close(through_mnn(host, model, feeds, tmp_path / "before"), expected, tolerance)
    result, done = repaired(model, tmp_path / "repair", rule)
    assert [f.rule for f in done.fired] == [rule]
    assert len(done.fired[0].nodes) == 1
    assert same_bits(reference(result, feeds), expected)
    after = through_mnn(host, result, feeds, tmp_path / "after")
    assert close(after, expected, tolerance), after


@pytest.mark.parametrize(
    "name", [n for n in BROKEN if n != "guard, several uses" and "elsewhere" not in n and "opset 9" not in n]
)
def test_in_the_body_of_an_if(host: Host, tmp_path: Path, name: str) -> None:
    rule, make, feeds, tolerance = BROKEN[name]
    model = in_branch(make())
    expected = reference(model, feeds)
    result, done = repaired(model, tmp_path / "repair", rule)
    assert [f.rule for f in done.fired] == [rule]
    assert same_bits(reference(result, feeds), expected)
    if (
        name != "guard, another axis"
    ):  # MNN's Softmax over another axis reads uninitialised memory in a branch, guard or not
        after = through_mnn(host, result, feeds, tmp_path / "after")
        assert close(after, expected, tolerance), after


@pytest.mark.parametrize("name", BROKEN)
def test_a_second_application_finds_nothing(tmp_path: Path, name: str) -> None:
    _, make, _, _ = BROKEN[name]
    result, _ = repaired(make(), tmp_path / "first", *all_rules())
    _, again = repaired(result, tmp_path / "second", *HAZARDS)
    assert not again.fired


@pytest.mark.parametrize("name", ["gelu", "guard", "MatMul", "float16"])
def test_the_same_model_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    _, make, _, _ = BROKEN[name]
    _, first = repaired(make(), tmp_path / "a", *all_rules())
    _, second = repaired(make(), tmp_path / "b", *all_rules())
    assert [f.sha256 for f in first.files] == [f.sha256 for f in second.files]


def test_external_data_stays_external_and_its_values_stay(tmp_path: Path) -> None:
    weight = random(3, 50, 60)
    model = product(["p", "h", 4, 50], [], weight)
    result, done = repaired(model, tmp_path / "r", "broadcast-matmul", external=True)
    assert [Path(f.path).name for f in done.files] == ["model.onnx", "model.onnx.data"]
    kept = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    np.testing.assert_array_equal(kept["w"], weight)


NOTHING_TO_DO: dict[str, Callable[[], Any]] = {
    "ConstantOfShape of float32": lambda: filled(np.float32(2), None),
    "ConstantOfShape of int64, shape computed": lambda: filled(np.int64(2), None),
    "ConstantOfShape of bool, shape constant": lambda: filled(np.True_, [2, 3]),
    "erf without the halving": lambda: build(
        [
            node("Div", ["x", "k"], ["d"]),
            node("Erf", ["d"], ["e"]),
            node("Add", ["e", "one"], ["a"]),
            node("Mul", ["x", "a"], ["y"]),
        ],
        [X],
        [floats("y", "a", "b")],
        {"k": np.float32(np.sqrt(2)), "one": np.float32(1)},
    ),
    "erf of another number": lambda: build(
        [
            node("Div", ["z", "k"], ["d"]),
            node("Erf", ["d"], ["e"]),
            node("Add", ["e", "one"], ["a"]),
            node("Mul", ["x", "a"], ["p"]),
            node("Mul", ["p", "half"], ["y"]),
        ],
        [X, floats("z", "a", "b")],
        [floats("y", "a", "b")],
        {"k": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "IsNaN of an input": lambda: build(
        [node("IsNaN", ["x"], ["n"]), node("Where", ["n", "z", "x"], ["y"])],
        [X],
        [floats("y", "a", "b")],
        {"z": np.float32(0)},
    ),
    "IsNaN that is an output": lambda: build(
        [
            node("Softmax", ["x"], ["s"], axis=-1),
            node("IsNaN", ["s"], ["n"]),
            node("Where", ["n", "z", "s"], ["y"]),
        ],
        [X],
        [floats("y", "a", "b"), ("n", TensorProto.BOOL, ("a", "b"))],
        {"z": np.float32(0)},
    ),
    "MaxPool in 2-D": lambda: build(
        [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])],
        [floats("x", 1, 2, 4, 4)],
        [floats("y", 1, 2, 3, 3)],
    ),
    "MaxPool in 3-D with dilations": lambda: pooled(dilations=[2, 1, 1]),
    "MaxPool in 3-D, rounded up": lambda: pooled(ceil_mode=1),
    "MatMul of equal batches": lambda: product(["p", "h", 4, 5], ["p", "h", 5, 6]),
    "MatMul with a matrix": lambda: product(["p", "h", 4, 5], [5, 6]),
    "MatMul with one batch dimension": lambda: product(["p", 4, 5], ["q", 5, 6]),
}


@pytest.mark.parametrize("name", NOTHING_TO_DO)
def test_nothing_is_written_where_there_is_nothing_to_do(tmp_path: Path, name: str) -> None:
    _, done = repaired(NOTHING_TO_DO[name](), tmp_path / "r", *{rule for rule, *_ in BROKEN.values()})
    assert done == Repaired()


def test_an_initializer_that_a_caller_may_override_is_no_constant(tmp_path: Path) -> None:
    model = gelu()
    model.graph.input.append(helper.make_tensor_value_info("half", TensorProto.FLOAT, []))
    assert repaired(model, tmp_path / "r", *all_rules())[1] == Repaired()


def test_an_unknown_rule_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such repair rule"):
        repaired(gelu(), tmp_path / "r", "gelu")


def test_the_table_is_sound() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert set(all_rules()) <= {rule.name for rule in RULES}
    assert all(rule.hazard and rule.remedy and rule.severity for rule in RULES)
    assert always_rules() == ["constant-of-shape", "compare-broadcast", "matmul-vector"]


def test_a_computed_scalar_becomes_a_constant(host: Host, tmp_path: Path) -> None:
    nodes = [
        node("ReduceSum", ["x"], ["r"], keepdims=0),
        node("Shape", ["r"], ["s"]),
        node("ConstantOfShape", ["s"], ["c"]),
    ]
    model = build(
        [*nodes, node("Add", ["x", "c"], ["y"])], [X], [floats("y", "a", "b"), ("c", TensorProto.FLOAT, ())]
    )
    result, done = repaired(model, tmp_path / "r", "constant-of-shape")
    assert done.fired
    assert [n.op_type for n in result.graph.node] == ["Constant", "Add"]
    assert [o.name for o in result.graph.output] == ["y", "c"]
    assert close(through_mnn(host, result, SIZES, tmp_path / "after"), reference(model, SIZES), 0.0)


def test_a_rank_that_inference_loses_is_read_from_the_nodes(tmp_path: Path) -> None:
    nodes = [
        node("Expand", ["x", "s"], ["e"]),
        node("Transpose", ["e"], ["l"], perm=[0, 1, 2, 3]),
        node("Neg", ["l"], ["n"]),
    ]
    model = build(
        [*nodes, node("MatMul", ["n", "w"], ["y"])],
        [X, ("s", TensorProto.INT64, ("r",)), floats("w", "p", "q", "k", "m")],
        [("y", 1, None)],
    )
    feeds = [{"x": random(4, 5), "s": np.array([3, 1, 4, 5]), "w": random(1, 2, 5, 6)}]
    result, done = repaired(model, tmp_path / "known", "broadcast-matmul")
    assert done.fired
    assert same_bits(reference(result, feeds), reference(model, feeds))
    model.graph.node[-1].input[0] = "e"  # a vector, for all one can know
    assert repaired(model, tmp_path / "unknown", "broadcast-matmul")[1] == Repaired()


# -- in onnxruntime, over values and forms ---------------------------------------------------------

FLAGS = st.booleans()
DTYPES = st.sampled_from([np.float32, np.float64, np.float16])
QUICK = settings(max_examples=25, deadline=None)


@QUICK
@given(FLAGS, FLAGS, FLAGS, FLAGS, FLAGS, DTYPES, st.integers(0, 1000))
def test_gelu_keeps_its_bits(
    tmp_path_factory: Any, a: bool, b: bool, c: bool, d: bool, by_div: bool, dtype: Any, seed: int
) -> None:
    model = gelu(
        x_first=a, half_first=b and not by_div, one_first=c, divide=d, halve_by_div=by_div, dtype=dtype
    )
    x = random(3, 7, dtype=dtype, seed=seed) * dtype(5)
    result, done = repaired(model, tmp_path_factory.mktemp("g") / "r", "gelu-erf")
    assert done.fired
    if dtype == np.float32:
        assert same_bits(reference(result, [{"x": x}]), reference(model, [{"x": x}]))
    else:  # onnxruntime has Erf in float32 only
        before, after = (ReferenceEvaluator(m).run(None, {"x": x})[0] for m in (model, result))
        np.testing.assert_array_equal(before, after)


@QUICK
@given(
    st.sampled_from([11, 13, 18, 20]),
    st.sampled_from([None, -1, 1, 2]),
    st.sampled_from([np.float32, np.float64, np.float16]),
    st.integers(0, 1000),
)
def test_the_guard_keeps_its_bits(
    tmp_path_factory: Any, version: int, axis: int | None, dtype: Any, seed: int
) -> None:
    if dtype == np.float16:
        version = max(version, 13)
    model = guard(version, dtype, axis)
    x = masked(3, 4, 5, dtype=dtype, seed=seed)
    x[0] = -np.inf  # also along axis 1
    result, done = repaired(model, tmp_path_factory.mktemp("s") / "r", "softmax-isnan-guard")
    assert done.fired
    assert same_bits(reference(result, [{"x": x}]), reference(model, [{"x": x}]))


@QUICK
@given(
    st.sampled_from(
        [
            "float16",
            "int8",
            "uint8",
            "int16",
            "uint16",
            "uint32",
            "float64",
            "int32",
            "int64",
            "bool",
            "float32",
        ]
    ),
    st.sampled_from([None, [], [2, 3]]),
    st.integers(0, 100),
)
def test_what_is_filled_keeps_its_bits(
    tmp_path_factory: Any, dtype: str, shape: list[int] | None, value: int
) -> None:
    kind = np.dtype(dtype).type
    attributes = {"value": numpy_helper.from_array(np.array([value]).astype(kind), "v")}
    nodes = [] if shape is not None else [node("Shape", ["x"], ["s"])]
    nodes += [node("ConstantOfShape", ["s"], ["y"], **attributes), node("Neg", ["x"], ["z"])]
    outputs: list[Any] = [
        ("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None),
        ("z", TensorProto.FLOAT, None),
    ]
    model = build(nodes, [X], outputs, {} if shape is None else {"s": np.array(shape, np.int64)})
    result, done = repaired(model, tmp_path_factory.mktemp("c") / "r", "constant-of-shape")
    assert bool(done.fired) == (
        shape == [] or dtype in ("float16", "int8", "uint8", "int16", "uint16", "uint32")
    )
    assert same_bits(reference(result, ONE_SIZE), reference(model, ONE_SIZE))


@QUICK
@given(
    st.lists(st.sampled_from([(1, 1), (1, 3), (3, 1), (3, 3), (2, 1)]), min_size=2, max_size=3),
    st.sampled_from([9, 13, 17]),
)
def test_a_product_keeps_its_bits(tmp_path_factory: Any, batch: list[tuple[int, int]], version: int) -> None:
    left, right = [a for a, _ in batch], [b for _, b in batch[1:]]
    model = product(
        [f"p{i}" for i in range(len(left))] + [4, 5],
        [f"q{i}" for i in range(len(right))] + [5, 6],
        version=version,
    )
    result, done = repaired(model, tmp_path_factory.mktemp("m") / "r", "broadcast-matmul")
    feeds = products(((*left, 4, 5), (*right, 5, 6)))
    assert bool(done.fired)
    np.testing.assert_allclose(
        reference(result, feeds)[0]["y"], reference(model, feeds)[0]["y"], rtol=1e-5, atol=1e-6
    )
