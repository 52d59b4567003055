"""Which decisions of a module are decisions on values: those that inputs reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mnnprep.formats.torch.net import TorchNet
from mnnprep.formats.torch.watch import Watch
from mnnprep.model.signature import TensorSpec

Forward = Callable[[nn.Module, Any], Any]


def _buffer(module: Any, x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.shape[-1] <= module.pad else x


def _computed_buffer(module: Any, x: torch.Tensor) -> torch.Tensor:
    extra = torch.ceil((x.shape[-1] - 3) / module.pad + 1).to(torch.int64)
    return x + int(extra)


def _number(module: Any, x: torch.Tensor) -> torch.Tensor:
    return x if torch.zeros(3).sum() > x.dim() else -x


def _value(module: Any, x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > module.pad else -x


def _copied(module: Any, x: torch.Tensor) -> torch.Tensor:
    return x if torch.from_numpy(x.numpy().copy()).sum() > 0 else -x


def _written(module: Any, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(2)
    view = total[:1]
    total[:] = x.sum()
    return x if view > 0 else -x


def _added(module: Any, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(())
    total += x.sum()
    return x if total > 0 else -x


def _out(module: Any, x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(4)
    torch.abs(x, out=total)
    return x if total.sum() > 0 else -x


def _unknown(module: Any, x: torch.Tensor) -> torch.Tensor:
    return x if module.kept > 0 else -x


def watched(forward: Forward) -> dict[str, set[str]]:
    module = nn.Module()
    module.register_buffer("pad", torch.tensor(2))
    module.kept = torch.tensor(1)  # no buffer: another forward may have set it
    watch, given = Watch(module), torch.ones(4)
    with watch.mode():
        forward(module, given)
    return watch.decisions


class Anchors(nn.Module):
    """An output that follows from parameters, beside one that inputs reach."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.linear = nn.Parameter(torch.randn(6, 8)), nn.Linear(8, 2)
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x), self.linear(self.queries).sigmoid().expand(x.shape[0], -1, -1)


class Remembering(Anchors):
    """The other output follows from what an input left in a buffer."""

    def forward(self, x: torch.Tensor) -> Any:
        y = self.linear(x)
        self.seen += y.detach()[0]
        return y, self.seen * 2


@pytest.mark.parametrize(("module", "named"), [(Anchors, ["output_1"]), (Remembering, [])])
def test_an_output_that_no_input_reaches_is_named(module: type[nn.Module], named: list[str]) -> None:
    net = TorchNet(module(), (TensorSpec("x", "float32", (2, 8)),))
    net.run({"x": np.ones((2, 8), np.float32)})
    assert list(net.insensitive()) == named


@pytest.mark.parametrize("forward", [_buffer, _computed_buffer, _number])
def test_what_no_input_changes_decides_nothing(forward: Forward) -> None:
    assert watched(forward) == {}


@pytest.mark.parametrize("forward", [_value, _copied, _written, _added, _out, _unknown])
def test_what_inputs_reach_decides(forward: Forward) -> None:
    assert len(watched(forward)) == 1
