"""The rewrites of what MNN gets wrong: on ONNX's own cases and on small models of older opsets, wrong or
refused before and right after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from evaluation.nets.mnn_models import floats, node
from mnnprep.commands.ops.runner import Runner
from mnnprep.conformance.messages import ConformanceCase
from mnnprep.model.files import load_arrays
from mnnprep.repair.steps import RepairJob, repair
from mnnprep.repair.table import RULES
from mnnprep.workers.host import Host
from support.rewriting import build, close, reference, repaired, same_bits, through_mnn

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

# rule -> ONNX's own cases that MNN does not get right without it, and does with it alone
CASES: dict[str, str] = {
    "narrow-integer-arithmetic": (
        """
        fed add_int8, fed add_uint8, fed sub_uint8, fed mod_mixed_sign_int8, fed less_uint8, fed equal_int8,
        fed max_uint8,
        fed clip_default_int8_min, fed bitshift_left_int8_overflow, fed bitshift_right_int8_negative_shift,
        fed bitshift_right_uint8"""
    ),
    "logsoftmax-axis": "fed logsoftmax_example_1",
    "training-mode": (
        "fed batchnorm_example_training_mode, frozen batchnorm_epsilon_training_mode, frozen"
        " training_dropout_zero_ratio_mask"
    ),
    "computed-statistics": "fed batchnorm_example, fed batchnorm_epsilon",
    "prelu-slope": "frozen prelu_broadcast",
    "lone-dropout": "fed dropout_default, fed dropout_default_mask_ratio, fed dropout_default_old",
    "lp-of-zeros": "fed l2normalization_axis_0",
    "loss-forms": (
        """
        fed nllloss_NCd1d2_no_weight_reduction_mean_ii, fed sce_none_log_prob, fed
        sce_mean_weight_ii_3d_log_prob,
        fed sce_NCd1d2d3_sum_weight_high_ii_log_prob, frozen sce_mean_no_weight_ii_4d"""
    ),
    "less-negative": "fed clip_example_expanded, frozen less_equal_expanded",
    "gemm-trans-a": "frozen gemm_transposeA, frozen gemm_all_attributes",
    "pow-types": "fed pow_types_float32_int64, fed pow_types_int32_float32",
    "round-half": "fed round",
    "mod-float": (
        "fed mod_mixed_sign_float64, fed mod_float_edge_cases_fmod_0_float32, fed"
        " mod_float32_mixed_sign_fmod_0"
    ),
    "few-operands": "fed max_one_input, fed mean_two_inputs",
    "shift-signed": "fed bitshift_right_int32_shift_ge_width, frozen bitshift_left_int32_negative_shift",
    "clip-bounds": "frozen clip_min_greater_than_max",
    "det-of-a-matrix": "fed det_2d",
    "shrink": "fed shrink_hard, fed shrink_soft",
    "gelu-operator": "fed gelu_default_2",
    "einsum-forms": "fed einsum_batch_diagonal, fed einsum_inner_prod",
    "matmul-vector": "frozen matmul_4d_1d",
    "pool-strides": (
        "fed maxpool_2d_default, fed maxpool_1d_default, fed averagepool_3d_default, fed lppool_2d_pads"
    ),
    "pool-indices": "fed maxpool_with_argmax_2d_precomputed_strides",
    "pool-dilations": (
        """
        fed maxpool_2d_dilations, fed maxpool_3d_dilations, fed MaxPool2d_stride_padding_dilation, fed
        averagepool_2d_dilations,
        fed averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True,
        fed averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False, fed
        lppool_2d_dilations"""
    ),
    "pool-ceil": (
        "fed maxpool_2d_ceil_output_size_reduce_by_one, fed averagepool_2d_ceil_last_window_starts_on_pad"
    ),
    "pool-3d": "fed MaxPool3d_stride_padding, fed AvgPool3d_stride, fed lppool_3d_default",
    "conv1d-output": "fed Conv1d_groups, fed convtranspose_1d",
    "conv3d-forms": "fed Conv3d_dilated, frozen convtranspose_3d",
    "reduce-axes": (
        """
        fed reduce_l1_keep_dims_random, fed reduce_l2_do_not_keepdims_random, fed
        reduce_log_sum_negative_axes,
        fed reduce_log_sum_exp_do_not_keepdims_random, fed reduce_sum_square_keepdims_random, frozen
        reduce_log_sum_exp_empty_set"""
    ),
    "reduce-no-axes": (
        """
        fed reduce_sum_default_axes_keepdims_random, fed reduce_sum_empty_axes_input_noop,
        fed reduce_mean_default_axes_keepdims_random"""
    ),
    "reduce-nothing": (
        "frozen reduce_max_empty_set, frozen reduce_max_empty_set_bool, frozen reduce_min_empty_set"
    ),
    "select-last-index": (
        "fed argmax_keepdims_example_select_last_index, fed"
        " argmin_negative_axis_keepdims_example_select_last_index"
    ),
    "negative-indices": (
        "frozen gather_elements_negative_indices, frozen scatter_elements_with_negative_indices"
    ),
    "scatter-reduction": (
        """
        fed scatternd_add, fed scatternd_max_with_element_indices, fed scatternd_multiply,
        frozen scatter_elements_with_duplicate_indices, frozen scatter_elements_with_reduction_min"""
    ),
    "one-hot": "fed onehot_without_axis, frozen onehot_negative_indices, frozen onehot_out_of_range_indices",
    "uneven-split": "fed split_2d_uneven_split_opset18",
    "pad-forms": "frozen wrap_pad, frozen constant_pad_negative_axes, fed ConstantPad2d",
    "resize-forms": (
        """
        frozen resize_upsample_scales_cubic, frozen resize_downsample_sizes_cubic_antialias,
        frozen resize_tf_crop_and_resize_axes_3_2, frozen resize_tf_crop_and_resize_extrapolation_value,
        frozen resize_downsample_sizes_nearest_not_smaller, frozen
        resize_upsample_sizes_nearest_ceil_half_pixel,
        frozen resize_upsample_scales_linear_half_pixel_symmetric"""
    ),
    "grid-sample-forms": (
        "fed gridsample_bicubic, fed gridsample_nearest_align_corners_0_additional_1, fed"
        " gridsample_reflection_padding"
    ),
    "region-forms": "fed spacetodepth_crd_mode_example",
    "eye-like-dtype": "fed eyelike_with_dtype, fed eyelike_populate_off_main_diagonal",
    "elementwise-written-out": (
        """
        fed mish, fed swish, fed isnan, fed isinf_negative, fed isinf_float16, fed bitwise_and_i32_2d, fed
        bitwise_or_ui8_bcast_4v3d,
        fed bitwise_xor_i16_3d, fed bitwise_not_2d"""
    ),
    "axis-operators-written-out": (
        """
        fed hardmax_one_hot, fed hardmax_axis_1, frozen cumprod_2d_axis_0, frozen
        cumprod_1d_reverse_exclusive,
        frozen center_crop_pad_crop_and_pad, frozen center_crop_pad_crop_negative_axes_hwc"""
    ),
    "products-written-out": (
        """
        frozen col2im_pads, frozen col2im_5d, frozen dft, frozen dft_inverse, frozen dft_rfft, frozen
        dft_irfft, fed dft_axis_opset19"""
    ),
}
NEEDED = {  # what else MNN gets wrong in a case
    "lppool_3d_default": ("pool-strides",),
    "maxpool_3d_dilations": ("pool-strides",),
    "gridsample_nearest_align_corners_0_additional_1": ("round-half",),
}
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.getbasetemp()) as runner:
        yield runner


@pytest.fixture(scope="module")
def cases(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConformanceCase]:
    directory = tmp_path_factory.mktemp("cases")
    found = [case for variant in ("fed", "frozen") for case in runner.collect(directory / variant, variant)]  # type: ignore[arg-type]
    return {f"{case.variant} {case.name.removeprefix('test_')}": case for case in found}


def _parameters() -> Iterator[Any]:
    """One case of each rule for every run, the others for the long one."""
    for rule, names in CASES.items():
        for number, name in enumerate(names.split(",")):
            yield pytest.param(rule, " ".join(name.split()), marks=[pytest.mark.slow] if number else [])


@pytest.mark.parametrize(("rule", "name"), list(_parameters()))
def test_a_case_of_onnx(
    runner: Runner, cases: dict[str, ConformanceCase], tmp_path: Path, rule: str, name: str
) -> None:
    case = cases[name]
    others = NEEDED.get(name.split()[1], ())
    assert runner.convert(case, list(others)).status != "right"
    after = runner.convert(case, [rule, *others])
    assert (after.status, rule in after.rules) == ("right", True), after
    _unchanged(Path(case.model), load_arrays(case.data), tmp_path, rule)


def _unchanged(source: Path, stored: Mapping[str, Any], directory: Path, rule: str) -> None:
    """The rewritten model computes what the source does, and the rule finds nothing in it."""
    made, again = directory / "made", directory / "again"
    for path in (made, again):
        path.mkdir()
    done = repair(RepairJob(model=str(source), directory=str(made), rules=[rule]))
    model = onnx.load(done.files[0].path)
    onnx.checker.check_model(model)
    assert not repair(RepairJob(model=done.files[0].path, directory=str(again), rules=[rule])).fired
    before = onnx.load(source)
    assert [o.name for o in model.graph.output] == [o.name for o in before.graph.output]
    assert [o.type for o in model.graph.output] == [o.type for o in before.graph.output]
    feed = {i.name: stored[f"inputs/{i.name}"] for i in model.graph.input if f"inputs/{i.name}" in stored}
    expected = [stored[f"outputs/{o.name}"] for o in before.graph.output if o.name]
    for right, found in zip(expected, _computed(model, feed), strict=True):
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        slack = 1e-2 if right.dtype == np.float16 else ROUNDING
        assert np.allclose(found.astype(float), right.astype(float), rtol=slack, atol=slack, equal_nan=True)


def _computed(model: Any, feed: Mapping[str, Any]) -> list[Any]:
    """By onnxruntime; by ONNX's own evaluator where onnxruntime does not have the opset or the operator
    yet.
    """
    try:
        return list(reference(model, [dict(feed)])[0].values())
    except Exception:  # its exceptions have no common class
        return list(ReferenceEvaluator(model).run(None, dict(feed)))


# -- older opsets, and forms that ONNX's cases don't have --------------------------------------------


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unary(
    operator: str,
    shape: tuple[int, ...],
    opset: int,
    weights: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> tuple[Any, Any]:
    """y = operator(x, the weights in order), and a feed."""
    nodes = [node(operator, ["x", *(weights or {})], ["y"], **attributes)]
    return build(nodes, [floats("x", *shape)], [("y", FLOAT, None)], weights, opset), {"x": random(*shape)}


def masked(opset: int) -> tuple[Any, Any]:
    x = np.array([[0.0, -0.0, 2.0], [-0.0, 0.0, -1.0]], np.float32)
    nodes = [node("Equal", ["x", "z"], ["c"]), node("Cast", ["c"], ["y"], to=FLOAT)]
    return build(nodes, [floats("x", 2, 3), floats("z", 2, 3)], [("y", FLOAT, None)], None, opset), {
        "x": x,
        "z": np.abs(x),
    }


def truth(opset: int) -> tuple[Any, Any]:
    nodes = [node("Cast", ["x"], ["c"], to=BOOL), node("Cast", ["c"], ["y"], to=FLOAT)]
    return build(nodes, [floats("x", 6)], [("y", FLOAT, None)], None, opset), {
        "x": np.array([0, -0.0, 0.25, -0.5, 2, -3], np.float32)
    }


def loss(opset: int) -> tuple[Any, Any]:
    target = np.array([[0, 2], [1, 1], [2, 0]])
    nodes = [node("SoftmaxCrossEntropyLoss", ["x", "t"], ["y", "p"], reduction="mean", ignore_index=1)]
    inputs = [floats("x", 3, 4, 2)]
    return build(nodes, inputs, [("y", FLOAT, None), ("p", FLOAT, None)], {"t": target}, opset), {
        "x": random(3, 4, 2)
    }


def halves(opset: int) -> tuple[Any, Any]:
    x = np.array([-2.5, -1.5, -0.5, -0.3, 0.0, 0.49999997, 0.5, 1.5, 2.5, 3.7, 1e9], np.float32)
    return build([node("Round", ["x"], ["y"])], [floats("x", 11)], [("y", FLOAT, None)], None, opset), {
        "x": x
    }


def sampled(opset: int) -> tuple[Any, Any]:
    nodes = [
        node(
            "GridSample", ["x", "g"], ["y"], mode="bicubic" if opset < 20 else "cubic", padding_mode="border"
        )
    ]
    grid = np.random.default_rng(5).uniform(-1.1, 1.1, (2, 3, 4, 2)).astype(np.float32)
    model = build(
        nodes, [floats("x", 2, 3, 5, 6), floats("g", 2, 3, 4, 2)], [("y", FLOAT, None)], None, opset
    )
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "n"
    return model, {"x": random(2, 3, 5, 6), "g": grid}


def pivoted(opset: int) -> tuple[Any, Any]:
    return unary("Det", (3, 3), opset)[0], {"x": np.array([[0, 2, 1], [1, 0, 3], [4, 1, 0]], np.float32)}


MODELS: dict[str, tuple[str, Any]] = {
    "three-dimensional global average, opset 11": (
        "pool-3d",
        lambda: unary("GlobalAveragePool", (2, 3, 4, 5, 6), 11),
    ),
    "three-dimensional maximum, opset 8, unknown batch": (
        "pool-3d",
        lambda: unary("MaxPool", (2, 3, 6, 6, 6), 8, kernel_shape=[2] * 3, strides=[2] * 3, pads=[0] * 6),
    ),
    "dilated maximum of an unknown length, opset 11": (
        "pool-dilations",
        lambda: unary("MaxPool", (1, 2, 9), 11, kernel_shape=[3], strides=[1], dilations=[2]),
    ),
    "same, lower": (
        "pool-auto-pad",
        lambda: unary(
            "MaxPool", (1, 2, 7, 8), 11, kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER"
        ),
    ),
    "uneven norm": (
        "pool-auto-pad",
        lambda: unary(
            "LpPool", (1, 2, 7, 8), 18, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1], p=3
        ),
    ),
    "softmax from axis 1, opset 11": ("softmax-axis", lambda: unary("Softmax", (2, 3, 4), 11)),
    "hardmax from axis 1, opset 11": ("axis-operators-written-out", lambda: unary("Hardmax", (2, 3, 4), 11)),
    "a norm without keepdims, opset 13": (
        "reduce-keepdims",
        lambda: unary("ReduceL2", (2, 3, 4), 13, axes=[1]),
    ),
    "log softmax, opset 11": ("logsoftmax-axis", lambda: unary("LogSoftmax", (2, 5), 11)),
    "a vector on the right, opset 9": (
        "matmul-vector",
        lambda: unary("MatMul", (2, 3, 4), 9, {"v": random(4)}),
    ),
    "a slope a column, opset 9": ("prelu-slope", lambda: unary("PRelu", (2, 3, 4), 9, {"s": random(4)})),
    "mean of two, opset 8": ("few-operands", lambda: unary("Mean", (2, 3), 8, {"w": random(2, 3, seed=1)})),
    "bicubic upwards, opset 11, unknown batch": (
        "resize-forms",
        lambda: unary(
            "Resize",
            (1, 2, 4, 5),
            11,
            {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 1.5], np.float32)},
            mode="cubic",
        ),
    ),
    "three rows, opset 11": ("det-of-a-matrix", lambda: pivoted(11)),
    "transposed in three dimensions with strides and groups": (
        "conv3d-forms",
        lambda: unary(
            "ConvTranspose",
            (1, 4, 3, 4, 5),
            11,
            {"w": random(4, 3, 2, 3, 2, seed=2)},
            group=2,
            strides=[2, 1, 3],
            pads=[0, 1, 0, 1, 0, 1],
            output_padding=[1, 0, 0],
        ),
    ),
    "cubic sampling at the border, unknown batch": ("grid-sample-forms", lambda: sampled(16)),
    "zeros and their signs": ("equal-bits", lambda: masked(13)),
    "fractions as truth values": ("cast-forms", lambda: truth(13)),
    "a loss, opset 12": ("loss-forms", lambda: loss(12)),
    "halves": ("round-half", lambda: halves(11)),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_small_model(host: Host, tmp_path: Path, name: str) -> None:
    rule, make = MODELS[name]
    model, feed = make()
    if "unknown length" in name:
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "n"
    if "unknown batch" in name:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    expected = reference(model, [feed])
    assert not close(through_mnn(host, model, [feed], tmp_path / "before"), expected, ROUNDING)
    after, done = repaired(model, tmp_path / "repair", rule)
    assert [fired.rule for fired in done.fired] == [rule]
    found = reference(after, [feed])
    assert (
        same_bits(found, expected)
        if done.fired[0].exact and rule != "round-half"
        else close(found, expected, ROUNDING)
    )
    assert close(through_mnn(host, after, [feed], tmp_path / "after"), expected, ROUNDING)
    assert not repaired(after, tmp_path / "again", rule)[1].fired


def test_every_rewrite_is_tested() -> None:
    here = set(CASES) | {rule for rule, _ in MODELS.values()}
    others = "".join(path.read_text() for path in Path(__file__).parent.glob("test_rules*.py"))
    untested = [
        rule.name
        for rule in RULES
        if rule.rewrite is not None and rule.name not in here and f'"{rule.name}"' not in others
    ]
    assert not untested
    assert here <= {rule.name for rule in RULES}
