"""What half precision costs a net: its numbers rounded, and the judgement that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets import caffe_nets
from evaluation.nets.tf_models import built, needs_tensorflow
from mnnprep.comparison.half_precision import Standing, ceiling_db, judge
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.half import run_half, write_half
from mnnprep.formats.onnx.net import open_session
from mnnprep.model.files import file_ref, load_arrays, save_arrays
from mnnprep.model.half import LIMITS, HalfType, rounded
from mnnprep.model.messages import CaseFile, HalfJob, RunResult
from mnnprep.model.signature import Signature, TensorSpec

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NARROW = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
TYPES: list[HalfType] = ["float16", "bfloat16"]


def narrowed(array: Any, to: HalfType) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, np.float32).astype(NARROW[to]).astype(np.float32)


def floats(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def saved(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: dict[str, Any] | None = None,
    *,
    opset: int = 13,
) -> Path:
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def case(directory: Path, inputs: dict[str, Any], outputs: dict[str, Any], index: int = 0) -> CaseFile:
    path = directory / f"case{index}.npz"
    arrays = {f"inputs/{n}": a for n, a in inputs.items()} | {f"outputs/{n}": a for n, a in outputs.items()}
    save_arrays(path, arrays)
    return CaseFile(index=index, origin=f"seed {index}", dims={}, file=file_ref(path))


def job(model: Path, cases: list[CaseFile], to: HalfType, signature: Signature | None = None) -> HalfJob:
    directory = model.parent / f"half-{to}"
    directory.mkdir(exist_ok=True)
    given = signature or Signature(inputs=(), outputs=())
    return HalfJob(model=str(model), cases=cases, signature=given, directory=str(directory), rounding=to)


def halved(model: Path, inputs: dict[str, Any], to: HalfType) -> dict[str, Any]:
    ran = run_half(job(model, [case(model.parent, inputs, {})], to))
    assert not ran.errors
    return load_arrays(ran.outputs["0"].path)


class TestRounding:
    @pytest.mark.parametrize("to", TYPES)
    def test_to_nearest_even_and_beyond_the_range_to_infinity(self, to: HalfType) -> None:
        rng = np.random.default_rng(0)
        values = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
        edges = np.array([65504, 65519.9, 65520, -65520, 2.0**-25, 3e-8, 3.4e38, 1e-45, np.inf, np.nan], "f4")
        ties = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8], "f4")
        values = np.concatenate([values, edges, ties])
        np.testing.assert_array_equal(rounded(values, to), narrowed(values, to))

    @pytest.mark.parametrize("to", TYPES)
    def test_the_limits_are_the_types_own(self, to: HalfType) -> None:
        info, limits = ml_dtypes.finfo(NARROW[to]), LIMITS[to]
        assert limits.largest == float(info.max)
        assert limits.normal == float(info.smallest_normal)
        assert limits.least == float(info.smallest_subnormal)
        edge = np.float32(limits.overflow)
        below = np.array([np.nextafter(edge, np.float32(0)), edge])
        assert list(np.isinf(rounded(below, to))) == [False, True]

    def test_integers_stay(self) -> None:
        whole = np.array([1 << 40, 70000])
        assert rounded(whole, "float16") is whole


class TestOnnx:
    @pytest.mark.parametrize("to", TYPES)
    def test_inputs_weights_and_every_result_are_rounded(self, tmp_path: Path, to: HalfType) -> None:
        rng = np.random.default_rng(1)
        x, w = rng.standard_normal((3, 5), "f4"), rng.standard_normal((5, 4), "f4")
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Exp", ["a"], ["b"]),
            helper.make_node("Add", ["b", "a"], ["y"]),
        ]
        model = saved(tmp_path / "m.onnx", nodes, [floats("x", "n", 5)], [floats("y", "n", 4)], {"w": w})
        a = narrowed(narrowed(x, to) @ narrowed(w, to), to)
        b = narrowed(np.exp(a), to)
        np.testing.assert_allclose(halved(model, {"x": x}, to)["y"], narrowed(b + a, to), rtol=0, atol=0)

    def test_overflow_is_infinite_though_the_net_scales_it_back(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("Mul", ["s", "k"], ["y"])]
        weights = {"k": np.array(1e-3, "f4")}
        model = saved(tmp_path / "m.onnx", nodes, [floats("x", 2)], [floats("y", 2)], weights)
        y = halved(model, {"x": np.array([10, 300], "f4")}, "float16")["y"]
        assert np.isfinite(y[0])
        assert np.isinf(y[1])

    def test_bodies_of_control_flow_are_rounded_too(self, tmp_path: Path) -> None:
        """A Loop that adds 2^-12 to 1, which float16 never sees; an If in whose branch 70,000 is reached."""
        body = helper.make_graph(
            [
                helper.make_node("Add", ["v", "step"], ["w"]),
                helper.make_node("Identity", ["go"], ["on"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                floats("v", 1),
            ],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, []), floats("w", 1)],
        )
        branch = helper.make_graph(
            [helper.make_node("Mul", ["v", "big"], ["t"]), helper.make_node("Div", ["t", "big"], ["u"])],
            "then",
            [],
            [floats("u", 1)],
            [numpy_helper.from_array(np.array([60000], "f4"), "big")],
        )
        other = helper.make_graph([helper.make_node("Identity", ["v"], ["o"])], "else", [], [floats("o", 1)])
        nodes = [
            helper.make_node("Loop", ["count", "", "x"], ["v"], body=body),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other),
        ]
        weights = {"count": np.array(4096), "step": np.array([2.0**-12], "f4"), "yes": np.array(True)}
        outputs = [floats("v", 1), floats("y", 1)]
        model = saved(tmp_path / "m.onnx", nodes, [floats("x", 1)], outputs, weights)
        (exact, _) = open_session(str(model), optimize=False).run(None, {"x": np.ones(1, "f4")})
        assert exact == 2
        ran = halved(model, {"x": np.ones(1, "f4")}, "float16")
        assert ran["v"] == 1
        assert np.isfinite(ran["y"])
        assert np.isinf(halved(model, {"x": np.full(1, 2, "f4")}, "float16")["y"])

    def test_sizes_stay_exact(self, tmp_path: Path) -> None:
        """Rounded to float16, 4/3 of 3000 columns would be 3999."""
        nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")]
        weights = {"scales": np.array([1, 4 / 3], "f4")}
        model = saved(tmp_path / "m.onnx", nodes, [floats("x", 1, 3000)], [floats("y", 1, "m")], weights)
        x = np.ones((1, 3000), "f4")
        (exact,) = open_session(str(model), optimize=False).run(None, {"x": x})
        assert narrowed(4 / 3, "float16") * 3000 < 3999.5
        assert halved(model, {"x": x}, "float16")["y"].shape == exact.shape

    def test_an_operator_of_another_domain_is_rounded(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
            helper.make_node("Sub", ["g", "x"], ["y"]),
        ]
        model = saved(tmp_path / "m.onnx", nodes, [floats("x", 64)], [floats("y", 64)])
        x = np.linspace(-4, 4, 64, dtype="f4")
        (exact,) = open_session(str(model), optimize=False).run(None, {"x": x})
        y = halved(model, {"x": x}, "float16")["y"]
        np.testing.assert_array_equal(y, narrowed(y, "float16"))
        np.testing.assert_allclose(y, exact, atol=4e-3)
        assert not np.array_equal(y, narrowed(exact, "float16"))

    def test_bfloat16_of_an_old_opset(self, tmp_path: Path) -> None:
        model = saved(
            tmp_path / "m.onnx",
            [helper.make_node("Exp", ["x"], ["y"])],
            [floats("x", 8)],
            [floats("y", 8)],
            opset=9,
        )
        x = np.linspace(0, 3, 8, dtype="f4")
        expected = narrowed(np.exp(narrowed(x, "bfloat16")), "bfloat16")
        np.testing.assert_array_equal(halved(model, {"x": x}, "bfloat16")["y"], expected)

    @pytest.mark.parametrize("external", [False, True])
    def test_weights_are_not_copied(self, tmp_path: Path, external: bool) -> None:
        w = np.random.default_rng(2).standard_normal((512, 512), "f4")
        model = saved(
            tmp_path / "m.onnx",
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            [floats("x", 1, 512)],
            [floats("y", 1, 512)],
            {"w": w},
        )
        if external:
            onnx.save(
                onnx.load(model), model, save_as_external_data=True, location="m.data", size_threshold=0
            )
        (tmp_path / "d").mkdir()
        assert write_half(model, tmp_path / "d", "float16").stat().st_size < 4096
        x = np.ones((1, 512), "f4")
        expected = narrowed(x @ narrowed(w, "float16"), "float16")
        np.testing.assert_allclose(halved(model, {"x": x}, "float16")["y"], expected, rtol=2e-3)

    def test_an_initializer_that_is_an_output_or_may_be_overridden(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
        inputs = [floats("x", 1), floats("w", 1)]
        weights = {"w": np.array([2049], "f4")}
        model = saved(tmp_path / "m.onnx", nodes, inputs, [floats("y", 1), floats("w", 1)], weights)
        ran = halved(model, {"x": np.zeros(1, "f4")}, "float16")
        assert (ran["y"], ran["w"]) == (2048, 2048)


def reference_cases(directory: Path, feeds: list[dict[str, Any]], run: Any) -> list[CaseFile]:
    return [case(directory, feed, run(feed), index) for index, feed in enumerate(feeds)]


class TestOtherFormats:
    @needs_tensorflow
    def test_a_frozen_graph(self, tmp_path: Path) -> None:
        import tensorflow as tf

        w = np.random.default_rng(0).standard_normal((5, 4)).astype("f4")
        graph = tf.Graph()
        with graph.as_default():
            x = tf.compat.v1.placeholder(tf.float32, [None, 5], name="x")
            parts = tf.split(tf.exp(tf.matmul(x, tf.constant(w))), 2, axis=1)
            tf.subtract(parts[1], parts[0], name="y")
        model = tmp_path / "m.pb"
        model.write_bytes(graph.as_graph_def().SerializeToString())
        given = np.random.default_rng(1).standard_normal((3, 5)).astype("f4")
        signature = Signature(
            inputs=(TensorSpec("x", "float32", ("n", 5)),), outputs=(TensorSpec("y", "float32", ("n", 2)),)
        )
        from mnnprep.formats.tensorflow.half import run_half as run_graph

        for to in TYPES:
            ran = run_graph(job(model, [case(tmp_path, {"x": given}, {})], to, signature))
            e = narrowed(np.exp(narrowed(narrowed(given, to) @ narrowed(w, to), to)), to)
            expected = narrowed(e[:, 2:] - e[:, :2], to)
            y = load_arrays(ran.outputs["0"].path)["y"]
            np.testing.assert_array_equal(y, narrowed(y, to))
            np.testing.assert_allclose(y, expected, atol=2.0 ** -LIMITS[to].bits * np.abs(e).max() * 2)

    @needs_tensorflow
    def test_a_tflite_file_by_way_of_onnx(self, tmp_path: Path, tmp_path_factory: Any) -> None:
        from mnnprep.formats.tflite.net import TfliteNet
        from mnnprep.formats.tflite.steps import run_half as run_tflite

        model = built(tmp_path_factory.getbasetemp().parent) / "float.tflite"
        net = TfliteNet(str(model))
        rng = np.random.default_rng(0)
        feed = {
            s.name: rng.standard_normal([d if isinstance(d, int) else 1 for d in s.shape]).astype(s.dtype)
            for s in net.inputs
        }
        cases = reference_cases(tmp_path, [feed], net.run)
        (tmp_path / "half").mkdir()
        wanted = HalfJob(
            model=str(model),
            cases=cases,
            signature=Signature(inputs=(), outputs=()),
            directory=str(tmp_path / "half"),
            rounding="float16",
        )
        ran = run_tflite(wanted)
        found = judge(cases, ran, None, "float16")
        assert found.standing is Standing.RIGHT
        assert all(o.sqnr_db is not None and 40 < o.sqnr_db < 90 for o in found.outputs)
        with pytest.raises(RefusedError, match="quantized"):
            run_tflite(HalfJob(**{**_fields(wanted), "model": str(model.with_name("dynamic-range.tflite"))}))

    def test_a_caffe_pair_by_way_of_onnx_which_must_agree(self, tmp_path: Path) -> None:
        pytest.importorskip("cv2")
        from mnnprep.formats.caffe.steps import run_half as run_caffe

        small = caffe_nets.Small(
            caffe_nets.header((1, 4, 6, 6))
            + caffe_nets.layer("conv", "Convolution", convolution_param="num_output: 4 kernel_size: 3"),
            (1, 4, 6, 6),
            {"conv": [(4, 4, 3, 3), (4,)]},
        )
        model = caffe_nets.write(tmp_path, small, "model")
        from mnnprep.formats.caffe.pair import input_specs, load
        from mnnprep.formats.caffe.steps import _third_net
        from mnnprep.model.messages import InputSpecs

        pair = load(model, model.with_suffix(".caffemodel"), InputSpecs())
        specs = input_specs(pair.net.inputs, InputSpecs())
        net, _ = _third_net(pair, specs, tmp_path)
        assert net is not None
        feed = {specs[0].name: np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype("f4")}
        cases = reference_cases(tmp_path, [feed], net.run)
        signature = Signature(inputs=specs, outputs=())
        ran = run_caffe(job(model, cases, "float16", signature))
        (found,) = judge(cases, ran, None, "float16").outputs
        assert found.sqnr_db is not None
        assert 50 < found.sqnr_db < 90
        other = reference_cases(tmp_path, [feed], lambda x: {n: a * 1.1 for n, a in net.run(x).items()})
        with pytest.raises(RefusedError, match="computes something else"):
            run_caffe(job(model, other, "float16", signature))


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def run_result(directory: Path, outputs: list[dict[str, Any] | str]) -> RunResult:
    ran = RunResult()
    directory.mkdir(exist_ok=True)
    for index, arrays in enumerate(outputs):
        if isinstance(arrays, str):
            ran.errors[str(index)] = arrays
            continue
        save_arrays(directory / f"{index}.npz", arrays)
        ran.outputs[str(index)] = file_ref(directory / f"{index}.npz")
    return ran


class TestJudgement:
    """``noise(dB)`` is the reference with noise that many dB below it."""

    reference = np.random.default_rng(3).standard_normal(4000).astype("f4")

    def noise(self, decibels: float, seed: int = 0) -> Any:
        error = np.random.default_rng(seed).standard_normal(4000)
        error *= np.linalg.norm(self.reference) / np.linalg.norm(error) * 10 ** (-decibels / 20)
        return (self.reference + error).astype("f4")

    def judged(
        self, tmp_path: Path, actual: Any, expected: Any, reference: Any = None, **options: Any
    ) -> Any:
        ref = self.reference if reference is None else reference
        cases = [case(tmp_path, {}, {"y": ref})]
        given = run_result(tmp_path / "ran", [actual if isinstance(actual, (dict, str)) else {"y": actual}])
        best = None if expected is None else run_result(tmp_path / "half", [{"y": expected}])
        return judge(cases, given, best, "float16", **options)

    @pytest.mark.parametrize(
        ("actual", "expected", "standing"),
        [
            (62, 64, Standing.RIGHT),
            (40, 64, Standing.RIGHT),  # MNN's sums in half precision: the type costs less
            (25, 64, Standing.MNN),
            (25, 34, Standing.MNN),
            (25, 30.5, Standing.PRECISION),
            (20, 20, Standing.PRECISION),
        ],
    )
    def test_the_wanted_sqnr_decides_and_the_type_explains(
        self, tmp_path: Path, actual: float, expected: float, standing: Standing
    ) -> None:
        found = self.judged(tmp_path, self.noise(actual), self.noise(expected, 1))
        assert found.standing is standing
        assert found.outputs[0].sqnr_db == pytest.approx(actual, abs=0.05)
        assert found.outputs[0].expected_db == pytest.approx(expected, abs=0.05)
        assert bool(found.reasons) == (standing is not Standing.RIGHT)

    def test_another_sqnr_may_be_wanted(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, self.noise(25), self.noise(64), sqnr_db=20.0).standing is Standing.RIGHT

    def test_without_a_rounded_run_the_sqnr_decides_alone(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, self.noise(40), None).standing is Standing.RIGHT
        assert self.judged(tmp_path, self.noise(20), None).standing is Standing.PRECISION

    def test_nan_and_infinity_always_differ(self, tmp_path: Path) -> None:
        broken = self.reference.copy()
        broken[7] = np.nan
        assert self.judged(tmp_path, broken, self.noise(64)).standing is Standing.MNN
        assert self.judged(tmp_path, broken, broken).standing is Standing.PRECISION
        infinite = self.reference.copy()
        infinite[7] = np.inf
        assert self.judged(tmp_path, self.noise(60), infinite).standing is Standing.RIGHT

    def test_infinity_of_the_reference_must_be_there(self, tmp_path: Path) -> None:
        masked = self.reference.copy()
        masked[:10] = -np.inf
        low = masked.copy()
        low[:10] = -65504
        assert self.judged(tmp_path, masked, masked, masked).standing is Standing.RIGHT
        assert self.judged(tmp_path, low, masked, masked).standing is Standing.MNN

    def test_a_missing_output_and_a_failed_case_differ(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, {}, self.noise(64)).standing is Standing.MNN
        failed = self.judged(tmp_path, "it crashed", self.noise(64))
        assert failed.standing is Standing.MNN
        assert "it crashed" in failed.reasons[0]

    def test_another_shape_or_a_further_output_differs(self, tmp_path: Path) -> None:
        assert self.judged(tmp_path, self.reference[:-1], self.noise(64)).standing is Standing.MNN
        both = {"y": self.reference, "z": self.reference}
        assert self.judged(tmp_path, both, self.noise(64)).standing is Standing.MNN

    @pytest.mark.parametrize(
        ("flips", "by_type", "standing"),
        [
            (0, 0, Standing.RIGHT),
            (0, 3, Standing.RIGHT),
            (3, 1, Standing.PRECISION),
            (1, 0, Standing.MNN),
            (9, 2, Standing.MNN),
        ],
    )
    def test_indices_must_be_equal_and_flips_of_the_type_are_its_own(
        self, tmp_path: Path, flips: int, by_type: int, standing: Standing
    ) -> None:
        """The flips need not be those of the rounded run: which of two close scores wins is chance."""
        chosen = np.arange(100)
        actual, expected = chosen.copy(), chosen.copy()
        actual[:flips] += 1
        expected[50 : 50 + by_type] += 1
        found = self.judged(tmp_path, actual, expected, chosen)
        assert (found.standing, found.outputs[0].flips) == (standing, flips)

    def test_a_rounded_run_that_is_exact_promises_no_more_than_one_rounding(self, tmp_path: Path) -> None:
        assert 74 < ceiling_db("float16") < 75
        assert 56 < ceiling_db("bfloat16") < 57
        once = rounded(self.reference, "float16")
        error = 10 * np.log10(np.square(self.reference).sum() / np.square(once - self.reference).sum())
        assert error == pytest.approx(ceiling_db("float16"), abs=1.5)
        found = self.judged(tmp_path, once, self.reference, sqnr_db=80.0)
        assert found.standing is Standing.PRECISION

    def test_one_case_may_not_be_far_below_the_others(self, tmp_path: Path) -> None:
        small = self.reference / 1000
        cases = [case(tmp_path, {}, {"y": self.reference}), case(tmp_path, {}, {"y": small}, 1)]
        ran = run_result(tmp_path / "ran", [{"y": self.noise(50)}, {"y": small * 1.2}])
        best = run_result(tmp_path / "half", [{"y": self.noise(64)}, {"y": small}])
        found = judge(cases, ran, best, "float16")
        assert (found.standing, found.outputs[0].sqnr_db) == (Standing.MNN, pytest.approx(50, abs=0.1))
