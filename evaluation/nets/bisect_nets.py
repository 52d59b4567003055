"""Nets for :mod:`evaluation.bisect`: small ones of each kind in plain PyTorch, each a factory of ``(model,
example_inputs)``, seeded.

The real models and the hazards that MNN has by itself are at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


def _settled(net: nn.Module, *example: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """*net* in eval, its BatchNorm statistics as they are on the example."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(*example)
    return net.eval(), example


def _block(before: int, after: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), act())


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = _block(3, 12), _block(12, 24), _block(24, 24, act=nn.SiLU)
        self.up = nn.ConvTranspose2d(24, 12, 2, 2)
        self.d, self.out = _block(24, 12, act=nn.ELU), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.c(self.b(nn.functional.max_pool2d(a, 2)))
        return torch.sigmoid(self.out(self.d(torch.cat([self.up(b), a], 1))))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = (
            self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class Layer(nn.Module):
    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.attend = nn.LayerNorm(width), nn.LayerNorm(width), Attention(width, 4)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), act, nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.one(x))
        return x + self.mlp(self.two(x))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.place = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(1, 16, 32) * 0.1)
        self.layers, self.head = nn.Sequential(*(Layer(32, nn.GELU()) for _ in range(2))), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2) + self.place).mean(1))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.Sequential(*(Layer(32, nn.Tanh()) for _ in range(2))), nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.head(self.layers(x)), -1)


class Cell(nn.Module):
    """An LSTM written out, six steps."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.head = nn.Linear(8, 64), nn.Linear(16, 64), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros_like(x[:, 0, :1]).expand(-1, 16)
        for t in range(6):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class Wave(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 3, padding=1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), torch.zeros(1)
        for gate, skip in zip(self.gates, self.skips, strict=True):
            a, b = gate(x).chunk(2, 1)
            y = skip(torch.tanh(a) * torch.sigmoid(b))
            x, total = x + y, total + y
        return self.head(torch.relu(total).mean(2))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_block(3 + 8 * i, 8) for i in range(5))
        self.head = nn.Linear(43, 6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(nn.functional.avg_pool2d(x, 4).amax((2, 3)))


class Gate(nn.Module):
    """Squeeze and excitation, with the activations of mobile nets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16, 2, nn.Hardswish)
        self.wide, self.deep = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.down, self.up, self.narrow = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1), nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = nn.functional.hardswish(self.deep(nn.functional.relu6(self.wide(x))))
        y = y * nn.functional.hardsigmoid(self.up(torch.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return torch.softmax(self.head((x + self.narrow(y)).mean((2, 3))), 1)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 8, 8)
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(24, 24)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2)
        x = x + nn.functional.softplus(self.tokens(x))
        x = self.norm(x.transpose(1, 2))
        x = x + nn.functional.leaky_relu(self.channels(x), 0.2)
        return torch.exp(-self.head(x.mean(1)).abs())


def _image(net: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return _settled(net(), torch.randn(2, 3, 32, 32))

    return make


def _of(net: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return _settled(net(), torch.randn(*shape))

    return make


def _cnn() -> nn.Module:
    return nn.Sequential(
        _block(3, 8),
        nn.MaxPool2d(2),
        _block(8, 16, act=nn.LeakyReLU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _resnet() -> nn.Module:
    return nn.Sequential(
        _block(3, 16, 2),
        *(Residual(16) for _ in range(4)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


NETS = {
    "cnn": _image(_cnn),
    "resnet": _image(_resnet),
    "unet": _image(Unet),
    "vit": _image(Vit),
    "text": _of(Text, 1, 12, 32),
    "lstm_cell": _of(Cell, 1, 6, 8),
    "wave": _of(Wave, 1, 1, 64),
    "dense": _image(Dense),
    "gate": _image(Gate),
    "mixer": _image(Mixer),
}
REAL = (
    "mtcnn-pnet.onnx",
    "mtcnn-rnet.onnx",
    "mtcnn-onet.onnx",
    "basic-pitch.onnx",
)  # of evaluation/nets/real_models.py


def export(name: str, path: Path) -> Path:
    """The net as an ONNX file."""
    model, example = NETS[name]()
    torch.onnx.export(
        model,
        tuple(e[:1] for e in example),
        str(path),
        opset_version=13,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
    )
    return path


def _hazard(
    *nodes: onnx.NodeProto, shape: tuple[int, ...] = (2, 16), opset: int = 13, **weights: np.ndarray
) -> Callable[[Path], Path]:
    """A net whose middle is *nodes*, from the value ``h`` to the value ``m``: products before, a Tanh and a
    sum behind.
    """

    def write(path: Path) -> Path:
        rng = np.random.default_rng(0)
        width = shape[-1]
        tensors = {
            "w0": rng.standard_normal((width, width)).astype(np.float32) / width**0.5,
            "scale": np.array(0.5, np.float32),
            **weights,
        }
        before = [
            helper.make_node("MatMul", ["x", "w0"], ["p"], name="before/product"),
            helper.make_node("Softsign", ["p"], ["q"], name="before/softsign"),
            helper.make_node("Add", ["q", "scale"], ["h"], name="before/add"),
        ]
        behind = [
            helper.make_node("Mul", ["m", "scale"], ["s"], name="behind/mul"),
            helper.make_node("Tanh", ["s"], ["y"], name="behind/tanh"),
        ]
        graph = helper.make_graph(
            [*before, *nodes, *behind],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, n) for n, a in tensors.items()],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
        )
        return path

    return write


_n = helper.make_node
_floats, _ints = (lambda *v: np.array(v, np.float32)), (lambda *v: np.array(v, np.int64))

# What MNN 3.6.1 computes wrongly by itself: the net, and the node to name (facts measured on onnx's node
# suite).
HAZARDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "less on negatives": (
        _hazard(
            _n("Abs", ["h"], ["a"], name="abs"),
            _n("Neg", ["a"], ["b"], name="neg"),
            _n("Less", ["b", "k"], ["c"], name="hazard"),
            _n("Cast", ["c"], ["m"], to=1, name="cast"),
            k=_floats(-0.5),
        ),
        "hazard",
    ),
    "mod on floats": (_hazard(_n("Mod", ["h", "k"], ["m"], fmod=1, name="hazard"), k=_floats(0.3)), "hazard"),
    "round half to even": (
        _hazard(
            _n("Sign", ["h"], ["a"], name="sign"),
            _n("Mul", ["a", "k"], ["b"], name="mul"),
            _n("Round", ["b"], ["m"], name="hazard"),
            k=_floats(2.5),
        ),
        "hazard",
    ),
    "reduce over axes as input": (
        _hazard(_n("ReduceL2", ["h", "k"], ["m"], keepdims=1, name="hazard"), opset=18, k=_ints(1)),
        "hazard",
    ),
    "negative indices": (
        _hazard(
            _n("GatherElements", ["h", "k"], ["m"], axis=1, name="hazard"), k=np.full((2, 16), -2, np.int64)
        ),
        "hazard",
    ),
    "argmax of the last": (
        _hazard(
            _n("Floor", ["h"], ["a"], name="floor"),
            _n("ArgMax", ["a"], ["b"], axis=1, select_last_index=1, name="hazard"),
            _n("Cast", ["b"], ["m"], to=1, name="cast"),
        ),
        "hazard",
    ),
    "softmax without axis": (
        _hazard(_n("Softmax", ["h"], ["m"], name="hazard"), shape=(2, 3, 4, 16), opset=11),
        "hazard",
    ),
    "logsoftmax without axis": (_hazard(_n("LogSoftmax", ["h"], ["m"], name="hazard")), "hazard"),
    "scatter with reduction": (
        _hazard(
            _n("ScatterElements", ["h", "k", "u"], ["m"], axis=1, reduction="add", name="hazard"),
            opset=16,
            k=np.zeros((2, 1), np.int64),
            u=np.ones((2, 1), np.float32),
        ),
        "hazard",
    ),
    "cast to bool": (
        _hazard(_n("Cast", ["h"], ["a"], to=9, name="hazard"), _n("Cast", ["a"], ["m"], to=1, name="cast")),
        "hazard",
    ),
    "cubic resize": (
        _hazard(
            _n(
                "Resize",
                ["h", "", "k"],
                ["m"],
                mode="cubic",
                coordinate_transformation_mode="half_pixel",
                name="hazard",
            ),
            shape=(1, 2, 8, 16),
            k=_floats(1, 1, 2, 2),
        ),
        "hazard",
    ),
    "pooling without strides": (
        _hazard(_n("MaxPool", ["h"], ["m"], kernel_shape=[2, 2], name="hazard"), shape=(1, 2, 8, 16)),
        "hazard",
    ),
    "an operator MNN lacks": (_hazard(_n("Hardmax", ["h"], ["m"], name="hazard")), "hazard"),
    "cast to uint8": (
        _hazard(
            _n("Abs", ["h"], ["a"], name="abs"),
            _n("Cast", ["a"], ["b"], to=2, name="hazard"),
            _n("Cast", ["b"], ["m"], to=1, name="cast"),
        ),
        "hazard",
    ),
}
