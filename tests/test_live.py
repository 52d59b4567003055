"""A live module is prepared where it lives and comes back as it was, also when its parameters are shards."""

import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mnnprep  # noqa: E402
from mnnprep.errors import RefusedError, UsageError  # noqa: E402
from support.programs import live_ranks  # noqa: E402

RANKS = Path(live_ranks.__file__)
INPUT = ["x=float32[batch,16]"]


def initializers(bundle: Path) -> dict[str, np.ndarray]:
    import onnx
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(bundle / "model.onnx")).graph.initializer}


class Counting(torch.nn.Module):
    """Writes to a buffer and to an attribute in every forward."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(16, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.4)
        )
        self.head = torch.nn.Linear(8, 3)
        self.register_buffer("seen", torch.zeros(1))
        self.calls = 0

    def forward(self, x):
        self.seen += 1
        self.calls += 1
        return self.head(self.inner(x))


def test_a_live_module_comes_back_as_it_was(tmp_path):
    module = Counting()
    module.inner[1].eval()  # mixed flags, as when a part is frozen
    module.head.weight.requires_grad_(False)
    hook = module.head.register_forward_hook(lambda *_: None)
    module.head.weight.grad = torch.ones_like(module.head.weight)
    flags = [(n, m.training) for n, m in module.named_modules()]
    parameters = [(n, id(p), p.requires_grad, p.detach().clone()) for n, p in module.named_parameters()]
    states = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )

    manifest = mnnprep.prepare(module, tmp_path / "out", inputs=INPUT, dims={"batch": (1, 5)})

    assert manifest.verdict.value == "proven"
    assert manifest.signature.dims["batch"].proven == [1, 2, 3, 5]
    assert [(n, m.training) for n, m in module.named_modules()] == flags
    for (name, identity, grad, value), (new_name, parameter) in zip(
        parameters, module.named_parameters(), strict=True
    ):
        assert (name, identity, grad) == (new_name, id(parameter), parameter.requires_grad)
        assert torch.equal(value, parameter)
    assert module.seen.item() == 0
    assert module.calls == 0
    assert list(module.head._forward_hooks) == [hook.id]
    assert torch.equal(module.head.weight.grad, torch.ones_like(module.head.weight))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert (states[2], states[3], states[4]) == (
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


def test_a_live_module_is_restored_when_its_forward_raises(tmp_path):
    class Broken(Counting):
        def forward(self, x):
            raise RuntimeError("no way through")

    module = Broken()
    with pytest.raises(RefusedError, match="dynamic dimensions"):
        mnnprep.prepare(module, tmp_path / "out", inputs=INPUT)
    assert module.training
    assert not (tmp_path / "out").exists()


def test_an_example_gives_the_signature(tmp_path):
    manifest = mnnprep.prepare(Counting(), tmp_path / "out", example=torch.randn(2, 16))
    assert manifest.verdict.value == "proven"
    assert [(t.name, t.shape) for t in manifest.signature.inputs] == [("x", [2, 16])]
    assert manifest.cases[0].origin == "the source's example"


def test_a_half_precision_module_keeps_its_dtype(tmp_path):
    module = torch.nn.Linear(16, 4).double()
    mnnprep.prepare(module, tmp_path / "out", inputs=["input=float64[2,16]"])
    assert module.weight.dtype is torch.float64


def test_a_meta_tensor_is_refused(tmp_path):
    with torch.device("meta"):
        module = torch.nn.Linear(16, 4)
    with pytest.raises(RefusedError, match="meta device"):
        mnnprep.prepare(module, tmp_path / "out", inputs=["input=float32[2,16]"])


def test_what_is_no_module_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"neither a path nor a torch\.nn\.Module"):
        mnnprep.prepare(object(), tmp_path / "out")
    with pytest.raises(UsageError, match="go with a factory"):
        mnnprep.prepare(
            torch.nn.Linear(2, 2), tmp_path / "out", weights="w.safetensors", inputs=["input=float32[2,2]"]
        )


SLOW = pytest.mark.slow  # two processes with torch, and a preparation, each; fsdp2 stands for them


@pytest.mark.parametrize(
    "kind", ["fsdp2", *(pytest.param(k, marks=SLOW) for k in ("ddp", "fsdp1", "tensor-parallel"))]
)
def test_shards_of_a_process_group_are_gathered(kind, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(RANKS), kind]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2", str(port), str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    texts = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(texts)
    assert "verdict proven" in texts[0]
    whole = live_ranks.make().state_dict()
    exported = initializers(tmp_path / "out")
    for name, tensor in whole.items():
        array = tensor.numpy()
        assert any(np.array_equal(a, array) or np.array_equal(a, array.T) for a in exported.values()), name
