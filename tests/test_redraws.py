"""Cases that the source has no numbers for are drawn again, a bounded number of times, alike in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnnprep.evidence.check import Status
from mnnprep.formats.torch.net import TorchNet
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import make_wants
from mnnprep.model.signature import parse_input
from mnnprep.reference.checks import Surveyed
from mnnprep.reference.redraws import MOST_FAILURES, MOST_REDRAWS
from mnnprep.reference.survey import survey
from support.fakes import Fake


def masked_mean(x: Any, m: Any) -> Any:
    """The mean of what is not hidden, as an attention whose scores are all alike gives it."""
    kept = 1 - m[..., None].astype("f4")
    with np.errstate(invalid="ignore"):
        return (x * kept).sum(1) / kept.sum(1)


INPUTS = {
    "a mask by its name": "x=float32[n,t,3];mask=int64[n,t]",
    "a mask by its dtype": "x=float32[n,t,3];m=bool[n,t]",
    "a mask by its range": "x=float32[n,t,3];m=int64[n,t]",
}
DIMS = ("n=1:4", "t=2:6")


def wants(name: str) -> InputSpecs:
    return make_wants(dims=DIMS, ranges=("m=0:1",) if "range" in name else ())


def numbers(found: Surveyed) -> dict[str, Any]:
    return dict(found.checks[0].numbers)


@pytest.mark.parametrize("hidden_is", [0, 1])
@pytest.mark.parametrize("name", INPUTS)
def test_a_mask_of_either_polarity_hides_no_row_whole(name: str, hidden_is: int) -> None:
    def net(x: Any, **masks: Any) -> Any:
        (mask,) = masks.values()
        return masked_mean(x, mask.astype(int) == hidden_is)

    found = survey(Fake(INPUTS[name], net), wants(name))
    assert found.checks[0].check == "reference"
    assert found.checks[0].reason == ""
    assert all(np.isfinite(c.outputs["y"]).all() for c in found.cases)
    assert {c.dims["n"] for c in found.cases} >= {1, 2, 4}
    again = survey(Fake(INPUTS[name], net), wants(name))
    assert [c.origin for c in again.cases] == [c.origin for c in found.cases]
    for one, other in zip(found.cases, again.cases, strict=True):
        assert all(np.array_equal(one.inputs[n], other.inputs[n]) for n in one.inputs)


def test_some_masks_hide_something() -> None:
    found = survey(Fake(INPUTS["a mask by its dtype"], masked_mean), wants("dtype"))
    hidden = [c.inputs["m"] for c in found.cases]
    assert any(h.any() for h in hidden)
    assert numbers(found)["redrawn"]


def test_what_is_never_finite_is_said_and_soon_left_alone() -> None:
    runs = 0

    def net(x: Any, m: Any) -> Any:
        nonlocal runs
        runs += 1
        return np.full(x.shape, np.nan, "f4")

    found = survey(Fake(INPUTS["a mask by its dtype"], net), wants("dtype"))
    assert found.checks[0].status is Status.PASSED
    assert f"nor for any of {MOST_REDRAWS} other draws" in found.checks[0].reason
    assert "--range" in found.checks[0].reason
    plain = runs - MOST_FAILURES * MOST_REDRAWS
    assert plain <= 4 * len(found.cases) + 10


def test_a_row_that_only_float64_has_no_number_for_is_drawn_again() -> None:
    class Guarded(Fake):
        def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {n: np.nan_to_num(a) for n, a in super().run(inputs).items()}

        def run_precise(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return Fake.run(self, inputs)

    found = survey(Guarded(INPUTS["a mask by its range"], masked_mean), wants("range"))
    assert all(not c.inputs["m"].all(axis=1).any() for c in found.cases)
    assert numbers(found)["redrawn"]


def test_infinite_outputs_are_kept() -> None:
    def scores(x: Any, m: Any) -> Any:
        return np.where(m[..., None], np.float32(-np.inf), x)

    found = survey(Fake(INPUTS["a mask by its dtype"], scores), wants("dtype"))
    assert any(np.isinf(c.outputs["y"]).any() for c in found.cases)


def test_a_row_that_only_fused_attention_has_no_number_for_is_drawn_again() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x: Tensor, m: Tensor) -> Any:
            return self.encoder(x, src_key_padding_mask=m == 0)

    torch.manual_seed(0)
    net = TorchNet(
        Encoder().eval(), (parse_input("x=float32[n,t,16]"), parse_input("m=int64[n,t]")), precise=False
    )
    hidden = {"x": np.ones((1, 2, 16), "f4"), "m": np.zeros((1, 2), "i8")}
    assert np.isnan(next(iter(net.run(hidden).values()))).all()
    found = survey(net, wants("range"))
    assert all(c.inputs["m"].any(axis=1).all() for c in found.cases)
