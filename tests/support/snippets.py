"""Nets as people write them in torch, each with something that MNN refuses, crashes on or gets wrong.

Each row is ``name: (module, example inputs)``; the modules are small, with the seed of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Net = tuple[nn.Module, tuple[Tensor, ...]]


class Of(nn.Module):
    """A net of one function and the layers that it is given by name."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class One(Of):
    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Two(Of):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(self, x, y)


class Three(Of):
    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        return self.function(self, x, y, z)


def r(*shape: int) -> Tensor:
    return torch.randn(*shape)


def tokens(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape)


class LSTMClassifier(nn.Module):
    """The last hidden state of an LSTM over embedded tokens, batch first."""

    def __init__(self, layers: int = 1, both: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.rnn = nn.LSTM(8, 6, num_layers=layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(12 if both else 6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out, (hidden, _) = self.rnn(self.table(ids))
        state = torch.cat([hidden[-2], hidden[-1]], 1) if self.rnn.bidirectional else hidden[-1]
        return self.head(state) + out.mean(1)[:, :3]  # type: ignore[no-any-return]


class Steps(nn.Module):
    """A recurrent cell called in a loop over the steps."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 6)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state


class RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Rotary(nn.Module):
    """Causal attention with rotary position embedding, RMS norm before and SwiGLU after."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = (
            RMSNorm(16),
            nn.Linear(16, 48, bias=False),
            nn.Linear(16, 16, bias=False),
        )
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        angles = torch.outer(torch.arange(32.0), 1 / 10000 ** (torch.arange(0, 8, 2) / 8))
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin(), persistent=False)

    def turn(self, x: Tensor, positions: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * self.cos[positions] + torch.cat([-right, left], -1) * self.sin[positions]  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        positions = torch.arange(t)
        mixed = F.scaled_dot_product_attention(
            self.turn(q, positions), self.turn(k, positions), v, is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, 16))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """One encoder layer whose padding mask adds the lowest float, as transformers do, or -inf."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(40, 16), nn.Embedding(6, 16)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.norm, self.low = nn.LayerNorm(16), low

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.table(ids) + self.places(torch.arange(ids.shape[1])))
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, 2, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        added = (
            (1.0 - mask[:, None, None].to(x.dtype)) * self.low
            if math.isfinite(self.low)
            else torch.zeros(n, 1, 1, t).masked_fill(mask[:, None, None] == 0, self.low)
        )
        return (torch.softmax(q @ k.transpose(-1, -2) / 8**0.5 + added, -1) @ v).transpose(1, 2).flatten(2)  # type: ignore[no-any-return]


class Yolo(nn.Module):
    """A detection head: grid by meshgrid, boxes by sigmoid, int64 arithmetic on the indices."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 7, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.head(x).sigmoid()
        h, w = y.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([columns, rows], 0)[None].float()
        boxes = torch.cat([(y[:, :2] * 2 - 0.5 + grid) * 8, (y[:, 2:4] * 2) ** 2 * 16], 1).flatten(2)
        scores, best = y[:, 4:].flatten(2).max(1)
        top, places = scores.topk(3, dim=1)
        chosen = boxes.gather(2, places[:, None].expand(-1, 4, -1))
        cells = torch.stack([places % w, torch.div(places, w, rounding_mode="floor")], -1)
        return torch.cat([chosen, top[:, None]], 1), cells + best.gather(1, places)[..., None]


class Hashed(nn.Module):
    """Token ids of 2^31 and more hashed into buckets, as recommenders do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(17, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table((ids + (1 << 31) + 5) % 17)  # type: ignore[no-any-return]


class Dft(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        return torch.stack([spectrum.real, spectrum.imag], -1)


PLACES = torch.tensor([[0, 1, 1, 2, 3], [3, 3, 0, 1, 2]])


def causal(size: int) -> Tensor:
    return torch.triu(torch.full((size, size), -torch.inf), 1)


SNIPPETS: dict[str, Callable[[], Net]] = {
    "LSTM classifier": lambda: (LSTMClassifier(), (tokens(50, 2, 5),)),
    "two LSTM layers, both directions": lambda: (LSTMClassifier(2, True), (tokens(50, 2, 5),)),
    "LSTM, last step only": lambda: (
        One(lambda m, x: m.rnn(x)[0][:, -1], rnn=nn.LSTM(4, 6, batch_first=True)),
        (r(2, 5, 4),),
    ),
    "LSTM with states": lambda: (
        Three(lambda m, x, y, z: m.rnn(x, (y, z))[1], rnn=nn.LSTM(4, 6)),
        (r(5, 2, 4), r(1, 2, 6), r(1, 2, 6)),
    ),
    "GRU encoder": lambda: (
        One(lambda m, x: m.rnn(x)[1][-1], rnn=nn.GRU(4, 6, batch_first=True)),
        (r(2, 5, 4),),
    ),
    "GRU, both directions": lambda: (
        One(lambda m, x: m.rnn(x), rnn=nn.GRU(4, 6, bidirectional=True)),
        (r(5, 2, 4),),
    ),
    "Elman net, ReLU": lambda: (
        One(lambda m, x: m.rnn(x)[1], rnn=nn.RNN(4, 6, nonlinearity="relu")),
        (r(5, 2, 4),),
    ),
    "Elman net, both directions": lambda: (
        One(lambda m, x: m.rnn(x)[0], rnn=nn.RNN(4, 6, bidirectional=True)),
        (r(5, 2, 4),),
    ),
    "GRU cell in a loop": lambda: (Steps(nn.GRUCell(4, 6)), (r(2, 5, 4),)),
    "Conv1d audio net": lambda: (
        nn.Sequential(nn.Conv1d(1, 8, 5, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3, padding=1)),
        (r(2, 1, 40),),
    ),
    "transposed Conv1d": lambda: (nn.Sequential(nn.ConvTranspose1d(3, 4, 4, 2, 1)), (r(2, 3, 10),)),
    "dilated max pooling": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 1, dilation=2)),
        (r(1, 3, 14, 14),),
    ),
    "Mish net": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Mish(), nn.AdaptiveAvgPool2d(1)),
        (r(1, 3, 8, 8),),
    ),
    "Swish and HardSwish net": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.Hardswish()),
        (r(2, 6),),
    ),
    "CELU, GLU and softshrink": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.CELU(0.7), nn.GLU(), nn.Softshrink(0.2)),
        (r(2, 6),),
    ),
    "group norm": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)), (r(2, 3, 8, 8),)),
    "RMS norm": lambda: (nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8)), (r(2, 6),)),
    "instance norm in 1-D": lambda: (nn.Sequential(nn.InstanceNorm1d(3, affine=True)), (r(2, 3, 9),)),
    "local response norm": lambda: (
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(3)),
        (r(1, 3, 8, 8),),
    ),
    "rotary attention": lambda: (Rotary(), (r(1, 6, 16),)),
    "attention with a bool mask": lambda: (
        Two(lambda m, x, y: F.scaled_dot_product_attention(x, x, x, attn_mask=y > 0)),
        (r(1, 2, 5, 8), torch.ones(1, 1, 5, 5)),
    ),
    "attention with a causal mask of -inf": lambda: (
        One(
            lambda m, x: m.a(x, x, x, attn_mask=causal(5), need_weights=False)[0],
            a=nn.MultiheadAttention(8, 2, batch_first=True),
        ),
        (r(2, 5, 8),),
    ),
    "multi-head attention with weights": lambda: (
        One(lambda m, x: m.a(x, x, x), a=nn.MultiheadAttention(8, 2)),
        (r(5, 2, 8),),
    ),
    "transformer encoder layer": lambda: (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"),
        (r(2, 5, 8),),
    ),
    "BERT mask of finfo.min": lambda: (
        Bert(torch.finfo(torch.float32).min),
        (tokens(40, 2, 6), torch.ones(2, 6, dtype=torch.int64)),
    ),
    "BERT mask of -inf": lambda: (Bert(-math.inf), (tokens(40, 2, 6), torch.ones(2, 6, dtype=torch.int64))),
    "YOLO head": lambda: (Yolo(), (r(1, 4, 5, 6),)),
    "token ids above 2^30": lambda: (Hashed(), (tokens(1000, 2, 5),)),
    "fold": lambda: (nn.Fold((6, 6), 3, stride=1), (r(1, 18, 16),)),
    "pixel shuffle and back": lambda: (
        nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(2, 3, 3), nn.PixelUnshuffle(2)),
        (r(1, 8, 5, 5),),
    ),
    "bicubic resize": lambda: (
        One(lambda m, x: F.interpolate(x, scale_factor=2.0, mode="bicubic")),
        (r(1, 2, 5, 6),),
    ),
    "antialiased bilinear": lambda: (
        One(lambda m, x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True)),
        (r(1, 2, 8, 9),),
    ),
    "grid_sample warp": lambda: (
        Two(lambda m, x, y: F.grid_sample(x, y, padding_mode="reflection", align_corners=False)),
        (r(1, 2, 6, 6), torch.rand(1, 4, 5, 2) * 2 - 1),
    ),
    "grid_sample, bicubic": lambda: (
        Two(lambda m, x, y: F.grid_sample(x, y, mode="bicubic", align_corners=True)),
        (r(1, 2, 6, 6), torch.rand(1, 4, 5, 2) * 2 - 1),
    ),
    "affine grid": lambda: (
        Two(lambda m, x, y: F.grid_sample(x, F.affine_grid(y, [1, 2, 6, 6], False), align_corners=False)),
        (r(1, 2, 6, 6), r(1, 2, 3) * 0.3),
    ),
    "adaptive pooling": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d((3, 1))),
        (r(1, 3, 11, 11),),
    ),
    "3-D pooling of a batch": lambda: (
        nn.Sequential(nn.Conv3d(1, 2, 3), nn.MaxPool3d(2)),
        (r(2, 1, 8, 8, 8),),
    ),
    "dilated Conv3d": lambda: (nn.Sequential(nn.Conv3d(1, 2, 3, dilation=2)), (r(1, 1, 7, 8, 9),)),
    "scatter_add": lambda: (
        One(
            lambda m, x: torch.zeros(2, 4).scatter_add(1, torch.tensor([[0, 1, 1, 2, 3], [3, 3, 0, 1, 2]]), x)
        ),
        (r(2, 5),),
    ),
    "index_put, accumulated": lambda: (
        One(lambda m, x: torch.zeros(4, 3).index_put((torch.tensor([0, 2, 2]),), x, accumulate=True)),
        (r(3, 3),),
    ),
    "index_add": lambda: (
        One(lambda m, x: torch.zeros(4, 3).index_add(0, torch.tensor([0, 2, 2]), x)),
        (r(3, 3),),
    ),
    "cumsum": lambda: (One(lambda m, x: x.cumsum(-1)), (r(2, 6),)),
    "norms and log-sum-exp": lambda: (
        One(lambda m, x: (x.norm(dim=-1), x.norm(1, dim=1), x.logsumexp(1))),
        (r(2, 5, 4),),
    ),
    "where with a bool of floats": lambda: (
        One(lambda m, x: torch.where(x.clamp(0).bool(), x, -x * 0.1)),
        (r(2, 6),),
    ),
    "comparisons of negatives": lambda: (
        Two(lambda m, x, y: torch.where((-x.abs() - 1) < (-y.abs() - 1), x, y)),
        (r(2, 6), r(2, 6)),
    ),
    "rfft": lambda: (Dft(), (r(2, 16),)),
    "STFT of audio": lambda: (
        One(
            lambda m, x: torch.view_as_real(
                torch.stft(x, 16, 8, window=torch.hann_window(16), return_complex=True)
            )
        ),
        (r(1, 64),),
    ),
    "rounding and fmod": lambda: (
        One(lambda m, x: (torch.round(x * 2), torch.fmod(x * 3, 1.5), torch.remainder(x * 3, 1.5))),
        (r(2, 8),),
    ),
    "bitwise masks": lambda: (One(lambda m, x: (x & 6) | (x ^ 3)), (tokens(100, 2, 5),)),
    "isnan guard": lambda: (
        One(lambda m, x: torch.where(torch.isnan(x / x), torch.zeros_like(x), x)),
        (r(2, 5).relu(),),
    ),
    "one-hot of labels": lambda: (
        One(lambda m, x: F.one_hot(x, 5).float() @ m.l.weight, l=nn.Linear(3, 5)),
        (tokens(5, 2, 4),),
    ),
    "double in the middle": lambda: (One(lambda m, x: (x.double().softmax(-1) * 3).float()), (r(2, 6),)),
    "half precision net": lambda: (
        One(lambda m, x: m.l(x.half()).float(), l=nn.Linear(4, 3).half()),
        (r(2, 4),),
    ),
    "deformable offsets": lambda: (
        One(
            lambda m, x: F.grid_sample(
                x, m.o(x)[:, :2].permute(0, 2, 3, 1).tanh(), padding_mode="border", align_corners=True
            ),
            o=nn.Conv2d(2, 2, 3, padding=1),
        ),
        (r(1, 2, 6, 6),),
    ),
    "PReLU of one slope": lambda: (nn.Sequential(nn.Linear(4, 6), nn.PReLU()), (r(2, 4),)),
    "fake-quantized linear layer": lambda: (
        One(
            lambda m, x: F.linear(
                torch.fake_quantize_per_tensor_affine(x, 0.05, 3, -128, 127),
                torch.fake_quantize_per_channel_affine(
                    m.l.weight, torch.full((6,), 0.01), torch.zeros(6, dtype=torch.int32), 0, -128, 127
                ),
                m.l.bias,
            ),
            l=nn.Linear(4, 6),
        ),
        (r(2, 4),),
    ),
    "splits of uneven size": lambda: (
        One(lambda m, x: torch.cat([p.softmax(-1) for p in x.tensor_split(3, -1)][::-1], -1)),
        (r(2, 8),),
    ),
    "reflected and circular padding": lambda: (
        nn.Sequential(
            nn.ReflectionPad2d(2),
            nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
            nn.ReplicationPad2d(1),
        ),
        (r(1, 2, 6, 6),),
    ),
    "argmax of the last": lambda: (One(lambda m, x: (x.flip(-1).argmax(-1), x.argmin(0))), (r(3, 6),)),
    "cosine similarity and pairwise distance": lambda: (
        Two(lambda m, x, y: (F.cosine_similarity(x, y), torch.cdist(x[None], y[None]))),
        (r(3, 5), r(3, 5)),
    ),
    "max unpooling": lambda: (
        One(lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        (r(1, 2, 6, 6),),
    ),
    "Conv1d and ReLU": lambda: (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), (r(2, 2, 9),)),
    "depthwise Conv1d": lambda: (nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.LeakyReLU()), (r(2, 4, 9),)),
    "L1 norm": lambda: (One(lambda m, x: x.norm(1, dim=1)), (r(2, 5, 4),)),
    "Mish, exported": lambda: (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Mish()), (r(1, 3, 8, 8),)),
    "3-D average pooling": lambda: (nn.Sequential(nn.Conv3d(1, 2, 3), nn.AvgPool3d(2)), (r(2, 1, 8, 8, 8),)),
    "global 3-D pooling": lambda: (nn.AdaptiveAvgPool3d(1), (r(2, 2, 4, 4, 4),)),
    "dilated 1-D max pooling": lambda: (
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(3, 1, dilation=2)),
        (r(2, 2, 20),),
    ),
    "isinf guard": lambda: (
        One(lambda m, x: torch.where(torch.isinf(1 / x), torch.zeros_like(x), x)),
        (r(2, 5).relu(),),
    ),
    "nan_to_num": lambda: (One(lambda m, x: torch.nan_to_num(x / x, 0.5)), (r(2, 5).relu(),)),
    "scatter_reduce, amax": lambda: (
        One(lambda m, x: torch.zeros(2, 4).scatter_reduce(1, PLACES, x, "amax")),
        (r(2, 5),),
    ),
    "scatter_reduce, prod": lambda: (
        One(lambda m, x: torch.ones(2, 4).scatter_reduce(1, PLACES, x, "prod")),
        (r(2, 5),),
    ),
    "shifted integers": lambda: (One(lambda m, x: (x << 2) + (x >> 1)), (tokens(100, 2, 5),)),
    "inverted bits": lambda: (One(lambda m, x: ~x & 15), (tokens(100, 2, 5),)),
    "GELU between layers": lambda: (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)), (r(2, 6),)),
    "filter in the frequency domain": lambda: (
        One(lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * 0.5)),
        (r(2, 16),),
    ),
    "einsum of a diagonal": lambda: (One(lambda m, x: torch.einsum("bii->bi", x)), (r(2, 4, 4),)),
    "bilinear form by einsum": lambda: (
        Two(lambda m, x, y: torch.einsum("bi,ij,bj->b", x, m.w.weight, y), w=nn.Linear(5, 4)),
        (r(3, 4), r(3, 5)),
    ),
    "transposed Conv3d": lambda: (
        nn.Sequential(nn.ConvTranspose3d(2, 3, 3, 2, 1, output_padding=1)),
        (r(1, 2, 4, 5, 6),),
    ),
    "bucketize": lambda: (One(lambda m, x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]))), (r(2, 6),)),
}
