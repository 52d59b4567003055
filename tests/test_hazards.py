"""The hazard rules: each finds a case of ONNX's own suite that MNN does not get right, and leaves one alone
that it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import floats, node
from mnnprep.cli.main import cli
from mnnprep.commands.check import check_file, supported_operators
from mnnprep.commands.ops.runner import COLLECT
from mnnprep.conformance.messages import CollectJob
from mnnprep.conformance.table import load_table
from mnnprep.errors import RefusedError, UsageError
from mnnprep.repair.steps import CheckJob, Findings, check
from mnnprep.repair.table import RULES
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker

X = floats("x", 2, 3)

# rule -> (cases it finds, which MNN does not get right; cases that MNN gets right and it leaves alone)
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant-of-shape": (("fed affine_grid_2d_expanded",), ("fed constantofshape_float_ones",)),
    "unsupported-operator": (("fed adagrad", "fed ai_onnx_ml_array_feature_extractor"), ()),
    "unknown-dtype": (("fed ai_onnx_ml_label_encoder_string_int", "fed attention_4d_causal_bf16"), ()),
    "narrow-integer-arithmetic": (("fed add_int8", "fed add_uint8"), ("fed add",)),
    "logsoftmax-axis": (("fed logsoftmax_example_1",), ("fed logsoftmax_axis_0",)),
    "training-mode": (
        ("fed batchnorm_example_training_mode", "fed training_dropout_default"),
        ("fed BatchNorm1d_3d_input_eval",),
    ),
    "computed-statistics": (("fed batchnorm_example",), ("fed BatchNorm1d_3d_input_eval",)),
    "prelu-slope": (("frozen prelu_broadcast",), ("fed prelu_example",)),
    "lone-dropout": (("fed dropout_default", "fed dropout_default_mask"), ()),
    "loss-forms": (
        ("fed nllloss_NCd1d2_no_weight_reduction_mean_ii", "fed sce_none_log_prob"),
        ("fed nllloss_NC",),
    ),
    "lp-of-zeros": (("fed l2normalization_axis_0",), ("fed layer_normalization_2d_axis0",)),
    "clip-bounds": (("frozen clip_min_greater_than_max",), ("fed clip", "frozen clip")),
    "elementwise-written-out": (("fed mish", "fed isnan", "fed bitwise_and_i32_2d"), ("fed softplus",)),
    "axis-operators-written-out": (
        ("fed hardmax_one_hot", "fed cumprod_1d", "frozen center_crop_pad_crop"),
        ("fed cumsum_1d",),
    ),
    "products-written-out": (("frozen col2im", "fed dft"), ("fed matmul_2d",)),
    "less-negative": (("fed clip_example_expanded",), ("fed attention_4d_attn_mask_3d_causal_expanded",)),
    "gemm-trans-a": (("frozen gemm_transposeA",), ("fed gemm_default_zero_bias",)),
    "pow-types": (("fed pow_types_float32_int64",), ("fed gelu_tanh_1_expanded",)),
    "round-half": (("fed dynamicquantizelinear_expanded",), ()),
    "mod-float": (("fed mod_mixed_sign_float64",), ("fed attention_4d_attn_mask_expanded",)),
    "few-operands": (("fed max_one_input",), ("fed center_crop_pad_crop_expanded",)),
    "shift-signed": (("frozen bitshift_right_int8_shift_ge_width",), ("fed bitshift_right_uint16",)),
    "legacy-broadcast": (("fed operator_add_broadcast",), ("fed add",)),
    "det-of-a-matrix": (("fed det_2d",), ("fed det_nd",)),
    "shrink": (("fed shrink_hard",), ()),
    "gelu-operator": (("fed gelu_default_2",), ("fed gelu_tanh_1",)),
    "einsum-forms": (("fed einsum_batch_diagonal", "fed einsum_inner_prod"), ("fed einsum_transpose",)),
    "matmul-vector": (("frozen matmul_4d_1d",), ("fed affine_grid_3d_expanded",)),
    "random-values": (("fed bernoulli",), ()),
    "gru-linear-before-reset": (("fed gru_defaults",), ()),
    "recurrent-reverse": (("fed gru_reverse",), ("frozen gru_bidirectional",)),
    "recurrent-outputs": (("fed gru_defaults",), ("frozen gru_bidirectional",)),
    "recurrent-layout": (("fed gru_batchwise",), ("frozen gru_bidirectional",)),
    "recurrent-inputs": (("fed gru_defaults", "fed lstm_with_peepholes"), ("frozen gru_bidirectional",)),
    "pool-strides": (("fed averagepool_2d_precomputed_pads",), ("fed averagepool_2d_precomputed_strides",)),
    "pool-auto-pad": (
        ("fed maxpool_2d_same_lower", "fed lppool_2d_same_upper"),
        ("fed averagepool_2d_precomputed_same_upper",),
    ),
    "pool-dilations": (("fed averagepool_2d_dilations",), ("fed averagepool_2d_precomputed_strides",)),
    "pool-3d": (("fed lppool_3d_default",), ("fed averagepool_2d_precomputed_strides",)),
    "pool-ceil": (
        ("fed averagepool_2d_ceil_last_window_starts_on_pad",),
        ("fed averagepool_2d_precomputed_strides",),
    ),
    "pool-indices": (
        ("fed maxpool_with_argmax_2d_precomputed_strides", "fed maxunpool_export_with_output_shape"),
        ("fed maxpool_2d_precomputed_strides",),
    ),
    "conv1d-output": (("fed convtranspose_1d",), ("fed causal_conv_with_state_basic_expanded",)),
    "conv3d-forms": (("fed convtranspose_3d",), ("fed causal_conv_with_state_basic_expanded",)),
    "reduce-axes": (
        ("fed reduce_log_sum_desc_axes",),
        ("fed reduce_log_sum_exp_default_axes_keepdims_example",),
    ),
    "reduce-no-axes": (("fed reduce_log_sum_default_expanded",), ("fed attention_4d_attn_mask_expanded",)),
    "reduce-keepdims": (
        ("fed reduce_log_sum_default",),
        ("fed reduce_log_sum_exp_default_axes_keepdims_example",),
    ),
    "reduce-nothing": (("fed reduce_max_empty_set",), ("fed attention_4d_attn_mask_expanded",)),
    "select-last-index": (
        ("fed argmax_no_keepdims_example_select_last_index",),
        ("fed argmax_no_keepdims_example",),
    ),
    "negative-indices": (("frozen gather_elements_negative_indices",), ("fed affine_grid_3d_expanded",)),
    "scatter-reduction": (
        ("fed scatter_elements_with_duplicate_indices",),
        ("fed scatter_elements_without_axis",),
    ),
    "one-hot": (("fed onehot_without_axis",), ()),
    "unique-forms": (("fed unique_not_sorted_without_axis",), ("fed unique_sorted_without_axis",)),
    "uneven-split": (
        ("fed split_1d_uneven_split_opset18", "fed split_2d_uneven_split_opset18"),
        ("fed rotary_embedding_with_rotary_dim_expanded",),
    ),
    "pad-forms": (
        ("fed attention_4d_diff_heads_mask4d_padded_kv_expanded", "fed wrap_pad"),
        ("fed center_crop_pad_crop_expanded",),
    ),
    "resize-forms": (
        ("fed resize_downsample_scales_linear_align_corners", "fed resize_upsample_scales_cubic"),
        ("fed resize_upsample_scales_nearest",),
    ),
    "upsample-scales": (("fed upsample_nearest",), ("frozen upsample_nearest",)),
    "grid-sample-forms": (
        ("fed gridsample_reflection_padding", "fed gridsample_nearest"),
        ("fed gridsample",),
    ),
    "region-forms": (
        ("fed roialign_mode_max", "fed spacetodepth_crd_mode_example"),
        ("fed roialign_aligned_false",),
    ),
    "quantize-linear": (("fed dynamicquantizelinear_expanded",), ()),
    "dequantize-linear": (
        ("fed dequantizelinear", "fed dequantizelinear_uint16"),
        ("fed dequantizelinear_e4m3fn",),
    ),
    "dynamic-quantize": (("fed dynamicquantizelinear",), ()),
    "eye-like-dtype": (("fed eyelike_with_dtype",), ("fed eyelike_without_dtype",)),
    "cast-forms": (
        ("fed cast_UINT4_to_UINT8", "fed castlike_UINT4_to_UINT8_expanded"),
        (
            "fed attention_4d_attn_mask_expanded",
            "fed range_float_type_positive_delta_expanded",
        ),  # rounded before it is cast to bool: right
    ),
    "int32-data": (("frozen castlike_FLOAT_to_FLOAT16",), ()),
    "large-integers": (("frozen bitwise_and_ui64_bcast_3v1d",), ()),
    "sequences-outside": (("fed if_opt",), ()),
    "gru-open-length": ((), ("frozen gru_bidirectional",)),
    "recurrent-sequence": (("frozen gru_bidirectional",), ("frozen rnn_seq_length",)),
    "loop-collected": (("fed loop11",), ("fed range_int32_type_negative_delta_expanded",)),
    "narrowed": (("fed adagrad", "fed ai_onnx_ml_tree_ensemble_single_tree"), ()),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The model files of the cases, by variant and name."""
    root = tmp_path_factory.mktemp("suite")
    found = {}
    with Host(Worker("test", ("numpy", "onnx")), scratch=root) as host:
        for variant in ("fed", "frozen"):
            directory = root / variant
            directory.mkdir()
            job = CollectJob(directory=str(directory), variant=variant)  # type: ignore[arg-type]
            cases = host.run(COLLECT, job, timeout=120).value.cases
            found |= {f"{variant} {case.name.removeprefix('test_')}": case.model for case in cases}
    return found


@pytest.fixture(scope="module")
def supported() -> list[str]:
    return sorted(supported_operators()["ONNX"])


def names(found: Findings) -> set[str]:
    return {f.rule for f in found.findings}


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_mnn_gets_wrong_and_nothing_else(
    rule: str, suite: dict[str, str], supported: list[str]
) -> None:
    broken, right = CASES[rule]
    for case in broken:
        assert rule in names(check(CheckJob(model=suite[case], supported=supported))), case
    for case in right:
        assert rule not in names(check(CheckJob(model=suite[case], supported=supported))), case


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tensors: Sequence[Any] = (),
    opset: int = 13,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        list(tensors),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def softmax(path: Path, *, rank: int = 3, opset: int = 11, **attributes: Any) -> Path:
    shape = [2, 3, 4][:rank]
    return save(
        path,
        [node("Softmax", ["x"], ["y"], **attributes)],
        [floats("x", *shape)],
        [floats("y", *shape)],
        opset=opset,
    )


def large(path: Path, value: int) -> Path:
    add = [node("Add", ["x", "k"], ["y"])]
    ids = ("x", TensorProto.INT64, [2])
    return save(
        path, add, [ids], [("y", TensorProto.INT64, [2])], [numpy_helper.from_array(np.array([value]), "k")]
    )


def mask(path: Path, *, raw: bool) -> Path:
    values = np.array([True, False, True])
    tensor = (
        numpy_helper.from_array(values, "k")
        if raw
        else helper.make_tensor("k", TensorProto.BOOL, [3], values)
    )
    return save(path, [node("Where", ["k", "x", "x"], ["y"])], [X], [floats("y", 2, 3)], [tensor])


def foreign(path: Path, op_type: str) -> Path:
    return save(
        path, [helper.make_node(op_type, ["x"], ["y"], name="n", domain="my.ops")], [X], [floats("y", 2, 3)]
    )


def equal(path: Path, value: float) -> Path:
    held = [numpy_helper.from_array(np.array(value, np.float32), "k")]
    return save(path, [node("Equal", ["x", "k"], ["y"])], [X], [("y", TensorProto.BOOL, [2, 3])], held)


HAND_MADE: dict[str, tuple[Any, Any]] = {
    "equal-bits": (lambda path: equal(path, 0.0), lambda path: equal(path, 1.0)),
    "empty-graph": (
        lambda path: save(path, [], [X], [X]),
        lambda path: save(path, [node("Relu", ["x"], ["y"])], [X], [X, floats("y", 2, 3)]),
    ),
    "softmax-axis": (softmax, lambda path: softmax(path, axis=1)),
    "softmax-axis of a matrix": (softmax, lambda path: softmax(path, rank=2)),
    "softmax-axis from opset 13": (softmax, lambda path: softmax(path, opset=13)),
    "large-integers": (lambda path: large(path, 1 << 31), lambda path: large(path, 1 << 30)),
    "large-integers below": (lambda path: large(path, -(1 << 31)), lambda path: large(path, -5)),
    "int32-data": (lambda path: mask(path, raw=False), lambda path: mask(path, raw=True)),
    "foreign-domain": (lambda path: foreign(path, "Relu"), lambda path: foreign(path, "MyOwn")),
    "unsupported-operator": (lambda path: foreign(path, "MyOwn"), lambda path: foreign(path, "Relu")),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_rule_knows_its_pattern_from_what_is_like_it(
    name: str, tmp_path: Path, supported: list[str]
) -> None:
    rule = name.partition(" ")[0]
    broken, right = HAND_MADE[name]
    for make, there in ((broken, True), (right, False)):
        model = make(tmp_path / "model.onnx")
        assert (rule in names(check(CheckJob(model=str(model), supported=supported)))) is there


def test_every_rule_without_a_rewrite_has_a_broken_case() -> None:
    """Those with one are in test_rules, where MNN is asked before and after."""
    assert {rule.name for rule in RULES if rule.rewrite is None} <= set(CASES) | {
        name.partition(" ")[0] for name in HAND_MADE
    }


# -- the command -----------------------------------------------------------------------------------

TRACE = 'File "/usr/lib/python3/site-packages/torch/nn/f.py", line 5, in silu\n'


def gru(path: Path) -> Path:
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("w", (1, 6, 3)), ("r", (1, 6, 2)))
    ]
    step = node("GRU", ["x", "w", "r"], ["y"], hidden_size=2)
    step.name = "encoder"
    entry = step.metadata_props.add()
    entry.key, entry.value = (
        "pkg.torch.onnx.stack_trace",
        f'File "{path.parent}/net.py", line 17, in forward\n{TRACE}',
    )
    return save(path, [step], [floats("x", 4, 1, 3)], [floats("y", 4, 1, 1, 2)], weights)


def relu(path: Path) -> Path:
    return save(path, [node("Relu", ["x"], ["y"])], [X], [floats("y", 2, 3)])


def test_a_report_has_node_source_line_reason_and_remedy(tmp_path: Path) -> None:
    report = check_file(gru(tmp_path / "gru.onnx"))
    assert not report.clean
    hazard, low = report.hazards
    assert (low.rule, low.severity, low.node) == ("recurrent-sequence", "low", "GRU encoder")
    assert (hazard.rule, hazard.severity, hazard.node) == ("gru-linear-before-reset", "wrong", "GRU encoder")
    assert hazard.source == f"{tmp_path}/net.py:17"
    assert hazard.hazard
    assert hazard.remedy


def test_the_exit_code_says_whether_anything_was_found(tmp_path: Path) -> None:
    for make, code in (
        (gru, 1),
        (relu, 0),
        (lambda path: large(path, 1), 0),
    ):  # int64 is narrowed, which is no failure
        done = CliRunner().invoke(cli, ["check", str(make(tmp_path / "m.onnx"))], standalone_mode=False)
        assert done.return_value == code, done.output
    assert "1 narrowed" in done.output or "2 narrowed" in done.output


def test_json_and_sarif_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = gru(tmp_path / "gru.onnx")
    done = CliRunner().invoke(
        cli, ["check", str(model), "--json", "--sarif", "out.sarif"], standalone_mode=False
    )
    report = json.loads(done.stdout)
    assert report["schema"] == "mnnprep.check/1"
    log = json.loads((tmp_path / "out.sarif").read_text())
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert [result["ruleId"] for result in run["results"]] == [hazard["rule"] for hazard in report["hazards"]]
    result, low = run["results"]
    assert low["level"] == "warning"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "net.py"}, "region": {"startLine": 17}}
    assert result["level"] == "error"
    first = (tmp_path / "out.sarif").read_bytes()
    CliRunner().invoke(cli, ["check", str(model), "--sarif", "out.sarif"], standalone_mode=False)
    assert (tmp_path / "out.sarif").read_bytes() == first


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_file(tmp_path / "missing.onnx")
    broken = gru(tmp_path / "gru.onnx")
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(RefusedError):
        check_file(broken)
    np.savez(tmp_path / "no.npz", a=np.zeros(1))
    with pytest.raises((UsageError, RefusedError)):
        check_file(tmp_path / "no.npz")
    with pytest.raises(UsageError, match="can't be written"):
        CliRunner().invoke(
            cli,
            ["check", str(relu(tmp_path / "m.onnx")), "--sarif", str(tmp_path / "no" / "x")],
            standalone_mode=False,
            catch_exceptions=False,
        )


def test_the_command_line_process_imports_no_framework(tmp_path: Path) -> None:
    code = (
        "import sys; from mnnprep.commands.check import check_file; check_file(sys.argv[1]); "
        "print(sorted({'onnx', 'onnx_ir', 'onnxruntime', 'MNN', '_tools', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(gru(tmp_path / "m.onnx"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "[]", done.stderr


def graph_def(*operators: str) -> bytes:
    """A GraphDef of nodes that have nothing but an operator (graph.proto: node = 1; node_def.proto: name = 1,
    op = 2).
    """
    nodes = [b"\x0a\x01n\x12" + bytes([len(op)]) + op.encode() for op in operators]
    return b"".join(b"\x0a" + bytes([len(n)]) + n for n in nodes)


def test_a_tensorflow_graph_is_checked_by_its_operators(tmp_path: Path) -> None:
    from mnnprep.formats.tensorflow.graphdef import operators_in

    path = tmp_path / "g.pb"
    path.write_bytes(graph_def("Placeholder", "Relu", "Relu", "DivNoNan"))
    assert operators_in(path) == {"Relu": 2, "Placeholder": 1, "DivNoNan": 1}
    report = check_file(path)
    assert [(h.rule, h.operator, h.severity) for h in report.hazards] == [
        ("unsupported-operator", "DivNoNan", "refused")
    ]


def test_the_table_that_ships_lists_what_this_converter_reads() -> None:
    table = load_table()
    assert table is not None
    assert {name: len(operators) for name, operators in table.frontends.items()} == {
        "CAFFE": 58,
        "ONNX": 169,
        "TF": 179,
        "TFLITE": 82,
    }
