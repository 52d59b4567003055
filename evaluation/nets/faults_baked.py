"""PyTorch nets that are right at every size, and whose export freezes one: right at the export's own shape,
and nowhere else.

``baked`` is the factory; ``BAKED`` says of each what is declared, and which dimension gets frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.nets.faults_nets import IDS, IMAGE, PLANE, ROWS, STEPS, WAVE, Body, One, Shape, example


def _n(x: Tensor, axis: int) -> int:
    """A size as a Python number, as ``int(x.shape[axis])`` in a model."""
    return int(x.shape[axis])


def _table(m: Any, y: Tensor) -> Tensor:
    return y + m.place.weight[: _n(y, 1)]


def _cached(m: Any, y: Tensor) -> Tensor:
    """Positions made for the length of the first call, and for another only where that is longer."""
    if getattr(m, "made", None) is None or _n(m.made, 0) != _n(y, 1):
        m.made = torch.sin(torch.arange(_n(y, 1)).float()[:, None] * torch.arange(1, y.shape[-1] + 1))
    return y + m.made


def _mask(m: Any, y: Tensor) -> Tensor:
    scores = y @ y.transpose(1, 2)
    return torch.softmax(scores + torch.full((_n(y, 1), _n(y, 1)), -1e4).triu(1), -1) @ y


def _steps(m: Any, y: Tensor) -> Tensor:
    state = torch.zeros_like(y[:, 0])
    for t in range(y.shape[1]):
        state = torch.tanh(y[:, t] + 0.5 * state)
    return state


def _padded(m: Any, y: Tensor) -> Tensor:
    return F.pad(y, (0, 0, 0, 32 - _n(y, 1)))


def _halves(m: Any, y: Tensor) -> Tensor:
    half = _n(y, 1) // 2
    return y[:, :half].mean(1) - y[:, half:].mean(1)


def _windows(m: Any, y: Tensor) -> Tensor:
    return torch.stack([y[:, t : t + 3].mean(1) for t in range(_n(y, 1) - 2)], 1)


def _grid(m: Any, y: Tensor) -> Tensor:
    ramp = torch.linspace(-1, 1, _n(y, 3))
    return torch.cat([y, ramp.expand(y.shape[0], 1, y.shape[2], -1)], 1)


def _up_to(m: Any, y: Tensor) -> Tensor:
    small = F.max_pool2d(y, 2)
    return F.interpolate(small, size=(_n(y, 2), y.shape[3]), mode="nearest") + y


def _upsampled_wide(m: Any, y: Tensor) -> Tensor:
    return F.interpolate(y, size=(y.shape[2] * 2, _n(y, 3) * 2), mode="bilinear", align_corners=False)


def _samples_mixed(m: Any, y: Tensor) -> Tensor:
    return torch.stack([y[i] + 0.1 * i for i in range(_n(y, 0))])


def _averaged(m: Any, y: Tensor) -> Tensor:
    return y.sum(1) / float(y.shape[1])


def _norm_length(m: Any, y: Tensor) -> Tensor:
    return (y @ y.transpose(1, 2)) / math.sqrt(_n(y, 1))


def _rolled(m: Any, y: Tensor) -> Tensor:
    return y.roll(_n(y, 1) // 2, 1)


def _reversed_index(m: Any, y: Tensor) -> Tensor:
    return y[:, torch.tensor(list(reversed(range(_n(y, 1)))))]


def _last_by_number(m: Any, y: Tensor) -> Tensor:
    return y[:, _n(y, 1) - 1]


def _by_len(m: Any, y: Tensor) -> Tensor:
    return sum((y[i] for i in range(len(y))), torch.zeros_like(y[0])) + y


def _numbered(m: Any, y: Tensor) -> Tensor:
    return y.reshape(_n(y, 0), -1)


def _expanded(m: Any, y: Tensor) -> Tensor:
    return torch.cat([m.token.weight.expand(_n(y, 0), 1, -1), y], 1)


def _rows_joined(m: Any, y: Tensor) -> Tensor:
    return y + torch.eye(_n(y, 0)) @ y


def _flat_back(m: Any, y: Tensor) -> Tensor:
    return y.reshape(-1, y.shape[-1]).relu().reshape(-1, _n(y, 1), y.shape[-1])


def _counted(m: Any, y: Tensor) -> Tensor:
    return y * torch.ones(_n(y, 0), 1, 1, 1)


def _cropped(m: Any, y: Tensor) -> Tensor:
    top = (_n(y, 2) - 8) // 2
    return y[:, :, top : top + 8]


def _tiled(m: Any, y: Tensor) -> Tensor:
    return y.mean(2, keepdim=True).repeat(1, 1, _n(y, 2), 1) - y


def _frames(m: Any, y: Tensor) -> Tensor:
    return torch.stack([y[..., s : s + 8].amax(-1) for s in range(0, _n(y, 2) - 7, 4)], -1)


def _fade(m: Any, y: Tensor) -> Tensor:
    return y * torch.hann_window(_n(y, 2), periodic=False)


def _wave_scaled(m: Any, y: Tensor) -> Tensor:
    return y / math.log(_n(y, 2))


def _wave_flat(m: Any, y: Tensor) -> Tensor:
    return y.flatten(1).view(-1, y.shape[1], _n(y, 2)).tanh()


def _flag(m: Any, y: Tensor) -> Tensor:
    return y * 2 if y.shape[1] > 6 else y - 1


def _batch_flag(m: Any, y: Tensor) -> Tensor:
    return y.squeeze(0).unsqueeze(0) - 1 if y.shape[0] == 1 else y * 2


def _batch_mean(m: Any, y: Tensor) -> Tensor:
    return y - y.sum(0) / _n(y, 0)


Function = Callable[[Any, Tensor], Tensor]

BAKED: dict[str, tuple[Shape, str, Function, Callable[[], dict[str, nn.Module]]]] = {
    **{
        f"length_{f.__name__.strip('_')}": (
            STEPS,
            "length",
            f,
            lambda: {"a": nn.Linear(8, 6), "place": nn.Embedding(32, 6)},
        )
        for f in (
            _table,
            _cached,
            _mask,
            _steps,
            _padded,
            _halves,
            _windows,
            _averaged,
            _norm_length,
            _rolled,
            _reversed_index,
            _last_by_number,
            _flat_back,
            _flag,
        )
    },
    "ids_table": (IDS, "length", _table, lambda: {"a": nn.Embedding(30, 6), "place": nn.Embedding(32, 6)}),
    "ids_mask": (IDS, "length", _mask, lambda: {"a": nn.Embedding(30, 6)}),
    **{
        f"batch_{f.__name__.strip('_')}": (IMAGE, "batch", f, lambda: {"a": nn.Conv2d(3, 4, 3, 1, 1)})
        for f in (
            _samples_mixed,
            _by_len,
            _numbered,
            _counted,
            _batch_mean,
        )
    },
    "batch_expanded": (
        STEPS,
        "batch",
        _expanded,
        lambda: {"a": nn.Linear(8, 6), "token": nn.Embedding(1, 6)},
    ),
    "batch_rows_joined": (ROWS, "batch", _rows_joined, lambda: {"a": nn.Linear(12, 6)}),
    "batch_batch_flag": (ROWS, "batch", _batch_flag, lambda: {"a": nn.Linear(12, 6)}),
    **{
        f"width_{f.__name__.strip('_')}": (PLANE, "width", f, lambda: {"a": nn.Conv2d(3, 4, 3, 1, 1)})
        for f in (_grid, _upsampled_wide)
    },
    **{
        f"height_{f.__name__.strip('_')}": (PLANE, "height", f, lambda: {"a": nn.Conv2d(3, 4, 3, 1, 1)})
        for f in (_cropped, _tiled)
    },
    **{
        f"wave_{f.__name__.strip('_')}": (WAVE, "length", f, lambda: {"a": nn.Conv1d(4, 4, 3, 1, 1)})
        for f in (
            _frames,
            _fade,
            _wave_scaled,
            _wave_flat,
        )
    },
}


def baked(model: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    shape, _, call, layers = BAKED[model]
    torch.manual_seed(sum(map(ord, model)))
    return One(Body(lambda m, x: call(m, m.a(x)), **layers()).eval()), example(shape)
