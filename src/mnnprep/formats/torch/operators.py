"""The operators that a PyTorch program may call.

They compute tensors and values from their arguments and touch nothing else.

``operators.txt`` lists them, a line each as ``namespace::name``; it was made from the registry of PyTorch
2.13 and reviewed. An operator
that is not in it is refused, also one that a later PyTorch brings: a test compares it with the registry of
the PyTorch that is installed, where each name has to be either in the list or in :data:`REFUSED`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# Namespaces whose operators were reviewed one by one; of any other namespace no operator is listed.
NAMESPACES = frozenset(
    {
        "aten",
        "prim",
        "prims",
        "quantized",
        "_quantized",
        "quantization",
        "sparse",
        "mkldnn",
        "mkldnn_prepacked",
        "mkl",
        "onednn",
        "profiler",
    }
)


def _named(namespace: str, names: str) -> frozenset[str]:
    return frozenset(f"{namespace}::{name}" for name in names.split())


# What the reviewed namespaces hold beside: files, other processes and machines, settings of this process, raw
# memory, the compiler's own intermediate nodes, torch's own tests.
REFUSED = (
    _named("aten", "save from_file")
    | _named(
        "aten",
        "to_here owner owner_name is_owner local_value confirmed_by_owner dist_backward _propagate_xla_data",
    )
    | _named(
        "aten",
        "_cufft_clear_plan_cache _cufft_set_plan_cache_max_size _print record_stream _index_put_impl_"
        " _index_put_impl",
    )
    | _named(
        "aten",
        "_foobar _test_ambiguous_defaults _test_autograd_multiple_dispatch"
        " _test_autograd_multiple_dispatch_view _test_check_tensor _test_autograd_multiple_dispatch_view_copy"
        " _test_functorch_fallback _test_optional_filled_intlist _test_optional_floatlist"
        " _test_optional_intlist _test_parallel_materialize _test_serialization_subcmul _test_string_default"
        " _test_warn_in_autograd",
    )
    | _named(
        "prim",
        "rpc_async rpc_remote rpc_sync PythonOp IgnoredPythonOp id AddStatValue TimePoint profile"
        " profile_ivalue",
    )
    | _named(
        "prim",
        "AutogradAdd AutogradAllNonZero AutogradAllZero AutogradAnyNonZero AutogradZero BailOut"
        " BailoutTemplate BroadcastMKLDNNTensors ChunkSizes ConstantMKLDNNTensor DifferentiableGraph"
        " FallbackGraph FusedConcat FusionGroup Guard MKLDNNClamp MKLDNNClamp_ MKLDNNHardSigmoid"
        " MKLDNNHardSigmoid_ MKLDNNHardSwish MKLDNNHardSwish_ MKLDNNHardTanh MKLDNNHardTanh_ MKLDNNLayerNorm"
        " MKLDNNLayerNorm_ MKLDNNScalarMul MKLDNNScalarMul_ MMBatchSide MMTreeReduce ReductionSizes"
        " RequiresGradCheck StaticRuntimeCopyOuts StaticSubgraph TensorExprDynamicGroup"
        " TensorExprDynamicGuard TensorExprGroup TypeCheck VarConcat VarStack mkldnn_convolution"
        " oneDNNFusionGroup oneDNNFusionGuard",
    )
    | _named("prims", "_make_token _sink_tokens device_put")
    | _named("mkldnn", "data_ptr _nbytes _get_mkldnn_serialized_md")
)

# Classes of C++ whose objects an archive may hold: packed weights of quantized and sparse layers, and the
# profiler's scopes.
CLASSES = frozenset(
    {
        "quantized.LinearPackedParamsBase",
        "quantized.Conv2dPackedParamsBase",
        "quantized.Conv3dPackedParamsBase",
        "quantized.EmbeddingPackedParamsBase",
        "rnn.CellParamsBase",
        "sparse.LinearPackedParamsBase",
        "mkldnn.ConvOpContext",
        "profiler._RecordFunction",
    }
)


@cache
def allowed() -> frozenset[str]:
    """Every operator that may be called, as ``namespace::name``."""
    return frozenset(files(__package__).joinpath("operators.txt").read_text().split())


@cache
def allowed_methods() -> frozenset[str]:
    """Return the names by which an operator is a method or a property in TorchScript.

    The object is a tensor, a string, a list or a dict.
    """
    return frozenset(name.partition("::")[2] for name in allowed() if name.startswith(("aten::", "prim::")))


@cache
def refused_methods() -> frozenset[str]:
    """The names that TorchScript would take for an operator that isn't allowed, on any tensor."""
    return (
        frozenset(name.partition("::")[2] for name in REFUSED if name.startswith(("aten::", "prim::")))
        - allowed_methods()
    )
