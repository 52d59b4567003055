"""A source is called as its user calls it: what its hooks see, and where each input goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mnnprep.errors import UsageError
from mnnprep.formats.torch.calling import Call, Default, calling
from mnnprep.formats.torch.load import LIVE, Loaded, _live, input_specs
from mnnprep.formats.torch.net import TorchNet, used_tensors
from mnnprep.formats.torch.steps import export_module
from mnnprep.model.messages import ExportJob, InputSpecs, Source
from mnnprep.model.net import Refused
from mnnprep.model.signature import parse_input


def live(module: nn.Module, example: Any = None) -> Loaded:
    LIVE["here"] = (module.eval(), example)
    try:
        return _live(Source(kind="live", path="here"))
    finally:
        del LIVE["here"]


def run(module: nn.Module, *arrays: Any, precise: bool = False) -> Any:
    """The first output of *module* as a survey has it, its inputs given by place."""
    loaded = live(module, tuple(None if a is None else torch.from_numpy(a) for a in arrays))
    net = TorchNet(module, input_specs(loaded, ()), loaded.example)
    outputs = net.run_precise(loaded.example) if precise else net.run(loaded.example)
    assert outputs is not None
    return next(iter(outputs.values()))


def hooked() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(4, 4).eval()
    module.register_forward_pre_hook(lambda _, args: tuple((a - 0.5) / 0.25 for a in args))
    module.register_forward_hook(lambda _, args, out: out + sum(args))
    return module


X = np.random.default_rng(0).random((3, 4), np.float32)
Y = np.random.default_rng(1).random((3, 4), np.float32)


@pytest.mark.parametrize("precise", [False, True])
def test_a_hook_sees_the_inputs_as_model_of_x_gives_them(precise: bool) -> None:
    with torch.no_grad():
        expected = hooked()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(run(hooked(), X, precise=precise), expected, rtol=1e-5)


def test_the_parameters_in_use_are_followed_through_the_hooks() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    module = Scaled()
    module.register_forward_pre_hook(lambda m, args: tuple(a * m.scale for a in args))
    used, notes = used_tensors(module, [{"x": X}])
    assert list(used) == ["scale"]
    assert notes == []


@pytest.mark.parametrize("method", ["onnx-trace", "onnx-export"])
def test_what_a_hook_does_is_in_the_export_and_the_input_keeps_its_name(method: str, tmp_path: Path) -> None:
    module = hooked()
    LIVE["exported"] = (module, torch.from_numpy(X))
    try:
        made = export_module(
            ExportJob(
                source=Source(kind="live", path="exported"),
                wants=InputSpecs(),
                method=method,
                opset=18,
                directory=str(tmp_path),
            )
        )
    finally:
        del LIVE["exported"]
    session = onnxruntime.InferenceSession(made.files[0].path)
    assert [i.name for i in session.get_inputs()] == ["input"]
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"input": X})[0], module(torch.from_numpy(X)).numpy(), rtol=1e-4
        )


class Minus(nn.Module):
    def forward(self, x: Tensor, y: Tensor, /) -> Tensor:
        return x - y


class Several(nn.Module):
    def forward(self, *args: Tensor) -> Tensor:
        return args[0] - args[1]


class Masked(nn.Module):
    def forward(
        self, x: Tensor, scale: float = 3.0, mask: Tensor | None = None, *, shift: Tensor | None = None
    ) -> Tensor:
        x = x * scale
        if mask is not None:
            x = x - mask
        return x if shift is None else x + 7 * shift


class Scriptable(nn.Module):
    def forward(self, x: Tensor, scale: float = 3.0, mask: Tensor | None = None) -> Tensor:
        x = x * scale
        return x if mask is None else x - mask


class Gap(nn.Module):
    def forward(self, x: Tensor, scale: float = 3.0, y: Tensor | None = None, /) -> Tensor:
        assert y is not None
        return x * scale - y


class Rest(nn.Module):
    def forward(self, x: Tensor, scale: float = 3.0, *rest: Tensor, **more: Tensor) -> Tensor:
        return x * scale - sum(rest) + 5 * sum(more.values())


@pytest.mark.parametrize(
    ("module", "names", "call"),
    [
        (Minus(), ["x", "y"], Call(("x", "y"))),
        (Several(), ["args_0", "args_1"], Call(("args_0", "args_1"))),
        (Several(), ["args_10", "args_9"], Call(("args_9", "args_10"))),
        (Several(), ["left", "right"], Call(("left", "right"))),
        (Masked(), ["x"], Call(("x",))),
        (Masked(), ["x", "mask"], Call(("x",), ("mask",))),
        (Masked(), ["x", "scale", "mask", "shift"], Call(("x", "scale", "mask"), ("shift",))),
        (Gap(), ["x", "y"], Call(("x", Default(3.0), "y"))),
        (Rest(), ["x", "rest_0", "other"], Call(("x", Default(3.0), "rest_0"), ("other",))),
        (nn.DataParallel(Minus()), ["x", "y"], Call(("x", "y"))),
        (torch.jit.script(Scriptable()), ["x", "mask"], Call(("x",), ("mask",))),
        (Minus(), ["y"], Call((), ("y",))),
    ],
)
def test_where_each_input_goes(module: nn.Module, names: list[str], call: Call) -> None:
    assert calling(module, names) == call


@pytest.mark.parametrize(
    "module", [Minus(), Several(), nn.DataParallel(Minus()), torch.jit.script(Scriptable())]
)
def test_forwards_of_every_kind_of_parameter_compute(module: nn.Module) -> None:
    arrays = (X, None, Y) if isinstance(module, torch.jit.ScriptModule) else (X, Y)
    np.testing.assert_allclose(run(module, *arrays), (3 * X if len(arrays) == 3 else X) - Y)


def test_inputs_that_only_args_takes_have_the_names_that_are_declared() -> None:
    declared = tuple(map(parse_input, ("right=float32[3,4]", "left=float32[3,4]")))
    assert [s.name for s in input_specs(live(Several()), declared)] == ["right", "left"]
    with pytest.raises(UsageError, match="which forward does not take"):
        input_specs(live(Minus()), declared)


@pytest.mark.parametrize("method", ["onnx-script", "script"])
def test_a_scripted_module_gets_what_comes_after_a_gap_by_its_name(method: str, tmp_path: Path) -> None:
    LIVE["scripted"] = (Scriptable().eval(), {"x": torch.from_numpy(X), "mask": torch.from_numpy(Y)})
    try:
        made = export_module(
            ExportJob(
                source=Source(kind="live", path="scripted"),
                wants=InputSpecs(),
                method=method,
                opset=18,
                directory=str(tmp_path),
            )
        )
    finally:
        del LIVE["scripted"]
    if method == "onnx-script":
        session = onnxruntime.InferenceSession(made.files[0].path)
        found = session.run(None, {"x": X, "mask": Y})[0]
    else:
        artifact = torch.jit.load(made.files[0].path)
        found = calling(artifact, ["x", "mask"])(
            artifact, {"x": torch.from_numpy(X), "mask": torch.from_numpy(Y)}
        ).numpy()
    np.testing.assert_allclose(found, 3 * X - Y, rtol=1e-6)


def test_a_mistake_in_a_forward_is_told_with_its_place() -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * undefined  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        Refused, match=r"^NameError: name 'undefined' is not defined \(at test_calling.py:\d+\)$"
    ):
        run(Wrong(), X)


def test_what_a_torchscript_net_refuses_is_told_by_its_last_line() -> None:
    with pytest.raises(
        Refused, match=r"^RuntimeError: The size of tensor a \(4\) must match the size of tensor b \(3\)"
    ):
        run(torch.jit.script(Scriptable()), X, None, np.ones((3, 3), np.float32))
