"""Axes without a name are dimensions of their own: only a real name that occurs twice ties two axes
together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mnnprep.errors import UsageError
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import make_wants
from mnnprep.model.signature import dim_names, dynamic_specs, is_named, parse_dim, parse_input
from mnnprep.reference.inputs import sizes_of
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


class TestSums:
    """A size that is the sum of dimensions, as the keys of a decoder with a cache are."""

    def test_a_sum_makes_no_dimension_of_its_own(self) -> None:
        spec = parse_input("mask=int64[batch, past + new]")
        assert spec.shape == ("batch", "past+new")
        assert dim_names([spec]) == ("batch", "past", "new")
        assert spec.sizes({"batch": 2, "past": 5, "new": 3}) == (2, 8)

    def test_files_write_them_too(self) -> None:
        stated = [("mask", "int64", ["batch", "past_sequence_length + 1", "-1 + n"])]
        assert dynamic_specs(stated)[0].shape == ("batch", "past_sequence_length+1", "-1 + n")

    def test_samples_give_the_parts(self) -> None:
        specs = (parse_input("mask=int64[past+new]"), parse_input("x=float32[new]"))
        arrays = {"mask": np.zeros(8, np.int64), "x": np.zeros(3, np.float32)}
        assert sizes_of(arrays, specs, "s") == {"new": 3, "past": 5}

    def test_samples_that_do_not_add_up_are_refused(self) -> None:
        specs = tuple(map(parse_input, ("mask=int64[past+new]", "x=float32[new]", "k=float32[past]")))
        arrays = {"mask": np.zeros(8), "x": np.zeros(3), "k": np.zeros(4)}
        with pytest.raises(UsageError, match="two sizes") as caught:
            sizes_of(arrays, specs, "s")
        assert "7 and 8" in str(caught.value.seen)
