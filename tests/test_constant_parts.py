"""Parameters that are read in parts: all that reaches an output is found in a right artifact alone."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.evidence.check import Status
from mnnprep.formats.torch.parameter_trail import trails
from support.partial_parameters import NETS, made

Arrays = dict[str, Any]
X = np.random.default_rng(0).standard_normal((2, 16, 8)).astype(np.float32)


@functools.cache
def exported(name: str) -> Arrays:
    """The tensors that torch's exporter leaves of the net of that name, its constants folded."""
    module = made(name)
    file = io.BytesIO()
    torch.onnx.export(
        module,
        (torch.from_numpy(X),),
        file,
        opset_version=17,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
        dynamo=False,
    )
    graph = onnx.load_from_string(file.getvalue()).graph
    constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    tensors = [*graph.initializer, *constants]
    return {str(number): np.array(numpy_helper.to_array(t)) for number, t in enumerate(tensors)}


def passes(module: nn.Module, artifact: Arrays) -> bool:
    """The verdict of the ``weights`` check."""
    source = {n: p.detach().numpy() for n, p in module.named_parameters()}
    check = match_weights(source, artifact, trails=lambda names: trails(module, names, [{"x": X}]))
    return check.status is Status.PASSED


@pytest.mark.parametrize("name", NETS)
def test_all_that_reaches_an_output_is_in_a_right_artifact(name: str) -> None:
    module = made(name)
    artifact = exported(name)
    whole = match_weights({n: p.detach().numpy() for n, p in module.named_parameters()}, artifact)
    assert whole.status is Status.FAILED  # so that following the parts is what is tested
    assert passes(module, artifact)


def changed(array: Any) -> Any:
    array = array.copy()
    array.reshape(-1)[np.abs(array).argmax()] *= 1.02
    return array


FAULTS: dict[str, Callable[[Any], Any]] = {
    "one weight changed by 2 %": changed,
    "halves swapped": lambda a: np.roll(a, max(a.shape) // 2, int(np.argmax(a.shape))),
    "reversed": lambda a: a.reshape(-1)[::-1].reshape(a.shape),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NETS)
def test_a_fault_in_any_part_is_found(name: str, fault: str) -> None:
    module = made(name)
    artifact = exported(name)
    whole = [p.detach().numpy() for p in module.parameters()]
    parts = [
        n
        for n, a in artifact.items()
        if a.dtype.kind == "f" and a.size > 1 and all(a.size != w.size or name == "a norm" for w in whole)
    ]
    assert parts
    for part in parts:
        assert not passes(module, artifact | {part: FAULTS[fault](artifact[part])}), part


def test_a_slice_of_the_wrong_rows_is_found() -> None:
    module = made("a slice")
    artifact = exported("a slice")
    positions = module.get_parameter("positions").detach().numpy()
    part = next(n for n, a in artifact.items() if a.shape == (1, 16, 8))
    assert not passes(module, artifact | {part: positions[:, 1:17]})
    assert not passes(module, artifact | {part: positions[:, :15]})


def test_a_part_that_is_left_out_is_found() -> None:
    module = made("a sum")
    artifact = exported("a sum")
    for part in [n for n, a in artifact.items() if a.dtype.kind == "f" and a.size > 1]:
        assert not passes(module, {n: a for n, a in artifact.items() if n != part}), part


def test_a_parameter_that_decides_is_no_part() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.switch = nn.Parameter(torch.tensor([2.0, 3.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x * (2 if self.switch.sum().item() > 0 else 3)

    module = Deciding()
    assert not passes(module, {"two": np.array([2.0], np.float32)})
    assert passes(module, {"sum": np.array(5.0, np.float32)})


def test_what_no_run_can_follow_stays_missing() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    assert trails(Failing(), ["weight"], [{"x": X}]) == []
    assert not passes(Failing(), {"w": np.ones(2, np.float32) * 2})
