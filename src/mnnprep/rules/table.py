"""The rules, in the order in which they are applied.

Nothing heavy is imported: onnx-ir is, by the functions that find and rewrite, when they are called.
"""

from __future__ import annotations

from mnnprep.rules.arithmetic import (
    broadcast_matmul,
    clip_bounds,
    einsum_forms,
    equal_bits,
    few_operands,
    gelu_erf,
    gelu_operator,
    gemm_transposed,
    legacy_broadcast,
    less_negative,
    matmul_vector,
    mod_float,
    pow_types,
    random_values,
    round_half,
    shift_signed,
    shrink,
    single_matrix_det,
)
from mnnprep.rules.attention import softmax_isnan_guard
from mnnprep.rules.constants import empty_parts, fold
from mnnprep.rules.convolution import conv3d, one_dimension
from mnnprep.rules.filling import constant_of_shape, eye_like
from mnnprep.rules.functions import function_bodies, unrolled
from mnnprep.rules.fused import microsoft
from mnnprep.rules.indexing import (
    negative_indices,
    one_hot,
    pad_forms,
    scatter_reduction,
    slice_backwards,
    uneven_split,
    unique_forms,
)
from mnnprep.rules.normalization import (
    computed_statistics,
    logsoftmax_axis,
    lone_dropout,
    loss_forms,
    lp_zero,
    prelu_slope,
    softmax_axis,
    training_mode,
)
from mnnprep.rules.operators import empty_graph, foreign_domain, unsupported
from mnnprep.rules.pooling import (
    auto_pad,
    ceil_mode,
    max_pool_3d,
    pool3d,
    pool_dilations,
    pool_indices,
    pool_strides,
)
from mnnprep.rules.quantization import dequantize, dynamic_quantize, integer_products, quantize
from mnnprep.rules.recurrent import batch_first, left_out_outputs, linear_before_reset, reverse, unread_inputs
from mnnprep.rules.reduction import empty_tensor, keepdims, last_index, reduce_axes, reduce_no_axes
from mnnprep.rules.resampling import computed_upsample, grid_sample, region_forms, resize_forms
from mnnprep.rules.rule import Rule
from mnnprep.rules.sequences import removed
from mnnprep.rules.types import (
    cast_forms,
    int32_data,
    large_integers,
    narrow_integers,
    narrowed,
    odd_types,
    sequences,
)
from mnnprep.rules.written import axis_operators, elementwise, products

RULES: tuple[Rule, ...] = (
    # functions: what they leave is for the rules below
    microsoft.RULE,
    function_bodies.RULE,
    fold.RULE,
    unrolled.RULE,
    removed.RULE,
    empty_parts.RULE,
    constant_of_shape.RULE,
    gelu_erf.RULE,
    softmax_isnan_guard.RULE,
    broadcast_matmul.RULE,
    unsupported.RULE,
    foreign_domain.RULE,
    empty_graph.RULE,
    odd_types.RULE,
    # operators that the converter does not read
    elementwise.RULE,
    axis_operators.RULE,
    products.RULE,
    narrow_integers.RULE,
    # quantization: what rounds is for the rules below
    integer_products.RULE,
    dynamic_quantize.RULE,
    quantize.RULE,
    dequantize.RULE,
    # normalization
    logsoftmax_axis.RULE,
    softmax_axis.RULE,
    training_mode.RULE,
    computed_statistics.RULE,
    prelu_slope.RULE,
    lone_dropout.RULE,
    loss_forms.RULE,
    lp_zero.RULE,
    # resampling
    resize_forms.RULE,
    computed_upsample.RULE,
    grid_sample.RULE,
    region_forms.RULE,
    # arithmetic
    less_negative.RULE,
    gemm_transposed.RULE,
    pow_types.RULE,
    round_half.RULE,
    mod_float.RULE,
    few_operands.RULE,
    shift_signed.RULE,
    legacy_broadcast.RULE,
    clip_bounds.RULE,
    single_matrix_det.RULE,
    shrink.RULE,
    gelu_operator.RULE,
    einsum_forms.RULE,
    equal_bits.RULE,
    matmul_vector.RULE,
    random_values.RULE,
    # recurrent
    batch_first.RULE,
    linear_before_reset.RULE,
    unread_inputs.RULE,
    reverse.RULE,
    left_out_outputs.RULE,
    # pooling
    max_pool_3d.RULE,
    pool_strides.RULE,
    pool_indices.RULE,
    pool_dilations.RULE,
    ceil_mode.RULE,
    auto_pad.RULE,
    pool3d.RULE,
    # convolution
    one_dimension.RULE,
    conv3d.RULE,
    # reduction
    reduce_axes.RULE,
    reduce_no_axes.RULE,
    keepdims.RULE,
    empty_tensor.RULE,
    last_index.RULE,
    # indexing
    negative_indices.RULE,
    scatter_reduction.RULE,
    slice_backwards.RULE,
    one_hot.RULE,
    unique_forms.RULE,
    uneven_split.RULE,
    pad_forms.RULE,
    # filling
    eye_like.RULE,
    # types
    cast_forms.RULE,
    int32_data.RULE,
    large_integers.RULE,
    sequences.RULE,
    narrowed.RULE,
)


def all_rules() -> list[str]:
    """The names of all rules that rewrite, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None]


def always_rules() -> list[str]:
    """The names of the rules that rewrite wherever their pattern is, in table order."""
    return [rule.name for rule in RULES if rule.rewrite is not None and rule.rewrite.always]


def applicable(names: list[str], operators: frozenset[str]) -> list[str]:
    """Those of the rules *names* whose pattern can be in a graph of the types *operators*."""
    return [
        rule.name
        for rule in RULES
        if rule.name in names and (not rule.operators or rule.operators & operators)
    ]
