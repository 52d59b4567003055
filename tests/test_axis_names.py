"""Axes without a name are dimensions of their own: only a real name that occurs twice ties two axes
together.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import make_wants
from mnnprep.model.signature import dim_names, dynamic_specs, is_named, parse_dim, parse_input
from mnnprep.reference.survey import survey


@pytest.mark.parametrize(
    "label",
    [
        "",
        " ",
        "?",
        "??",
        "-1",
        "None",
        "none",
        "unk__12",
        "unknown",
        "*",
        "-",
        "_",
        "Dynamic",
        "dynamic_axes",
        "32",
    ],
)
def test_what_says_only_that_an_axis_is_open_is_no_name(label: str) -> None:
    assert not is_named(label)
    specs = dynamic_specs([("x", "float32", [label, 3, label]), ("y", "float32", [label])])
    assert [s.shape for s in specs] == [("x_0", 3, "x_2"), ("y_0",)]


@pytest.mark.parametrize(
    "label",
    [
        "n",
        "N",
        "batch_size",
        "s0",
        "s77",
        "a b",
        "x//2+1",
        "seq*2",
        "höhe",
        "p2o.DynamicDimension.0",
        "dynamic_batch",
    ],
)
def test_a_name_ties_the_axes_that_have_it_and_can_be_given_a_range(label: str) -> None:
    specs = dynamic_specs([("x", "float32", [label, 3]), ("y", "float32", [4, label])])
    assert [s.shape for s in specs] == [(label, 3), (4, label)]
    assert parse_dim(f"{label}=1:8").name == label


def test_a_made_name_ties_nothing_that_has_it_already() -> None:
    x, y = dynamic_specs([("x", "float32", ["?", "?"]), ("y", "float32", ["x_0", "x_1"])])
    assert len({*x.shape, *y.shape}) == 4


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ([[-1, 3]], [("batch", 3)]),
        ([[None, 3], [2, None]], [("batch", 3), (2, "i1_1")]),
        ([[None, 3], [None, 3]], [("i0_0", 3), ("i1_0", 3)]),
        ([[None, 3], ["batch", 3]], [("i0_0", 3), ("batch", 3)]),
    ],
)
def test_the_batch_is_the_only_first_axis_without_a_name(
    shapes: list[list[int | str | None]], names: list[tuple[int | str, ...]]
) -> None:
    assert [
        s.shape for s in dynamic_specs([(f"i{k}", "float32", s) for k, s in enumerate(shapes)], batch="batch")
    ] == names


def test_an_open_axis_can_be_declared() -> None:
    assert parse_input("x=float32[?,3,?,None]").shape == ("x_0", 3, "x_2", "x_3")
    assert dim_names(make_wants(inputs=("x=float32[n,?]", "y=float32[n,?]")).inputs) == ("n", "x_1", "y_1")


def test_height_and_width_of_a_net_that_calls_both_a_question_mark_are_moved_apart(tmp_path: Path) -> None:
    shape = [-1, 3, "?", "?"]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None if d == -1 else d for d in shape])
        for n in "xy"
    ]
    path = tmp_path / "net.onnx"
    model = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:]), ir_version=8
    )
    model.opset_import[0].version = 13
    onnx.save(model, path)
    found = survey(OnnxNet(str(path)), InputSpecs())
    assert [d.name for d in found.signature.dims] == ["x_0", "x_2", "x_3"]
    assert found.signature.outputs[0].shape == ("x_0", 3, "x_2", "x_3")
    assert any(c.dims["x_2"] != c.dims["x_3"] for c in found.cases)
