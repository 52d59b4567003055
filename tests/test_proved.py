"""The evaluations that ask an oracle about proofs: how outcomes are kept and counted, and a slice of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from evaluation.proved.loop import chosen, unsettled
from evaluation.proved.row import Row, failed, kept, reasons, summary

PROVEN = Row(name="a", group="g", verdict="proven", oracle="right")
WRONG = Row(name="b", group="g", verdict="proven", oracle="wrong", detail="3 of 4 differ")
DIFFERS = Row(name="c", group="g", verdict="differs", check="mnn_compare", reason="off", exit_code=1)
REFUSED = Row(name="d", group="g", verdict="refused", exit_code=3)
BROKEN = Row(name="e", group="g", verdict="error", exit_code=70)
SKIPPED = Row(name="f", group="g", verdict="skipped")
ROWS = [PROVEN, WRONG, DIFFERS, REFUSED, BROKEN, SKIPPED]


def test_the_share_is_of_what_exports() -> None:
    told = summary("title", ROWS)
    assert "6 models, 1 skipped, 1 not exported, 3 exported" in told
    assert "2 proven (66.7 % of what exports), 1 differ, 0 unproven" in told
    assert "1 silently wrong, 1 exit 70" in told


def test_wrong_proofs_and_defects_fail_an_evaluation() -> None:
    assert failed(ROWS) == [WRONG, BROKEN]
    assert failed([PROVEN, DIFFERS, REFUSED, SKIPPED]) == []


def test_reasons_are_counted_by_check() -> None:
    again = msgspec.structs.replace(DIFFERS, name="g")
    assert reasons([*ROWS, again]) == ["   2 differs (mnn_compare): off [c, g]"]


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = b"\n".join(map(msgspec.json.encode, [DIFFERS, PROVEN]))
    file.write_bytes(lines[:-9])
    assert kept(file) == {"c": DIFFERS}
    assert kept(tmp_path / "none.jsonl") == {}


def test_what_may_still_change() -> None:
    assert [row.name for row in ROWS if unsettled(row)] == ["b", "c", "d", "e"]
    assert chosen("ops/add/float32/0", ["/add/"])
    assert not chosen("ops/add/float32/0", ["mul"])


def test_a_sample_is_drawn_anew_with_each_seed() -> None:
    pytest.importorskip("expecttest")
    from evaluation.opinfo.samples import NotAModel, drawn, names

    assert "ops/add/float32/0" in names("ops", 1)
    assert "modules/nn.Linear/float32/1" in names("modules", 2)
    (module, first), (_, second) = drawn("ops/add/float32/0", 0), drawn("ops/add/float32/0", 1)
    assert [t.shape for t in first] == [t.shape for t in second]
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(module(*first), first[0] + first[1])
    one, other = (drawn("modules/nn.Linear/float32/0", seed)[0] for seed in (0, 1))
    assert all(
        np.array_equal(a.detach(), b.detach())
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    with pytest.raises(NotAModel, match="no tensor"):
        drawn("ops/arange/float32/0", 0)


@pytest.mark.slow
def test_a_graph_is_the_same_for_its_seed(tmp_path: Path) -> None:
    pytest.importorskip("nnsmith")
    from evaluation.random_graphs.generate import FOR_PROOF, FRESH, generate

    made: list[Any] = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        made.append(generate(1, tmp_path / place))
    assert not made[0].skipped
    assert made[0].model.read_bytes() == made[1].model.read_bytes()
    assert (len(list(made[0].samples.iterdir())), len(made[0].fresh)) == (FOR_PROOF, FRESH)
