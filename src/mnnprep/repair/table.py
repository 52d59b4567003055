"""The rules, in the order in which they are applied: one row a rule.

A row is the module that holds the rule, within this package; its file is named as the rule is.  Nothing heavy
is imported: onnx-ir is, by the functions that find and rewrite, when they are called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mnnprep.repair.rule import Rule

ROWS = (
    # functions: what they leave is for the rules below
    "operators.microsoft_operators",
    "operators.function_bodies",
    "constants.constant_folding",
    "control.unrolled",
    "control.sequences",
    "indexing.empty_parts",
    "constants.constant_of_shape",
    "arithmetic.gelu_erf",
    "normalization.softmax_isnan_guard",
    "arithmetic.integer_matmul",
    "arithmetic.broadcast_matmul",
    "operators.unsupported_operator",
    "operators.foreign_domain",
    "operators.empty_graph",
    "types.unknown_dtype",
    # operators that the converter does not read
    "operators.elementwise_written_out",
    "operators.axis_operators_written_out",
    "operators.products_written_out",
    "types.narrow_integer_arithmetic",
    # quantization: what rounds is for the rules below
    "quantization.integer_products",
    "quantization.dynamic_quantize",
    "quantization.quantize_linear",
    "quantization.dequantize_linear",
    # normalization
    "normalization.logsoftmax_axis",
    "normalization.softmax_axis",
    "normalization.training_mode",
    "normalization.computed_statistics",
    "normalization.prelu_slope",
    "normalization.lone_dropout",
    "normalization.loss_forms",
    "normalization.lp_of_zeros",
    # resampling
    "resampling.resize_forms",
    "resampling.upsample_scales",
    "resampling.grid_sample_forms",
    "resampling.region_forms",
    # arithmetic
    "arithmetic.less_negative",
    "arithmetic.compare_broadcast",
    "arithmetic.gemm_trans_a",
    "arithmetic.div_by_size",
    "arithmetic.pow_types",
    "arithmetic.round_half",
    "arithmetic.mod_float",
    "arithmetic.few_operands",
    "arithmetic.shift_signed",
    "arithmetic.legacy_broadcast",
    "arithmetic.clip_bounds",
    "arithmetic.det_of_a_matrix",
    "arithmetic.shrink",
    "arithmetic.gelu_operator",
    "arithmetic.einsum_forms",
    "arithmetic.equal_bits",
    "arithmetic.matmul_vector",
    "arithmetic.random_values",
    # recurrent
    "recurrent.recurrent_layout",
    "recurrent.gru_open_length",
    "recurrent.gru_linear_before_reset",
    "recurrent.lstm_initial_states",
    "recurrent.recurrent_inputs",
    "recurrent.recurrent_reverse",
    "recurrent.recurrent_outputs",
    # precision low: for a target that asks for it
    "low_precision.recurrent_sequence",
    "low_precision.loop_collected",
    "low_precision.large_pooling",
    "low_precision.variance_by_moments",
    "low_precision.unshifted_exponential",
    "low_precision.complement_of_clip",
    "low_precision.logarithm_of_quotient",
    "low_precision.offset_taken_away",
    "low_precision.power_of_two",
    # pooling
    "pooling.pool_integers",
    "pooling.max_pool_3d",
    "pooling.pool_strides",
    "pooling.pool_indices",
    "pooling.pool_dilations",
    "pooling.pool_ceil",
    "pooling.pool_auto_pad",
    "pooling.pool_3d",
    # convolution
    "convolution.deconv_padding",
    "convolution.conv1d_output",
    "convolution.conv3d_forms",
    # reduction
    "reduction.reduce_axes",
    "reduction.reduce_no_axes",
    "reduction.reduce_keepdims",
    "reduction.reduce_nothing",
    "reduction.argmax_integers",
    "reduction.select_last_index",
    # indexing
    "indexing.negative_indices",
    "indexing.scatter_reduction",
    "indexing.slice_backwards",
    "indexing.one_hot",
    "indexing.unique_forms",
    "indexing.uneven_split",
    "indexing.pad_forms",
    # filling
    "constants.eye_like_dtype",
    # types
    "types.cast_forms",
    "types.int32_data",
    "types.large_integers",
    "control.sequences_outside",
    "types.narrowed",
)
RULES: tuple[Rule[Any], ...] = tuple(import_module(f"mnnprep.repair.{row}").RULE for row in ROWS)


def all_rules() -> list[str]:
    """The names of the rules that rewrite for any target, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None and not rule.target]


def always_rules() -> list[str]:
    """The names of the rules that rewrite wherever their pattern is, in table order."""
    return [
        rule.name for rule in RULES if rule.rewrite is not None and rule.rewrite.always and not rule.target
    ]


def low_rules() -> list[str]:
    """The names of the rules that rewrite for precision ``low`` alone, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None and rule.target == "low"]


def wrong_at_low() -> list[str]:
    """The names of the rules for what is wrong at precision ``low`` whatever the values, in table order."""
    return [rule.name for rule in RULES if rule.severity == "low"]


def applicable(names: list[str], operators: frozenset[str]) -> list[str]:
    """Those of the rules *names* whose pattern can be in a graph of the types *operators*."""
    return [
        rule.name
        for rule in RULES
        if rule.name in names and (not rule.operators or rule.operators & operators)
    ]
