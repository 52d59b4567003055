"""Exported programs whose arguments are nested, None or numbers; factories that return wrapped models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

from mnnprep.errors import RefusedError
from mnnprep.model.messages import Source

torch = pytest.importorskip("torch")


class Masked(torch.nn.Module):
    def forward(self, x: Any, mask: Any, y: Any, k: int = 2) -> Any:
        return torch.tanh(x if mask is None else x * mask) * k + y


class Nested(torch.nn.Module):
    def forward(self, batch: Mapping[str, Any], state: Sequence[Any], *, scale: Any) -> Any:
        return (batch["x"] + state[0] * state[1]) * scale


def tensor() -> Any:
    return torch.randn(2, 4)


def loaded(module: Any, path: Path, arguments: tuple[Any, ...], **keywords: Any) -> Any:
    from mnnprep.formats.torch.load import load

    torch.export.save(torch.export.export(module, arguments, keywords), path)
    return load(Source(kind="exported-program", path=str(path)))


@pytest.mark.parametrize("more", [(), (5,)], ids=["default", "number"])
def test_none_and_numbers_stay_as_they_were_exported(tmp_path: Path, more: tuple[int, ...]) -> None:
    x, y = tensor(), tensor()
    found = loaded(Masked(), tmp_path / "net.pt2", (x, None, y, *more))
    assert found.parameters == ["x", "y"]
    assert {name: array.tolist() for name, array in found.example.items()} == {
        "x": x.tolist(),
        "y": y.tolist(),
    }
    a, b = tensor(), tensor()
    assert torch.equal(found.module(a, b), Masked()(a, None, b, *more))


def test_nested_arguments_are_put_in_their_places(tmp_path: Path) -> None:
    state = (tensor(), tensor())
    found = loaded(Nested(), tmp_path / "net.pt2", ({"x": tensor()}, state), scale=tensor())
    assert found.parameters == ["batch_x", "state_0", "state_1", "scale"]
    x, first, second, scale = (tensor() for _ in range(4))
    expected = Nested()({"x": x}, (first, second), scale=scale)
    assert torch.equal(found.module(x, first, second, scale), expected)


def test_a_size_as_an_input_is_refused(tmp_path: Path) -> None:
    """A number that is open (a symbol) is no tensor, and nothing keeps it."""

    class Scaled(torch.nn.Module):
        def forward(self, x: Any, k: int) -> Any:
            return x * k

    program = torch.export.export(
        Scaled(), (tensor(), 3), dynamic_shapes={"x": None, "k": torch.export.Dim.DYNAMIC}
    )
    torch.export.save(program, tmp_path / "net.pt2")
    from mnnprep.formats.torch.load import load

    with pytest.raises(RefusedError, match="not tensors") as raised:
        load(Source(kind="exported-program", path=str(tmp_path / "net.pt2")))
    assert "k (" in raised.value.seen


@pytest.mark.parametrize("wrapper", ["torch.compile", "torch.nn.DataParallel"])
def test_a_factory_may_return_a_wrapped_model(tmp_path: Path, wrapper: str) -> None:
    from mnnprep.formats.torch.load import load

    (tmp_path / "nets.py").write_text(
        f"import torch\ndef make(): return {wrapper}(torch.nn.Linear(6, 4)), torch.randn(1, 6)\n"
    )
    found = load(Source(kind="torch-factory", path=f"{tmp_path / 'nets.py'}:make"))
    assert type(found.module) is torch.nn.Linear
    assert list(found.example) == found.parameters == ["input"]


class Listed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x * 2, x + 1]


class Paired(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return x, [x * 2, x + 1]


@pytest.mark.parametrize("net", [Listed, Paired])
def test_a_list_of_outputs_is_unpacked(net: type[Any], tmp_path: Path) -> None:
    """The exporter makes one output of a list, a sequence, which MNN does not take."""
    from mnnprep.formats.torch import steps
    from mnnprep.model.messages import ExportJob, InputSpecs
    from mnnprep.model.signature import TensorSpec

    torch.jit.script(net().eval()).save(str(tmp_path / "net.pt"))
    wants = InputSpecs(inputs=(TensorSpec("x", "float32", (2, 4)),))
    (tmp_path / "out").mkdir()
    made = steps.export_module(
        ExportJob(
            source=Source(kind="torchscript", path=str(tmp_path / "net.pt")),
            wants=wants,
            method="onnx-trace",
            opset=13,
            directory=str(tmp_path / "out"),
        )
    )
    outputs = onnx.load(made.files[0].path).graph.output
    assert all(output.type.HasField("tensor_type") for output in outputs)
    assert len(outputs) == (2 if net is Listed else 3)
