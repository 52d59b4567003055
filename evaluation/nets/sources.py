"""Small PyTorch nets, each with one thing that a real one may have; each factory gives ``(model,
example_inputs)``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

torch.manual_seed(0)
IMAGE = (torch.rand(1, 1, 8, 8),)
SEQUENCE = (torch.rand(2, 6, 8),)
TOKENS = (torch.tensor([[1, 5, 2, 9], [3, 0, 7, 4]]),)


class Pair(NamedTuple):
    mean: Tensor
    scale: Tensor


@dataclasses.dataclass
class Boxes:
    boxes: Tensor
    scores: Tensor | None = None
    extra: tuple[Tensor, ...] = ()


class Apply(nn.Module):
    """A layer, and a function of its output."""

    def __init__(self, layer: nn.Module, after: Any) -> None:
        super().__init__()
        self.layer = layer
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.layer(x))


def conv(width: int = 4) -> nn.Module:
    return nn.Conv2d(1, width, 3)


def sized(width: int, act: str = "relu", *, bias: bool = True) -> Any:
    """The factory with arguments: ``act`` is a text, ``width`` a number, ``bias`` a truth value."""
    assert isinstance(bias, bool)
    return nn.Sequential(nn.Conv2d(1, width, 3, bias=bias), {"relu": nn.ReLU, "tanh": nn.Tanh}[act]()), IMAGE


def gives_dict() -> Any:
    return Apply(conv(), lambda y: {"logits": y, "probability": torch.softmax(y, 1)}), IMAGE


class Heads(nn.Module):
    """Gives a dictionary, also when it is scripted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.conv(image)
        return {"map": features, "logits": features.mean((2, 3))}


def gives_tuple() -> Any:
    return Apply(conv(), lambda y: (y, y.mean((2, 3)))), IMAGE


def gives_named_tuple() -> Any:
    return Apply(conv(), lambda y: Pair(y, torch.exp(y))), IMAGE


def gives_nested() -> Any:
    return Apply(conv(), lambda y: {"a": [y, (y + 1, None)], "b": y.mean()}), IMAGE


def gives_dataclass() -> Any:
    return Apply(conv(), lambda y: Boxes(y, extra=(y * 2,))), IMAGE


def gives_its_input_too() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x, "features": self.conv(x)}

    return Net(), IMAGE


def keywords_only() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, *, image: Tensor, gain: Tensor, unused: Tensor | None = None) -> Tensor:
            return self.conv(image) * gain

    return Net(), {"gain": torch.rand(1), "image": IMAGE[0]}


class Branch(nn.Module):
    """Two ways to compute, chosen by the values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if bool(x.sum() > 0):
            return y * 2
        return y - 1


def branch() -> Any:
    return Branch(), (torch.randn(1, 1, 8, 8),)


class UnscriptableBranch(Branch):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        factor = {True: lambda t: t * 2, False: lambda t: t - 1}[bool(x.sum() > 0)]
        return factor(y)


def unscriptable_branch() -> Any:
    return UnscriptableBranch(), (torch.randn(1, 1, 8, 8),)


def frozen_value() -> Any:
    """A value taken out of the tensors, which a trace keeps."""
    return Apply(conv(), lambda y: y * float(y.mean())), (torch.randn(1, 1, 8, 8),)


def functional_dropout() -> Any:
    return Apply(conv(), lambda y: F.dropout(y, 0.5, training=True)), IMAGE


def no_statistics() -> Any:
    return nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False)), (torch.rand(4, 1, 8, 8),)


class Stubborn(nn.Sequential):
    """Stays in training mode whatever it is told."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)

    def eval(self) -> Stubborn:
        return self


def stubborn() -> Any:
    return Stubborn(conv(), nn.BatchNorm2d(4), nn.Dropout(0.5)).train(), (torch.rand(4, 1, 8, 8),)


def noisy() -> Any:
    return Apply(conv(), lambda y: y + torch.randn_like(y)), IMAGE


def constant() -> Any:
    return Apply(conv(), lambda y: y * 0 + 3), IMAGE


def weight_norm() -> Any:
    from torch.nn.utils import parametrizations

    old = nn.Conv2d(4, 4, 3)
    with torch.no_grad():
        old = torch.nn.utils.weight_norm(old)
    return nn.Sequential(
        parametrizations.weight_norm(conv()),
        nn.ReLU(),
        old,
        parametrizations.spectral_norm(nn.Conv2d(4, 2, 1)),
    ), IMAGE


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def attention() -> Any:
    return SelfAttention(), SEQUENCE


def encoder_layer() -> Any:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), {"src": SEQUENCE[0]}


class Sdpa(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def sdpa() -> Any:
    return Sdpa(), SEQUENCE


def lstm() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    return Net(), SEQUENCE


def gru() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(8, 5, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.rnn(x)

    return Net(), SEQUENCE


def conv1d() -> Any:
    return nn.Sequential(nn.Conv1d(8, 4, 3, padding=1), nn.BatchNorm1d(4), nn.GELU()), (torch.rand(2, 8, 16),)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.unused = nn.Linear(3, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(ids)))


def tokens() -> Any:
    """Integer inputs, and a parameter that reaches no output."""
    return Tokens(), TOKENS


def tied() -> Any:
    net = Tokens()
    net.head.weight = net.embedding.weight
    return net, TOKENS


def double() -> Any:
    return nn.Sequential(conv(), nn.ReLU()).double(), (torch.rand(1, 1, 8, 8, dtype=torch.float64),)


def half() -> Any:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).half(), (torch.rand(2, 8).half(),)


def forgets() -> Any:
    """A net that keeps state, so that the same input gives something else the second time."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.conv(x) * self.count

    return Net(), IMAGE


class Gate(nn.Module):
    """A branch that no ordinary input takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if bool(x.sum() > 1e6):
            return y - 1
        return y * 2


class Sign(Gate):
    """Another formula where all is negative, which no random input is."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if bool((x < 0).all()):
            return y * 3
        return y


def rarely_negative() -> Any:
    return Sign(), IMAGE


def one_sided() -> Any:
    return Gate(), IMAGE


def double_linear() -> Any:
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh()).double(), (torch.rand(2, 8, dtype=torch.float64),)


class KeepsItsFirstCall(nn.Module):
    """What it subtracts is the mean of the first input it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.center: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.center is None:
            self.center = x.mean().detach()
        return self.conv(x - self.center)


def keeps_its_first_call() -> Any:
    return KeepsItsFirstCall(), IMAGE


def fewer_outputs_when_exported() -> Any:
    return Apply(
        conv(), lambda y: (y, y * 2, y.mean((2, 3)))[: 2 if torch.onnx.is_in_onnx_export() else 3]
    ), IMAGE
