"""Nets as people write them in torch, from source to proven; about half of them MNN refuses, crashes on or
gets wrong as exported.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import mnnprep
from support.snippets import SNIPPETS

# What is repaired; without, it is not proven.
NEEDS = {
    "Conv1d audio net": "conv1d-output",
    "transposed Conv1d": "conv1d-output",
    "dilated max pooling": "pool-dilations",
    "attention with a bool mask": "softmax-isnan-guard",
    "Elman net, ReLU": "recurrent-inputs",
    "CELU, GLU and softshrink": "less-negative",
    "fold": "products-written-out",
    "bicubic resize": "resize-forms",
    "antialiased bilinear": "resize-forms",
    "grid_sample warp": "grid-sample-forms",
    "grid_sample, bicubic": "grid-sample-forms",
    "3-D pooling of a batch": "max-pool-3d",
    "dilated Conv3d": "conv3d-forms",
    "scatter_add": "scatter-reduction",
    "index_put, accumulated": "scatter-reduction",
    "index_add": "scatter-reduction",
    "where with a bool of floats": "cast-forms",
    "comparisons of negatives": "less-negative",
    "rfft": "products-written-out",
    "rounding and fmod": "round-half",
    "bitwise masks": "elementwise-written-out",
    "isnan guard": "elementwise-written-out",
    "fake-quantized linear layer": "quantize-linear",
    "token ids above 2^30": "large-integers",
    "Conv1d and ReLU": "conv1d-output",
    "depthwise Conv1d": "conv1d-output",
    "L1 norm": "reduce-axes",
    "Mish, exported": "function-bodies",
    "3-D average pooling": "pool-3d",
    "global 3-D pooling": "pool-3d",
    "dilated 1-D max pooling": "pool-dilations",
    "isinf guard": "elementwise-written-out",
    "nan_to_num": "elementwise-written-out",
    "scatter_reduce, amax": "scatter-reduction",
    "scatter_reduce, prod": "scatter-reduction",
    "shifted integers": "elementwise-written-out",
    "inverted bits": "elementwise-written-out",
    "GELU between layers": "gelu-erf",
    "filter in the frequency domain": "products-written-out",
    "einsum of a diagonal": "einsum-forms",
    "bilinear form by einsum": "einsum-forms",
    "transposed Conv3d": "conv3d-forms",
    "bucketize": "constant-folding",
}
RIGHT_AT_THE_SECOND_EXPORT = ("Elman net, ReLU", "CELU, GLU and softshrink")
EXPORTED = (
    "scatter_add",
    "index_put, accumulated",
    "index_add",
    "rfft",
    "bitwise masks",
    "antialiased bilinear",
    "L1 norm",
    "Mish, exported",
    "scatter_reduce, amax",
    "scatter_reduce, prod",
    "shifted integers",
    "inverted bits",
    "filter in the frequency domain",
    "bucketize",
)
OPSETS = {  # where the first attempt is not the one that exports it
    "fold": 18,
    "grid_sample warp": 16,
    "grid_sample, bicubic": 16,
    "deformable offsets": 16,
    "attention with a bool mask": 14,
    "rotary attention": 14,
    "attention with a causal mask of -inf": 14,
    "transformer encoder layer": 14,
}
QUICK = (
    "LSTM classifier",
    "Elman net, ReLU",
    "Conv1d audio net",
    "dilated max pooling",
    "attention with a bool mask",
    "rotary attention",
    "BERT mask of -inf",
    "YOLO head",
    "token ids above 2^30",
    "fold",
    "bicubic resize",
    "grid_sample warp",
    "3-D pooling of a batch",
    "isnan guard",
    "fake-quantized linear layer",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SNIPPETS]
)
def test_from_torch_to_proven(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    module, example = SNIPPETS[name]()
    method = "onnx-export" if name in EXPORTED else "onnx-trace" if name in OPSETS else "auto"
    manifest = mnnprep.prepare(
        module.eval(), tmp_path / "out", example=example, method=method, opset=OPSETS.get(name, 13)
    )
    assert manifest is not None
    assert manifest.verdict.value == "proven", [a.reason for a in manifest.artifact.attempts]
    fired = [repair.rule for repair in manifest.artifact.repairs]
    assert name not in NEEDS or NEEDS[name] in fired, fired


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NEEDS if name not in RIGHT_AT_THE_SECOND_EXPORT])
def test_what_needs_a_repair_fails_without(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    module, example = SNIPPETS[name]()
    method = "onnx-export" if name in EXPORTED else "onnx-trace"
    manifest = mnnprep.prepare(
        module.eval(),
        tmp_path / "out",
        example=example,
        method=method,
        opset=OPSETS.get(name, 13),
        repairs=(),
    )
    assert manifest is not None
    assert manifest.verdict.value != "proven"


def test_dynamic_quantized_linear_layers(tmp_path: Path) -> None:
    """As onnxruntime's quantizer writes them: DynamicQuantizeLinear and MatMulInteger, proven as it is."""
    from onnxruntime.quantization import quantize_dynamic

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    torch.onnx.export(
        module, (torch.randn(2, 8),), str(tmp_path / "float.onnx"), opset_version=13, dynamo=False
    )
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {
        n.op_type for n in onnx.load(tmp_path / "int8.onnx").graph.node
    }
    manifest = mnnprep.prepare(tmp_path / "int8.onnx", tmp_path / "out")
    assert manifest is not None
    assert manifest.verdict.value == "proven", [a.reason for a in manifest.artifact.attempts]
