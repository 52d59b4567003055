"""What MNN's Torch frontend reads, against what it was recorded to do with eight TorchScript files."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.nets.mnn_models import DATA
from mnnprep.mnn.torch_frontend import ALIASES, REGISTERED, unregistered

REFUSED = {
    "attention-script": [],
    "attention-trace": [],
    "conv-script": [],
    "conv-trace": [],
    "conv1d-trace": [],
    "if-script": [],
    "lstm-trace": ["aten::lstm"],
    "sdpa-trace": ["aten::scaled_dot_product_attention"],
}


def kinds_of(block: Any) -> set[str]:
    found: set[str] = set()
    for node in block.nodes():
        found.add(node.kind())
        for inner in node.blocks():
            found |= kinds_of(inner)
    return found


def test_the_registered_names_are_each_listed_once_in_order() -> None:
    assert len(REGISTERED) == 170
    assert list(REGISTERED) == sorted(set(REGISTERED))
    assert set(ALIASES.values()) <= set(REGISTERED)
    assert not set(ALIASES) & set(REGISTERED)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_frontend_refused_is_foreseen(name: str) -> None:
    torch = pytest.importorskip("torch")
    net = torch.jit.freeze(torch.jit.load(DATA / f"{name}.pt").eval())
    assert unregistered(kinds_of(net.graph)) == REFUSED[name]


def test_the_forms_of_a_name() -> None:
    read = [
        "aten::conv2d",
        "aten::_convolution",
        "aten::relu_",
        "aten::__or__",
        "aten::max",
        "aten::dropout_",
        "aten::multiply",
        "prim::If",
    ]
    refused = ["aten::gru", "aten::instance_norm", "aten::conv1d", "aten::lstm", "torchvision::nms"]
    assert unregistered(read) == []
    assert unregistered(read + refused + refused) == sorted(refused)
