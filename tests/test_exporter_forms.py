"""The forms that an export is made in compute what torch computes, and come out right at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mnnprep.formats.torch.adding_forms import UnsupportedAtOpset
from mnnprep.formats.torch.exporter_forms import exporter_forms

Net = Callable[..., Any]


class Called(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Any:
        return self.net(*inputs)


def rotated(x: Tensor) -> Tensor:
    angles = torch.arange(x.shape[1]).float()[None, :, None] * (torch.arange(4).float() + 1)
    return (x * angles.repeat_interleave(2, dim=-1).cos()).view(*x.shape[:-1], -1, 2)


def halves(x: Tensor) -> Any:
    return torch.split(torch.cat([x, x + 1]), x.shape[0])


def segments(how: str) -> Net:
    def reduced(x: Tensor, i: Tensor) -> Tensor:
        start = torch.arange(6).float() - 3
        return start.scatter_reduce(0, i, x, reduce=how, include_self=False)

    return reduced


def distances(p: float) -> Net:
    return lambda x: torch.cdist(x.round(), x.flip(1).round() + 1, p=p)


def indexed(length: int) -> tuple[Tensor, ...]:
    return torch.randn(length), torch.randint(0, 5, (length,))


def batch(*sizes: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda length: (torch.randn(length, *sizes),)


NETS: dict[str, tuple[Net, Callable[[int], tuple[Tensor, ...]]]] = {
    "repeat_interleave": (rotated, batch(7, 8)),
    "permute": (lambda x: x.permute(0, -2, -1, 1) * 2, batch(3, 4, 5)),
    "permute a tuple": (lambda x: torch.permute(x, (-1, 0, 1)), batch(3, 4)),
    "rms_norm": (nn.RMSNorm(8), batch(3, 8)),
    "rms_norm without weight": (lambda x: functional.rms_norm(x, (3, 8), eps=0.1), batch(3, 8)),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 3, stride=1, padding=1), batch(6, 6)),
    "adaptive_avg_pool1d": (lambda x: functional.adaptive_avg_pool1d(x.permute(1, 2, 0), 4), batch(2, 3)),
    "adaptive_avg_pool2d": (
        lambda x: functional.adaptive_avg_pool2d(x.permute(1, 2, 0), (3, 4)),
        batch(2, 7),
    ),
    "adaptive_avg_pool3d": (
        lambda x: functional.adaptive_avg_pool3d(x.permute(1, 2, 3, 0), (None, 2, 3)),
        batch(2, 3, 5),
    ),
    "adaptive_max_pool2d": (
        lambda x: functional.adaptive_max_pool2d(x.permute(1, 2, 0), (3, 4)),
        batch(2, 7),
    ),
    "scatter_add": (lambda x, i: torch.ones(6).scatter_add(0, i, x), indexed),
    "scatter_add in place": (lambda x, i: torch.ones(6).scatter_add_(0, i, x) * 2, indexed),
    "index_add": (lambda x, i: torch.ones(6, 2).index_add(0, i, torch.stack([x, -x], 1), alpha=2), indexed),
    "index_add in place": (lambda x, i: torch.ones(2, 6).index_add_(-1, i, torch.stack([x, -x])), indexed),
    "index_put, accumulated": (lambda x, i: torch.ones(6).index_put((i,), x, accumulate=True), indexed),
    "index_put of two axes": (
        lambda x, i: torch.ones(6, 3, 2).index_put((i, i % 3 - 3), x[:, None], accumulate=True),
        indexed,
    ),
    "index_put in place": (lambda x, i: torch.ones(6).index_put_((i,), x, accumulate=True), indexed),
    "unfold": (lambda x: x.unfold(0, 2, 1) * 2, batch(3)),
    "unfold in steps": (lambda x: x.permute(1, 0, 2).unfold(-2, 2, 3), batch(3, 4)),
    "split by a size": (halves, batch(4)),
    "split by a number": (lambda x: x.split(3, -1), batch(8)),
    "avg_pool2d without a batch": (lambda x: functional.avg_pool2d(x, 3, 2, padding=1), batch(6, 6)),
    "max_pool3d without a batch": (lambda x: functional.max_pool3d(x, 2), batch(4, 6, 6)),
    "circular padding without a batch": (lambda x: functional.pad(x, (2, 1), mode="circular"), batch(6)),
    "any of numbers": (lambda x: torch.any(torch.cat([x, -x], 1).round(), 1), batch(4)),
    "softplus with a threshold": (lambda x: functional.softplus(x, 3.0, 0.2), batch(4)),
    **{f"cdist {p}": (distances(p), batch(4, 3)) for p in (0.0, 1.0, 2.0, 3.0, torch.inf)},
    **{f"scatter_reduce {how}": (segments(how), indexed) for how in ("amin", "amax", "mean", "sum", "prod")},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_a_form_is_right_at_other_sizes(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    net, make = NETS[name]
    model, file, example = Called(net).eval(), str(tmp_path / "m.onnx"), make(5)
    names = ["x", "i"][: len(example)]
    with torch.no_grad(), exporter_forms(16, open_sizes=True):
        torch.onnx.export(
            model,
            example,
            file,
            dynamo=False,
            opset_version=16,
            input_names=names,
            dynamic_axes={n: {0: "n"} for n in names},
        )
    session = onnxruntime.InferenceSession(file)
    for length in (5, 2, 11):
        inputs = make(length)
        given = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
        with torch.no_grad():
            expected = model(*inputs)
        expected = [expected] if isinstance(expected, Tensor) else expected
        for one, other in zip(expected, given, strict=True):
            np.testing.assert_allclose(other, one.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["amin", "amax", "mean", "sum", "prod"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_reduction_is_torch_s_own(how: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    start, values = torch.randint(-9, 9, (3, 4)).to(dtype), torch.randint(-9, 9, (5, 4)).to(dtype)
    index = torch.randint(0, 2, (5, 4))
    expected = start.scatter_reduce(0, index, values, how, include_self=False)
    with exporter_forms(16, open_sizes=True):
        assert torch.equal(start.scatter_reduce(0, index, values, how, include_self=False), expected)
        both = torch.scatter_reduce(start, 0, index, values, reduce=how)
    assert torch.equal(both, start.scatter_reduce(0, index, values, how))


@pytest.mark.parametrize("open_sizes", [True, False])
@pytest.mark.parametrize("cells", [1, 2, 3, 4, 5, 8])
def test_adaptive_pooling_is_torch_s_own(cells: int, open_sizes: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 4)
    expected = (functional.adaptive_avg_pool2d(x, cells), functional.adaptive_max_pool2d(x, (None, cells)))
    with exporter_forms(16, open_sizes=open_sizes):
        found = (functional.adaptive_avg_pool2d(x, cells), functional.adaptive_max_pool2d(x, (None, cells)))
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")
def test_a_fixed_size_that_the_cells_do_not_divide(tmp_path: Path) -> None:
    model, x = nn.AdaptiveAvgPool2d((3, 2)).eval(), torch.randn(2, 3, 8, 4)
    with torch.no_grad(), exporter_forms(16, open_sizes=False):
        torch.onnx.export(model, (x,), str(tmp_path / "m.onnx"), dynamo=False, opset_version=13)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(given, model(x).numpy(), rtol=1e-5, atol=1e-6)


def test_a_sum_into_places_needs_an_opset_that_adds() -> None:
    x, i = torch.randn(3), torch.tensor([0, 1, 1])
    with exporter_forms(15, open_sizes=False), pytest.raises(UnsupportedAtOpset) as caught:
        torch.zeros(4).scatter_add(0, i, x)
    assert caught.value.needed == 16


WHOLE: dict[str, Net] = {
    "cos": torch.cos,
    "log of a method": lambda x: (x * x + 1).log(),
    "floor": torch.floor,
    "mm": lambda x: torch.mm(x, x.t()),
    "addmm": lambda x: torch.addmm(x[:, :1], x, x.t(), beta=2, alpha=3),
    "floor_divide": lambda x: torch.floor_divide(x, 4),
    "any": lambda x: torch.any(x, 1),
    "softmax with a dtype": lambda x: torch.softmax(x, 1, dtype=torch.float32),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WHOLE)
def test_a_form_of_integers_runs_and_is_right(tmp_path: Path, name: str) -> None:
    x, file, model = torch.arange(-9, 11).reshape(4, 5), str(tmp_path / "m.onnx"), Called(WHOLE[name]).eval()
    with torch.no_grad(), exporter_forms(17, open_sizes=False):
        torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    (given,) = onnxruntime.InferenceSession(file).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(given, model(x).numpy(), rtol=1e-5)
