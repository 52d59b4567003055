"""PyTorch nets for the fault benchmark: small ones of many kinds, right as they are.

``clean`` is the factory, in the form that ``mnnprep prepare evaluation/nets/faults_nets.py:clean
--factory-arg model=cnn`` takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

torch.manual_seed(
    0
)  # the layers below are made when this is imported, and a fresh process has a seed of its own


class Shape(NamedTuple):
    """What is declared of a net: ``--input``, ``--dim`` and ``--range``, and the sizes of the example."""

    inputs: tuple[str, ...]
    dims: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    sizes: tuple[tuple[int, ...], ...] = ((2, 3, 16, 16),)


IMAGE = Shape(("x=float32[batch,3,16,16]",), ("batch=1:6",))
PLANE = Shape(
    ("x=float32[batch,3,height,width]",), ("batch=1:4", "height=16:40", "width=16:40"), (), ((2, 3, 24, 20),)
)
ROWS = Shape(("x=float32[batch,12]",), ("batch=1:8",), (), ((3, 12),))
STEPS = Shape(("x=float32[batch,length,8]",), ("batch=1:4", "length=4:24"), (), ((2, 7, 8),))
WAVE = Shape(("x=float32[batch,4,length]",), ("batch=1:4", "length=16:64"), (), ((2, 4, 32),))
IDS = Shape(("x=int64[batch,length]",), ("batch=1:4", "length=3:20"), ("x=0:29",), ((2, 6),))
PAIR = Shape(("x=float32[batch,12]", "y=float32[batch,12]"), ("batch=1:8",), (), ((3, 12), (3, 12)))
FIXED = Shape(("x=float32[1,3,16,16]",), (), (), ((1, 3, 16, 16),))


class Body(nn.Module):
    """Layers, and a function of them and the inputs."""

    def __init__(self, call: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.call(self, *inputs)


def _conv(before: int, after: int, size: int = 3, stride: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, **options)


def _line(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(copy.deepcopy(layer) for layer in layers))


def _head(width: int, classes: int = 5) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


class Separable(nn.Sequential):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__(
            _conv(before, before, 3, stride, groups=before),
            nn.BatchNorm2d(before),
            nn.ReLU6(),
            nn.Conv2d(before, after, 1),
        )


class Excite(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    def __init__(self, width: int = 8, heads: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / (width / self.heads) ** 0.5
        if self.causal:
            place = torch.arange(length)
            scores = scores.masked_fill(place[None, :] > place[:, None], -1e4)
        return self.out((torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, length, width))


def _recurrent(kind: type[nn.Module], **options: Any) -> Callable[[], nn.Module]:
    wide = 12 if options.get("bidirectional") else 6
    return lambda: Body(
        lambda m, x: m.head(m.rnn(x)[0]), rnn=kind(8, 6, batch_first=True, **options), head=nn.Linear(wide, 4)
    )


def _residual() -> nn.Module:
    layers = {
        "a": _conv(3, 6),
        "n": nn.BatchNorm2d(6),
        "b": _conv(6, 6),
        "m": nn.BatchNorm2d(6),
        "c": _conv(6, 6),
        "s": nn.Conv2d(3, 6, 1),
    }
    return Body(
        lambda m, x: torch.relu(m.c(torch.relu(m.m(m.b(torch.relu(m.n(m.a(x))))))) + m.s(x)), **layers
    )


def _unet() -> nn.Module:
    layers = {
        "d1": _conv(3, 4),
        "d2": _conv(4, 8, 3, 2),
        "u": nn.ConvTranspose2d(8, 4, 2, 2),
        "j": _conv(8, 4),
        "o": nn.Conv2d(4, 2, 1),
    }

    def call(m: Any, x: Tensor) -> Tensor:
        a = torch.relu(m.d1(x))
        return m.o(torch.relu(m.j(torch.cat([m.u(torch.relu(m.d2(a))), a], 1))))

    return Body(call, **layers)


def _heads() -> nn.Module:
    def call(m: Any, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(m.a(x))
        return {"map": features, "logits": m.b(features.mean((2, 3))), "other": m.c(features.mean((2, 3)))}

    return Body(call, a=_conv(3, 6), b=nn.Linear(6, 4), c=nn.Linear(6, 4))


def _square() -> nn.Module:
    """Two outputs of one shape whose last two axes are alike, so that nothing but the numbers tells a swap or
    a transposition.
    """
    return Body(
        lambda m, x: (m.b(torch.tanh(m.a(x))), m.c(torch.tanh(m.a(x)))),
        a=_conv(3, 4),
        b=_conv(4, 2),
        c=_conv(4, 2),
    )


def _embedding() -> nn.Module:
    return Body(
        lambda m, x: m.head(torch.tanh(m.table(x)).mean(1)), table=nn.Embedding(30, 12), head=nn.Linear(12, 5)
    )


def _positions() -> nn.Module:
    layers = {
        "table": nn.Embedding(30, 8),
        "place": nn.Embedding(32, 8),
        "attend": Attention(causal=True),
        "norm": nn.LayerNorm(8),
    }
    return Body(lambda m, x: m.norm(m.attend(m.table(x) + m.place(torch.arange(x.shape[1])))), **layers)


def _fusion() -> nn.Module:
    return Body(
        lambda m, x, y: m.c(torch.cat([m.a(x) * torch.sigmoid(m.b(y)), x - y], -1)),
        a=nn.Linear(12, 6),
        b=nn.Linear(12, 6),
        c=nn.Linear(18, 4),
    )


def _pooled(*pools: nn.Module) -> Callable[[], nn.Module]:
    return _line(_conv(3, 6), nn.ReLU(), *pools, nn.Conv2d(6, 4, 1))


def _act(act: nn.Module) -> Callable[[], nn.Module]:
    return _line(_conv(3, 6), act, nn.Conv2d(6, 4, 1))


def _function(call: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Body(lambda m, x: call(m.a(x)), a=_conv(3, 6))


def _over_steps(call: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Body(lambda m, x: call(m.a(x)), a=nn.Linear(8, 6))


CNN = (
    _conv(3, 8),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    _conv(8, 8),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    _conv(8, 8),
    nn.ReLU(),
    *_head(8),
)

NETS: dict[str, tuple[Shape, Callable[[], nn.Module]]] = {
    "cnn": (IMAGE, _line(*CNN)),
    "residual": (PLANE, _residual),
    "mobile": (
        IMAGE,
        _line(
            _conv(3, 8, 3, 2), nn.Hardswish(), Separable(8, 12, 1), Excite(12), Separable(12, 8, 2), *_head(8)
        ),
    ),
    "unet": (IMAGE, _unet),
    "mlp": (
        ROWS,
        _line(
            nn.Linear(12, 16),
            nn.LayerNorm(16),
            nn.GELU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.Linear(16, 5),
        ),
    ),
    "lstm": (STEPS, _recurrent(nn.LSTM)),
    "lstm2": (STEPS, _recurrent(nn.LSTM, num_layers=2)),
    "bilstm": (STEPS, _recurrent(nn.LSTM, bidirectional=True)),
    "gru": (STEPS, _recurrent(nn.GRU)),
    "bigru": (STEPS, _recurrent(nn.GRU, bidirectional=True)),
    "rnn": (STEPS, _recurrent(nn.RNN)),
    "attention": (STEPS, lambda: nn.Sequential(Attention(), nn.LayerNorm(8), Attention())),
    "causal": (STEPS, lambda: Attention(causal=True)),
    "encoder": (STEPS, lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)),
    "encoder_first": (
        STEPS,
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.1, F.gelu, batch_first=True, norm_first=True),
    ),
    "embedding": (IDS, _embedding),
    "positions": (IDS, _positions),
    "fusion": (PAIR, _fusion),
    "heads": (IMAGE, _heads),
    "square": (IMAGE, _square),
    "tcn": (
        WAVE,
        _line(
            nn.Conv1d(4, 8, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv1d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(8, 3, 1),
        ),
    ),
    "wave_pool": (
        WAVE,
        _line(
            nn.Conv1d(4, 8, 3, 2, 1),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
    ),
    "grouped": (
        PLANE,
        _line(_conv(3, 8), nn.ReLU(), _conv(8, 8, groups=4), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, 2, 2)),
    ),
    "oblong": (
        PLANE,
        _line(nn.Conv2d(3, 6, (1, 5), (1, 2), (0, 2)), nn.ReLU(), nn.Conv2d(6, 4, (5, 1), (2, 1), (2, 0))),
    ),
    "group_norm": (IMAGE, _line(_conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), _conv(8, 4))),
    "instance_norm": (IMAGE, _line(_conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), _conv(8, 4))),
    "average_pool": (PLANE, _pooled(nn.AvgPool2d(3, 2, 1))),
    "average_pool_inside": (PLANE, _pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False))),
    "max_pool_ceil": (PLANE, _pooled(nn.MaxPool2d(3, 2, 0, ceil_mode=True))),
    "max_pool_padded": (PLANE, _pooled(nn.MaxPool2d(3, 2, 1))),
    "global_max": (
        PLANE,
        lambda: Body(lambda m, x: m.b(m.a(x).amax((2, 3))), a=_conv(3, 6), b=nn.Linear(6, 4)),
    ),
    "nearest": (PLANE, _pooled(nn.Upsample(scale_factor=2, mode="nearest"))),
    "bilinear": (PLANE, _pooled(nn.Upsample(scale_factor=2, mode="bilinear"))),
    "bilinear_corners": (PLANE, _pooled(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))),
    "shuffle": (PLANE, _line(_conv(3, 12), nn.PixelShuffle(2), nn.ReLU(), _conv(3, 4))),
    "unshuffle": (IMAGE, _line(_conv(3, 4), nn.PixelUnshuffle(2), nn.ReLU(), nn.Conv2d(16, 4, 1))),
    "transposed": (PLANE, _line(_conv(3, 6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.Tanh())),
    "transposed_odd": (PLANE, _line(_conv(3, 6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3, 2, 1, 1))),
    "reflect": (PLANE, _line(nn.ReflectionPad2d(2), nn.Conv2d(3, 6, 5), nn.ReLU(), _conv(6, 4))),
    "zero_pad": (PLANE, _line(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 6, 3), nn.ReLU(), _conv(6, 4))),
    "spectral": (
        IMAGE,
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(_conv(3, 6)), nn.ReLU(), _conv(6, 4)),
    ),
    "weight_norm": (
        IMAGE,
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(_conv(3, 6)), nn.ReLU(), _conv(6, 4)),
    ),
    "glu": (IMAGE, _line(_conv(3, 8), nn.GLU(1), _conv(4, 4))),
    **{
        f"act_{type(a).__name__.lower()}": (IMAGE, _act(a))
        for a in (
            nn.ELU(),
            nn.SELU(),
            nn.SiLU(),
            nn.Mish(),
            nn.Softplus(),
            nn.PReLU(6),
            nn.LeakyReLU(0.1),
            nn.Hardsigmoid(),
            nn.Softsign(),
            nn.CELU(),
        )
    },
    "softmax_channel": (IMAGE, _function(lambda y: torch.softmax(y, 1))),
    "log_softmax": (IMAGE, _function(lambda y: torch.log_softmax(y, 1))),
    "norm_l2": (IMAGE, _function(lambda y: F.normalize(y, dim=1))),
    "variance": (IMAGE, _function(lambda y: (y.mean((2, 3)), y.var((2, 3))))),
    "chunks": (IMAGE, _function(lambda y: [part.relu() for part in y.chunk(2, 1)])),
    "permuted": (IMAGE, _function(lambda y: y.permute(0, 2, 3, 1).flatten(1, 2).relu())),
    "strided_slice": (PLANE, _function(lambda y: y[:, 1::2, 1:-1, ::2].relu())),
    "stacked": (IMAGE, _function(lambda y: torch.stack([y.sin(), y.cos()], 1))),
    "where": (IMAGE, _function(lambda y: torch.where(y > 0.1, y * 2, y - 1))),
    "clamped": (IMAGE, _function(lambda y: y.clamp(-0.5, 0.25) + y.abs().sqrt())),
    "argmax": (IMAGE, _function(lambda y: (y.argmax(1), y.amax(1)))),
    "top_k": (ROWS, lambda: Body(lambda m, x: tuple(m.a(x).topk(3, 1)), a=nn.Linear(12, 9))),
    "cumulative": (STEPS, _over_steps(lambda y: y.cumsum(1))),
    "einsum": (STEPS, _over_steps(lambda y: torch.einsum("btc,bsc->bts", y, y))),
    "last_step": (STEPS, _over_steps(lambda y: y[:, -1].relu())),
    "mean_steps": (STEPS, _over_steps(lambda y: y.mean(1))),
    "flipped": (STEPS, _over_steps(lambda y: y.flip(1) + y)),
    "fixed": (FIXED, _line(*CNN)),
}


class One(nn.Module):
    """A net of the input ``x``; ``also`` is what runs in its place while it is exported."""

    def __init__(self, net: nn.Module, also: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.also = net, also

    def forward(self, x: Tensor) -> Any:
        return (self.also if self.also is not None and exporting() else self.net)(x)


class Two(One):
    """The same of the inputs ``x`` and ``y``."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return (self.also if self.also is not None and exporting() else self.net)(x, y)


def exporting() -> bool:
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()


def example(shape: Shape, seed: int = 1) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    whole = [i.partition("=")[2].startswith("int") for i in shape.inputs]
    return tuple(
        torch.randint(0, 29, s, generator=random) if w else torch.randn(s, generator=random)
        for s, w in zip(shape.sizes, whole, strict=True)
    )


def build(model: str) -> tuple[Shape, nn.Module]:
    """The net *model* with seeded weights that let its output follow its input, in eval."""
    shape, make = NETS[model]
    torch.manual_seed(sum(map(ord, model)))
    net = make()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return shape, net.eval()


def clean(model: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    shape, net = build(model)
    return (One if len(shape.inputs) == 1 else Two)(net), example(shape)
