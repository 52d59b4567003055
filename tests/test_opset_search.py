"""ONNX models brought to another opset, and the search over opsets that prepare makes for a model MNN does
not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import floats
from mnnprep.bundle.manifest import read_manifest
from mnnprep.errors import RefusedError
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import OPSETS
from mnnprep.formats.onnx.opset_convert import at_opset
from mnnprep.formats.onnx.same_node import SameNodeJob, same_node
from mnnprep.formats.registry import steps_of
from support.command import call, prepared

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)  # not shown to the version converter
AXES = np.array([1], np.int64)  # shown to it
CONV = helper.make_node("Conv", ["x", "w"], ["c"], name="conv")


def model(
    nodes: Sequence[onnx.NodeProto],
    opset: int,
    tensors: dict[str, Any],
    shape: Sequence[int] = (1, 6, 6),
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*floats("x", 1, 3, 8, 8))],
        [helper.make_tensor_value_info(*floats("y", *shape))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
        producer_name="an exporter",
        **more,
    )


def reduced(operator: str, opset: int = 18) -> onnx.ModelProto:
    """A net whose last node has its axes as an input, which the operators other than ReduceSum have from
    opset 18 on.
    """
    return model(
        [CONV, helper.make_node(operator, ["c", "axes"], ["y"], keepdims=0, name="last")],
        opset,
        {"w": WEIGHT, "axes": AXES},
    )


def run(made: onnx.ModelProto) -> Any:
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": image}
    )[0]


@pytest.mark.parametrize("opset", [13, 15, 17, 20, 21])
@pytest.mark.parametrize("operator", ["ReduceL1", "ReduceMax", "ReduceLogSumExp"])
def test_a_model_at_another_opset_computes_the_same_and_keeps_every_tensor(operator: str, opset: int) -> None:
    source = reduced(operator)
    before = source.SerializeToString()
    made = at_opset(source, opset)
    assert source.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    assert {e.domain: e.version for e in made.opset_import} == {"": opset}
    assert list(made.graph.initializer)[:2] == list(source.graph.initializer)
    assert (made.graph.input, made.graph.output, made.producer_name) == (
        source.graph.input,
        source.graph.output,
        "an exporter",
    )
    np.testing.assert_allclose(run(made), run(source), rtol=1e-6)


def test_axes_from_a_constant_node_stay_in_the_file() -> None:
    constant = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(AXES))
    source = model(
        [CONV, constant, helper.make_node("ReduceL1", ["c", "axes"], ["y"], keepdims=0)], 18, {"w": WEIGHT}
    )
    made = at_opset(source, 13)
    assert [t.name for t in made.graph.initializer] == ["w", "axes"]
    np.testing.assert_allclose(run(made), run(source), rtol=1e-6)


def test_what_is_read_differently_is_written_out() -> None:
    """Softmax flattens at its axis before opset 13."""
    source = model([CONV, helper.make_node("Softmax", ["c"], ["y"], axis=1)], 11, {"w": WEIGHT}, (1, 8, 6, 6))
    made = at_opset(source, 13)
    assert [n.op_type for n in made.graph.node] != ["Conv", "Softmax"]
    np.testing.assert_allclose(run(made), run(source), rtol=1e-5)


def test_functions_are_written_out() -> None:
    body = [helper.make_node("ReduceL1", ["a", "b"], ["r"], keepdims=0)]
    function = helper.make_function("own", "Last", ["a", "b"], ["r"], body, [helper.make_opsetid("", 18)])
    source = model(
        [CONV, helper.make_node("Last", ["c", "axes"], ["y"], domain="own")],
        18,
        {"w": WEIGHT, "axes": AXES},
        functions=[function],
    )
    source.opset_import.add(domain="own", version=1)
    made = at_opset(source, 13)
    assert not made.functions
    np.testing.assert_allclose(run(made), run(source), rtol=1e-6)


def test_a_body_that_would_be_read_differently_is_refused_with_its_node() -> None:
    def body(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["c", "axes"], [name], keepdims=0, name=f"in {name}")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(*floats(name, 1, 6, 6))])

    branch = helper.make_node(
        "If", ["yes"], ["y"], then_branch=body("a", "ReduceMax"), else_branch=body("b", "ReduceMin")
    )
    source = model([CONV, branch], 18, {"w": WEIGHT, "axes": AXES, "yes": np.array(True)})
    with pytest.raises(RefusedError, match="can't be expressed at opset 13") as raised:
        at_opset(source, 13)
    assert "ReduceMax in a" in raised.value.seen
    assert "ReduceMin in b" in raised.value.seen


def test_a_node_without_a_form_is_named() -> None:
    source = model(
        [CONV, helper.make_node("Mish", ["c"], ["y"], name="act")], 18, {"w": WEIGHT}, (1, 8, 6, 6)
    )
    with pytest.raises(RefusedError) as raised:
        at_opset(source, 13)
    assert raised.value.seen == "Mish act: the version converter can't bring Mish there"


def test_what_a_converter_loses_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work is read back: a node lost, an opset not reached."""
    converter = onnx.version_converter.convert_version

    def lossy(bare: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        made = converter(bare, opset)
        del made.graph.node[0]
        return made

    monkeypatch.setattr(onnx.version_converter, "convert_version", lossy)
    with pytest.raises(RefusedError, match="be expressed") as raised:
        at_opset(reduced("ReduceL1"), 13)
    assert "take values that no node gives" in raised.value.seen
    monkeypatch.setattr(onnx.version_converter, "convert_version", lambda bare, _: converter(bare, 18))
    with pytest.raises(RefusedError) as raised:
        at_opset(reduced("ReduceL1"), 13)
    assert "ended at opset 18" in raised.value.seen


def scattered(directory: Path, source: onnx.ModelProto) -> Path:
    directory.mkdir()
    onnx.save(source, directory / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100)
    return directory / "m.onnx"


def test_prepare_finds_the_opset_that_mnn_takes(tmp_path: Path) -> None:
    """MNN reduces over every axis where the axes of a ReduceL1 are an input; the weights lie outside, and
    come along.
    """
    manifest = prepared(scattered(tmp_path / "source", reduced("ReduceL1")), tmp_path / "out", "--no-repair")
    assert manifest.verdict is Verdict.PROVEN
    assert [(a.method, a.opset, a.verdict) for a in manifest.artifact.attempts] == [
        ("copy", 18, "differs"),
        ("opset", 13, "proven"),
    ]
    assert manifest.artifact.opset == 13
    assert len(manifest.artifact.files) == 2
    made = onnx.load(tmp_path / "out" / manifest.artifact.files[0].path)
    np.testing.assert_array_equal(numpy_helper.to_array(made.graph.initializer[0]), WEIGHT)
    assert call("verify", tmp_path / "out").code == 0


def test_where_no_opset_serves_each_says_what_holds_it_back(tmp_path: Path) -> None:
    nodes = [
        CONV,
        helper.make_node("ReduceL1", ["c", "axes"], ["r"], keepdims=0, name="l1"),
        helper.make_node("Mish", ["r"], ["y"], name="act"),
    ]
    source = model(nodes, 18, {"w": WEIGHT, "axes": AXES})
    onnx.save(source, tmp_path / "m.onnx")
    assert call("prepare", tmp_path / "m.onnx", "-o", tmp_path / "out", "--no-repair").code == 3
    attempts = read_manifest(tmp_path / "out").artifact.attempts
    assert [(a.method, a.opset) for a in attempts] == [
        ("copy", 18),
        *(("opset", o) for o in (13, 17, 11, 15)),
    ]
    assert all("Mish act" in a.reason for a in attempts)


def test_an_opset_that_changes_no_node_is_not_judged_again(tmp_path: Path) -> None:
    source = model(
        [CONV, helper.make_node("Erf", ["c"], ["e"]), helper.make_node("Det", ["e"], ["y"], name="det")],
        13,
        {"w": WEIGHT},
        (1, 8),
    )
    onnx.save(source, tmp_path / "m.onnx")
    assert call("prepare", tmp_path / "m.onnx", "-o", tmp_path / "out", "--no-repair").code == 1
    attempts = read_manifest(tmp_path / "out").artifact.attempts
    assert {a.opset: a.reason for a in attempts if a.opset in (15, 17)} == dict.fromkeys(
        (15, 17), "the same nodes as at opset 13"
    )


REDUCED_AND_WRONG = [
    CONV,
    helper.make_node("Mod", ["c", "m"], ["d"], fmod=1, name="mod"),
    helper.make_node("ReduceL1", ["d", "axes"], ["y"], keepdims=0, name="l1"),
]


def test_an_opset_that_has_the_wrong_node_unchanged_is_not_judged_again(tmp_path: Path) -> None:
    onnx.save(
        model(REDUCED_AND_WRONG, 18, {"w": WEIGHT, "axes": AXES, "m": np.float32([0.7])}, (1, 6, 6)),
        tmp_path / "m.onnx",
    )
    assert call("prepare", tmp_path / "m.onnx", "-o", tmp_path / "out", "--no-repair").code == 1
    first, *others = read_manifest(tmp_path / "out").artifact.attempts
    assert "Mod mod" in first.reason
    told = {a.reason for a in others if a.opset != 11}  # there the operator has no form
    assert told == {"its Mod mod, which MNN gets wrong, is the one of opset 18"}


def test_no_attempt_is_begun_after_the_time_budget(tmp_path: Path) -> None:
    onnx.save(
        model(REDUCED_AND_WRONG, 18, {"w": WEIGHT, "axes": AXES, "m": np.float32([0.7])}, (1, 6, 6)),
        tmp_path / "m.onnx",
    )
    options = ("--no-repair", "--time-budget", "1e-9")
    assert call("prepare", tmp_path / "m.onnx", "-o", tmp_path / "out", *options).code == 1
    _, second = read_manifest(tmp_path / "out").artifact.attempts
    assert second.reason == "not tried: the 1e-09 s for further attempts are over (--time-budget)"


def test_a_node_is_the_same_only_if_it_says_and_means_the_same(tmp_path: Path) -> None:
    def same(label: str, opset: int, axis: int) -> bool:
        for name, version, value in (("first", 13, 1), ("second", opset, axis)):
            node = helper.make_node("Softmax", ["c"], ["y"], name="act", axis=value, doc_string=name)
            onnx.save(model([CONV, node], version, {"w": WEIGHT}, (1, 8, 6, 6)), tmp_path / f"{name}.onnx")
        paths = (str(tmp_path / "first.onnx"), str(tmp_path / "second.onnx"))
        return same_node(SameNodeJob(label, *paths)).same

    assert same("Softmax act", 17, 1)
    assert not same("Softmax act", 11, 1)  # it flattened its input then
    assert not same("Softmax act", 17, 2)
    assert not same("Softmax other", 17, 1)
    assert same("Conv conv", 11, 2)


def test_one_opset_can_be_asked_for(tmp_path: Path) -> None:
    onnx.save(reduced("ReduceMean"), tmp_path / "m.onnx")
    manifest = prepared(tmp_path / "m.onnx", tmp_path / "out", "--method", "opset", "--opset", "15")
    assert manifest.verdict is Verdict.PROVEN
    assert [(a.method, a.opset) for a in manifest.artifact.attempts] == [("opset", 15)]
    assert "from opset 18" in manifest.artifact.attempts[0].notes[0]
    onnx.save(
        model([CONV, helper.make_node("Mish", ["c"], ["y"], name="act")], 18, {"w": WEIGHT}, (1, 8, 6, 6)),
        tmp_path / "mish.onnx",
    )
    refused = call(
        "prepare", tmp_path / "mish.onnx", "-o", tmp_path / "no", "--method", "opset", "--opset", "15"
    )
    assert refused.code == 3
    assert "Mish act" in refused.err
    assert not (tmp_path / "no").exists()


def test_the_order_of_the_search() -> None:
    attempts = steps_of("torch-module").attempts("onnx", "auto", 14)
    assert [(a.method, a.opset) for a in attempts if a.searches] == [("onnx-trace", o) for o in (14, *OPSETS)]
    assert (attempts[0].method, attempts[0].opset, attempts[0].searches) == ("onnx-trace", 14, False)
    only = steps_of("onnx").attempts("", "opset", 9)
    assert only == [replace(steps_of("onnx").recipes[1], opset=9, searches=False)]


def test_weights_over_two_gigabytes_are_never_touched() -> None:
    """No message of that size is read by a converter: what is external stays a name and a place."""
    rows = (1 << 31) // 144 + 1
    weight = TensorProto(
        name="v", data_type=TensorProto.FLOAT, dims=[rows, 36], data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value="v.data")
    nodes = [
        CONV,
        helper.make_node("ReduceL1", ["c", "axes"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    source = model(nodes, 18, {"w": WEIGHT, "axes": AXES}, (1, rows))
    source.graph.initializer.append(weight)
    made = at_opset(source, 13)
    assert made.graph.initializer[2] == weight
    assert [n.op_type for n in made.graph.node] == ["Conv", "ReduceL1", "Flatten", "Gemm"]
    assert "axes" in {a.name for a in made.graph.node[1].attribute}
