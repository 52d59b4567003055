"""Every small model of a kind that once was not proven ends as it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.kinds.run import copied, ran
from evaluation.kinds.table import KINDS, Kind

QUICK = ("einsum_bchi.onnx",)  # for every run of the tests


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind, id=f"{number}-{kind.source}", marks=[] if kind.source in QUICK else pytest.mark.slow
        )
        for number, kind in enumerate(KINDS)
    ],
)
def test_a_kind_ends_as_it_must(kind: Kind, tmp_path: Path) -> None:
    result = ran(kind, copied(tmp_path), "out")
    assert result.right, f"{result}\n{result.text}"
