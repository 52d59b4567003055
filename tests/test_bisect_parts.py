"""What `bisect` is made of: the graph logic, the comparison of one value, a graph without its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import floats, node, save
from mnnprep.comparison.deviation import CHUNK, deviation
from mnnprep.comparison.half_precision import DEFAULT_LOW_SQNR
from mnnprep.comparison.tolerance import LARGEST, Tolerance
from mnnprep.diagnose.bisecting.on_target import Place
from mnnprep.diagnose.bisecting.suspects import Suspects
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.excerpt import ExcerptJob, excerpt
from mnnprep.formats.onnx.outline import NodeOutline, Outline, OutlineJob, captured, outline
from mnnprep.formats.onnx.probe import ProbeJob, probe
from mnnprep.formats.onnx.skeleton import fetch, is_inline, skeleton
from mnnprep.mnn.settings import Settings
from mnnprep.model.files import load_arrays, save_arrays
from mnnprep.model.messages import CaseFile


def net(*rows: tuple[str, str, str], outputs: str = "y", initializers: str = "") -> Outline:
    """An outline of rows (operator, inputs, outputs), names parted by spaces; its input is ``x``."""
    nodes = [
        NodeOutline(label=f"{op} {made.split()[0]}", op=op, inputs=taken.split(), outputs=made.split())
        for op, taken, made in rows
    ]
    return Outline(nodes=nodes, inputs=["x"], outputs=outputs.split(), initializers=initializers.split())


BRANCHES = net(
    ("Conv", "x w", "a"),
    ("Relu", "a", "b"),
    ("Tanh", "b", "c"),
    ("Exp", "b", "d"),
    ("Add", "c d", "e"),
    ("Shape", "x", "s"),
    ("Slice", "s k", "t"),
    ("Reshape", "e t", "y"),
    ("Constant", "", "k"),
    initializers="w",
)
ALL = "a b c d e s t y k"


class TestSuspects:
    def test_an_error_is_followed_back_to_where_it_begins(self) -> None:
        suspects = Suspects(BRANCHES, ALL.split())
        assert suspects.sources(["c", "e", "y"]) == ["c"]
        assert suspects.sources(["b", "c", "d", "e", "y"]) == ["b"]

    def test_a_wrong_value_that_no_wrong_output_depends_on_is_no_source(self) -> None:
        assert Suspects(BRANCHES, ALL.split()).sources(["a", "d", "y"]) == ["y"]

    def test_nodes_whose_values_can_not_be_looked_at_form_a_group(self) -> None:
        suspects = Suspects(BRANCHES, ["b", "e", "y"])
        assert suspects.groups["b"].nodes == (0, 1)
        assert (suspects.groups["e"].nodes, suspects.groups["e"].inputs) == ((2, 3, 4), ("b",))
        assert set(suspects.groups["y"].inputs) == {"e", "x"}
        assert suspects.without(["e", "y"]).groups["y"].nodes == (2, 3, 4, 5, 6, 7)

    def test_constants_and_shapes(self) -> None:
        suspects = Suspects(BRANCHES, ALL.split())
        assert suspects.constants == {"w", "k"}
        assert suspects.shapes == {"s", "t"}
        assert suspects.constant_nodes([6]) == [8]
        assert suspects.boundary([6, 7]) == ["s", "e"]

    def test_what_is_live(self) -> None:
        suspects = Suspects(BRANCHES, ["a", "b", "c", "d", "e", "y"])
        assert suspects.visible == ["a", "b", "c", "d", "e", "y"]
        assert suspects.live(1) == ["b"]
        assert suspects.live(2) == ["b", "c"]
        assert suspects.live(3) == ["c", "d"]

    def test_growing(self) -> None:
        suspects = Suspects(BRANCHES, ALL.split())
        assert suspects.grown([2], 1) == [1, 2, 4]
        assert suspects.grown([2], 9) == [0, 1, 2, 3, 4, 5, 6, 7]
        assert suspects.made_for_others([1, 2]) == ["b", "c"]

    def test_the_largest_jumps(self) -> None:
        rows = Suspects(BRANCHES, ["b", "c", "e", "y"]).largest_jumps(
            {"b": 0.1, "c": 0.9, "e": 1.5, "y": 1.6}, 2
        )
        assert [r[0] for r in rows] == ["c", "e"]
        assert rows[0][1:] == (0.1, 0.9)


class TestDeviation:
    def test_floats_are_measured_by_the_tolerance(self) -> None:
        reference = np.linspace(-10, 10, 3 * CHUNK).astype(np.float32)
        assert deviation(reference, reference, Tolerance()).excess == 0
        actual = reference.copy()
        actual[-1] += 0.022  # allowed there: 1e-4 * 10 + 1e-3 * 10
        off = deviation(reference, actual, Tolerance())
        assert off.excess == pytest.approx(2.0, rel=1e-3)
        assert off.problem

    def test_another_shape_of_the_same_numbers(self) -> None:
        reference = np.arange(6, dtype=np.float32)
        off = deviation(reference, reference.reshape(2, 3), Tolerance())
        assert (off.excess, off.reshaped) == (0, True)

    @pytest.mark.parametrize(
        ("reference", "actual"),
        [
            ([1.0, 2.0], [1.0]),
            ([1.0, np.nan], [1.0, 2.0]),
            ([1.0, np.inf], [1.0, -np.inf]),
            ([1.0, 2.0], [np.inf, 2.0]),
        ],
    )
    def test_what_can_not_be_compared(self, reference: list[float], actual: list[float]) -> None:
        assert deviation(np.array(reference), np.array(actual), Tolerance()).excess == LARGEST

    def test_integers(self) -> None:
        reference = np.array([1, 2**62, -(2**40)], np.int64)
        limits = np.iinfo(np.int32)
        assert deviation(reference, np.array([1, limits.max, limits.min], np.int32), Tolerance()).excess == 0
        assert (
            deviation(reference, np.array([2, limits.max, limits.min], np.int32), Tolerance()).excess
            == LARGEST
        )
        assert deviation(np.array([True, False]), np.array([1, 0], np.int32), Tolerance()).excess == 0

    def test_a_budget_that_was_granted_holds_at_low(self) -> None:
        low, high = Place(settings=Settings(precision="low"), emulated=True), Place(emulated=True)
        assert low.tolerance(Tolerance()).sqnr_db == DEFAULT_LOW_SQNR
        assert low.tolerance(Tolerance(), 20.0).sqnr_db == 20.0
        assert low.tolerance(Tolerance(sqnr_db=25.0)).sqnr_db == 25.0  # as its weights were granted
        assert high.tolerance(Tolerance(), 20.0).sqnr_db is None

    def test_reduced_precision_is_measured_by_its_sqnr(self) -> None:
        reference = np.ones(1000, np.float32)
        assert (
            deviation(reference, reference * 1.05, Tolerance(sqnr_db=30.0)).excess < 1
        )  # 26 dB, and 6 dB of slack for one value
        assert deviation(reference, reference * 1.2, Tolerance(sqnr_db=30.0)).excess > 1


@pytest.fixture
def weighty(tmp_path: Path) -> Path:
    """A large weight in the file, another in a Constant, a third outside, and a small one."""
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal((32, 32)).astype(np.float32) for n in ("inside", "constant", "outside")}
    (tmp_path / "weights.bin").write_bytes(bytes(64) + arrays["outside"].tobytes())
    outside = TensorProto(
        name="outside", data_type=TensorProto.FLOAT, dims=(32, 32), data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "weights.bin"), ("offset", "64"), ("length", "4096")):
        outside.external_data.add(key=key, value=value)
    nodes = [
        node("MatMul", ["x", "inside"], ["a"]),
        node("Constant", [], ["constant"], value=numpy_helper.from_array(arrays["constant"])),
        node("MatMul", ["a", "constant"], ["b"]),
        node("MatMul", ["b", "outside"], ["c"]),
        node("Mul", ["c", "small"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(arrays["inside"], "inside"),
        outside,
        numpy_helper.from_array(np.float32(2), "small"),
    ]
    values = (
        [helper.make_tensor_value_info(*floats("x", "n", 32))],
        [helper.make_tensor_value_info(*floats("y", "n", 32))],
    )
    graph = helper.make_graph(nodes, "net", *values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    save_arrays(tmp_path / "weights.npz", arrays)
    return tmp_path / "net.onnx"


class TestSkeleton:
    def test_it_is_the_graph_without_its_weights(self, weighty: Path) -> None:
        light, whole = skeleton(weighty), onnx.load(weighty, load_external_data=False)
        assert light.ByteSize() < 2000 < whole.ByteSize()
        assert [n.op_type for n in light.graph.node] == [n.op_type for n in whole.graph.node]
        assert list(light.graph.input) == list(whole.graph.input)
        assert [is_inline(t) for t in light.graph.initializer] == [True, False, False]
        assert numpy_helper.to_array(light.graph.initializer[2]) == 2

    def test_each_weight_can_be_fetched(self, weighty: Path) -> None:
        light, arrays = skeleton(weighty), load_arrays(weighty.parent / "weights.npz")
        for tensor in light.graph.initializer[:2]:
            np.testing.assert_array_equal(numpy_helper.to_array(fetch(tensor, weighty)), arrays[tensor.name])
        np.testing.assert_array_equal(
            numpy_helper.to_array(fetch(light.graph.node[1].attribute[0].t, weighty)), arrays["constant"]
        )


def case(directory: Path, **arrays: np.ndarray) -> CaseFile:
    from mnnprep.model.files import file_ref

    save_arrays(directory / "case.npz", {f"inputs/{n}": a for n, a in arrays.items()})
    return CaseFile(index=0, origin="test", dims={}, file=file_ref(directory / "case.npz"))


class TestPieces:
    def test_a_piece_computes_what_the_whole_does_there(self, weighty: Path, tmp_path: Path) -> None:
        x = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
        for name in ("whole", "cut", "piece"):
            (tmp_path / name).mkdir()
        whole = probe(
            ProbeJob(
                model=str(weighty),
                values=["a", "c", "y"],
                cases=[case(tmp_path, x=x)],
                directory=str(tmp_path / "whole"),
            )
        )
        values = load_arrays(whole.values["0"].path)
        job = ExcerptJob(
            model=str(weighty),
            nodes=[1, 2, 3],
            outputs=["c"],
            directory=str(tmp_path / "cut"),
            values=[whole.values["0"].path],
        )
        cut = excerpt(job)
        assert (cut.inputs, cut.outputs, len(cut.files)) == (["a"], ["c"], 1)
        model = onnx.load(cut.files[0].path)
        assert [t.name for t in model.graph.initializer] == ["outside"]
        assert not model.graph.initializer[0].external_data
        job2 = ProbeJob(
            model=cut.files[0].path,
            values=["c"],
            cases=[case(tmp_path, a=values["a"])],
            directory=str(tmp_path / "piece"),
        )
        np.testing.assert_array_equal(load_arrays(probe(job2).values["0"].path)["c"], values["c"])

    def test_weights_go_outside_where_they_are_large(
        self, weighty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mnnprep.formats.onnx.excerpt.LARGEST_INLINE", 1000)
        (tmp_path / "cut").mkdir()
        save_arrays(tmp_path / "x.npz", {"x": np.zeros((1, 32), np.float32)})
        job = ExcerptJob(
            model=str(weighty),
            nodes=[0, 1, 2, 3],
            outputs=["c"],
            directory=str(tmp_path / "cut"),
            values=[str(tmp_path / "x.npz")],
            shapes="fixed",
        )
        cut = excerpt(job)
        assert [Path(f.path).name for f in cut.files] == ["model.onnx", "model.onnx.data"]
        arrays = load_arrays(weighty.parent / "weights.npz")
        model = onnx.load(cut.files[0].path)
        for tensor in model.graph.initializer:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), arrays[tensor.name])

    def test_a_value_that_nobody_has(self, weighty: Path, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="could not be computed"):
            excerpt(
                ExcerptJob(
                    model=str(weighty), nodes=[3], outputs=["c"], directory=str(tmp_path), shapes="fixed"
                )
            )

    def test_the_outline(self, weighty: Path, tmp_path: Path) -> None:
        found = outline(
            OutlineJob(model=str(weighty), case=case(tmp_path, x=np.zeros((5, 32), np.float32)).file.path)
        )
        assert found.inputs == ["x"]
        assert found.initializers == ["inside", "outside", "small"]
        assert found.sizes["a"] == found.sizes["c"] == 5 * 32 * 4

    def test_what_a_body_takes_from_outside(self, tmp_path: Path) -> None:
        inner = helper.make_graph(
            [node("Add", ["far", "u"], ["v"])], "inner", [], [helper.make_tensor_value_info(*floats("v", 2))]
        )
        body = helper.make_graph(
            [node("Neg", ["near"], ["u"]), node("If", ["c"], ["w"], then_branch=inner, else_branch=inner)],
            "outer",
            [],
            [helper.make_tensor_value_info(*floats("w", 2))],
        )
        assert captured(body) == ["near", "c", "far"]
        save(
            tmp_path / "net.onnx",
            [node("If", ["c"], ["y"], then_branch=body, else_branch=body)],
            [floats("near", 2)],
            [floats("y", 2)],
        )
        assert set(outline(OutlineJob(model=str(tmp_path / "net.onnx"), case="")).nodes[0].inputs) == {
            "c",
            "near",
            "far",
        }
