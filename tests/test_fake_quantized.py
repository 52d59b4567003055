"""Nets that quantization-aware training left: rounded as they compute, in PyTorch and in TensorFlow."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mnnprep
from mnnprep.comparison.folded_weights import account
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.torch.exporter_forms import exporter_forms
from mnnprep.formats.torch.net import TorchNet
from mnnprep.model.net import Case
from mnnprep.model.signature import TensorSpec

quantization = torch.ao.quantization


def trained(backend: str, *, observers: bool = False) -> nn.Module:
    """A small net after quantization-aware training: per channel for x86, per tensor for qnnpack."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)).train()
    net.qconfig = quantization.get_default_qat_qconfig(backend)
    quantization.prepare_qat(net, inplace=True)
    for _ in range(3):
        net(torch.randn(4, 3, 8, 8))
    if not observers:
        net.apply(quantization.disable_observer)
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
@pytest.mark.parametrize("observers", [True, False])
def test_the_form_of_a_trained_quantizer_is_torch_s_own(backend: str, observers: bool) -> None:
    net, x = trained(backend, observers=observers), torch.randn(1, 3, 8, 8)
    expected = copy.deepcopy(net)(x)  # observers that are on change as they look
    with exporter_forms(13, open_sizes=False):
        assert torch.equal(net(x), expected)


@pytest.mark.filterwarnings("ignore")
def test_what_a_net_rounds_is_judged_by_the_step() -> None:
    spec = TensorSpec("x", "float32", (1, 3, 8, 8))
    x = {"x": np.ones((1, 3, 8, 8), np.float32)}
    steps = []
    for module in (trained("x86"), nn.Flatten()):
        net = TorchNet(module, (TensorSpec("input", spec.dtype, spec.shape),))
        outputs = net.run({"input": x["x"]})
        steps.append(net.steps([Case("seed 0", {}, x, outputs)]))
    assert [len(found) for found in steps] == [1, 0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
def test_a_net_with_its_observers_off_is_proven(backend: str, tmp_path: Path) -> None:
    manifest = mnnprep.prepare(trained(backend), tmp_path / "out", example=torch.randn(1, 3, 8, 8))
    assert manifest is not None
    assert manifest.verdict is Verdict.PROVEN, manifest.evidence


def test_a_kernel_that_was_rounded_accounts_for_its_weight() -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, 2, 8)).astype(np.float32)
    rounded = np.round(kernel / 0.05).astype(np.float32) * np.float32(0.05)
    derived: dict[str, tuple[Any, list[str]]] = {"rounded": (rounded, ["kernel"])}
    moved = np.ascontiguousarray(rounded.transpose(3, 2, 0, 1))
    assert account({"kernel": kernel}, {"w": moved}, derived) == {"kernel"}
    other = moved.copy()
    other[3, 1, 2, 2] += 0.05
    assert account({"kernel": kernel}, {"w": other}, derived) == set()
