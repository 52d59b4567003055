"""Modules whose parameters have no shape before their first call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnprep.errors import RefusedError
from mnnprep.formats.torch.lazy import initialize

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.LazyLinear(2)
        self.norm = nn.LazyBatchNorm1d()

    def forward(self, x: Any) -> Any:
        return self.norm(self.head(x))


def test_an_example_decides_the_shapes() -> None:
    net = Net().eval()
    initialize(net, {"x": np.ones((3, 5), np.float32)})
    assert net.head.weight.shape == (2, 5)
    assert net.norm.weight.shape == (2,)
    assert not any(torch.nn.parameter.is_lazy(p) for p in net.parameters())


def test_a_model_with_all_its_shapes_is_not_called() -> None:
    class Uncalled(nn.Linear):
        def forward(self, x: Any) -> Any:
            raise AssertionError("called")

    initialize(Uncalled(3, 2), {"x": np.ones((1, 3), np.float32)})


def test_without_an_example_it_is_refused() -> None:
    with pytest.raises(RefusedError, match="without a shape") as error:
        initialize(Net(), {})
    assert "head.weight" in error.value.seen


def test_a_first_call_that_fails_is_refused() -> None:
    with pytest.raises(RefusedError, match="first call") as error:
        initialize(Net(), {"x": np.ones((2, 3), np.int64)})
    assert "head.weight" in error.value.seen
