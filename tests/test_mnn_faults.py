"""docs/mnn-faults.md says what MNN does: every fault that it lists is there, and what a rule repairs is right
after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.mnn_faults import FAULTS, page
from evaluation.mnn_faults.fault import Fault
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.rewriting import reference, repaired, through_mnn

Arrays = dict[str, Any]
POISON = {  # uninitialised memory is never zero by chance
    "MALLOC_PERTURB_": "153",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
NAMES = lambda fault: f"{fault.operator} {fault.form}"  # noqa: E731
REPAIRED = [fault for fault in FAULTS if fault.rule]
RELATIVE, ABSOLUTE = 1e-3, 1e-5


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in POISON.items():
            patch.setenv(name, value)
        with Host(Worker("test", ("numpy", "MNN", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
            yield host


def agrees(found: list[Arrays] | str, expected: list[Arrays]) -> bool:
    if isinstance(found, str):
        return False
    pairs = [(f[name], e[name]) for f, e in zip(found, expected, strict=True) for name in e]
    return all(f.shape == e.shape and _same(f, e) for f, e in pairs)


def _same(found: Any, expected: Any) -> bool:
    if expected.dtype.kind != "f":
        return bool(np.array_equal(found.astype(np.int64), expected.astype(np.int64)))
    return bool(np.allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_fault_is_there(host: Host, tmp_path: Path, fault: Fault) -> None:
    expected = reference(fault.model, fault.feeds)
    runs = (through_mnn(host, fault.model, fault.feeds, tmp_path / f"{n}") for n in range(fault.runs))
    assert not all(agrees(found, expected) for found in runs), "MNN is right: take the line out"


@pytest.mark.parametrize("fault", REPAIRED, ids=NAMES)
def test_its_rule_finds_it_and_changes_no_number(tmp_path: Path, fault: Fault) -> None:
    model, done = repaired(fault.model, tmp_path / "repaired", fault.rule)
    assert [fired.rule for fired in done.fired] == [fault.rule]
    assert agrees(reference(model, fault.feeds), reference(fault.model, fault.feeds))


@pytest.mark.slow
@pytest.mark.parametrize("fault", REPAIRED, ids=NAMES)
def test_its_rule_repairs_it(host: Host, tmp_path: Path, fault: Fault) -> None:
    model, _ = repaired(fault.model, tmp_path / "repaired", fault.rule)
    found = through_mnn(host, model, fault.feeds, tmp_path / "after")
    assert agrees(found, reference(fault.model, fault.feeds))


def test_the_page_is_the_one_that_is_generated() -> None:
    assert page.PAGE.read_text() == page.page()


def test_the_page_is_of_the_mnn_that_is_tested() -> None:
    assert version("MNN") == page.MEASURED


def test_no_fault_is_listed_twice() -> None:
    lines = [page.line(fault) for fault in FAULTS]
    assert len(lines) == len(set(lines))
