"""Complex tensors as pairs of real ones: the same numbers as torch's, and an export that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mnnprep.formats.torch.complex_pairs import Pair
from mnnprep.formats.torch.exporter_forms import exporter_forms

WAVES = torch.polar(torch.ones(6, 4), torch.linspace(0, 3, 24).reshape(6, 4))
WINDOW = torch.hann_window(16)


def turned(x: Tensor) -> Tensor:
    """The rotary embedding of LLaMA's reference code."""
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(z * WAVES[None, : x.shape[1]]).flatten(-2)


def spectrum(x: Tensor, **options: Any) -> Any:
    return torch.stft(x.flatten(1), 16, window=WINDOW, return_complex=True, **options)


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "rotary": turned,
    "real and imaginary": lambda x: (torch.view_as_complex(x[..., :2]).real, spectrum(x).imag),
    "arithmetic": lambda x: torch.view_as_real(
        (spectrum(x) + 1j) * (2 - spectrum(x)) / (spectrum(x) * 2 + 3)
    ),
    "a real divided": lambda x: torch.view_as_real(1 / (spectrum(x) + (3 + 1j))),
    "subtracted from": lambda x: torch.view_as_real(1 - torch.complex(x, -x)),
    "size and angle": lambda x: (spectrum(x).abs(), torch.polar(x, x).angle(), abs(spectrum(x))),
    "conjugate": lambda x: torch.view_as_real(-spectrum(x).conj().transpose(1, 2).unsqueeze(0)),
    "exponential": lambda x: torch.view_as_real(torch.exp(torch.complex(x, x))),
    "matmul": lambda x: torch.view_as_real(torch.complex(x, x * 2) @ torch.complex(x, -x).mT),
    "parts": lambda x: [z.abs() for z in torch.polar(x, x).chunk(2, -1)],
    "joined": lambda x: torch.cat([torch.polar(x, x), torch.complex(x, x)], 1).abs(),
    "shape": lambda x: x.new_ones(spectrum(x).shape) * spectrum(x).size(-1) + spectrum(x).dim(),
    "stft": lambda x: torch.view_as_real(spectrum(x, hop_length=5, normalized=True)),
    "stft, not centred": lambda x: torch.view_as_real(spectrum(x, center=False)),
    "stft, both sides": lambda x: torch.view_as_real(spectrum(x, onesided=False, pad_mode="constant")),
    "stft, short window": lambda x: torch.stft(x.flatten(1)[0], 16, win_length=10, return_complex=True).abs(),
    "fft": lambda x: torch.view_as_real(torch.fft.fft(x, dim=1)),
    "fft there and back": lambda x: torch.fft.ifft(torch.fft.fft(x, norm="forward"), norm="ortho").real,
    "fftn": lambda x: torch.fft.fftn(torch.fft.fftn(x, dim=-1), dim=-2).real,
    "fft2": lambda x: torch.view_as_real(torch.fft.fft2(torch.complex(x, -x), norm="ortho")),
    "rfft": lambda x: torch.fft.rfft(x).abs(),
    "istft": lambda x: torch.istft(spectrum(x, hop_length=4) * 2, 16, hop_length=4, window=WINDOW),
    "istft of a length": lambda x: torch.istft(
        spectrum(x, hop_length=3), 16, hop_length=3, window=WINDOW, length=30
    ),
    "istft, normalized": lambda x: torch.istft(
        spectrum(x, hop_length=4, normalized=True), 16, hop_length=4, window=WINDOW, normalized=True
    ),
}


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pairs_compute_what_torch_does(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8)
    expected = FUNCTIONS[name](x)
    with exporter_forms(17, open_sizes=False):
        found = FUNCTIONS[name](x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["rotary", "arithmetic", "istft", "joined", "fftn", "rfft"])
def test_an_export_holds_real_numbers_alone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path, x = Called(FUNCTIONS[name]).eval(), str(tmp_path / "m.onnx"), torch.randn(2, 6, 8)
    with torch.no_grad(), exporter_forms(13, open_sizes=True):
        torch.onnx.export(
            model, (x,), path, dynamo=False, opset_version=13, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    session = onnxruntime.InferenceSession(path)
    for batch in (2, 3):
        x = torch.randn(batch, 6, 8)
        (given,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(given, model(x).numpy(), rtol=1e-3, atol=1e-4)


def test_what_no_pair_takes_is_refused() -> None:
    with exporter_forms(17, open_sizes=False), pytest.raises(NotImplementedError, match="cumprod"):
        torch.polar(torch.ones(3), torch.ones(3)).cumprod(0)


def test_a_pair_has_the_shape_and_the_dtype_of_what_it_stands_for() -> None:
    single, double = (Pair(part, part) for part in (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64)))
    assert (single.shape, single.dtype) == ((2, 3), torch.complex64)
    assert double.dtype == torch.complex128
