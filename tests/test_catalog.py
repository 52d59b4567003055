"""The catalogue of checks: complete, said to the reader, and the only way to a check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mnnprep.bundle.manifest_view import obstacles
from mnnprep.evidence import catalog, page
from mnnprep.evidence.check import Check, OutputError, Status
from mnnprep.evidence.row import Family, Need, Role, Row
from mnnprep.evidence.verdict import COMPARE, PREPARE, VERIFY

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "mnnprep"
PROOF = ROOT / "docs" / "proof.md"
ROWS = [entry.row if isinstance(entry, Family) else entry for entry in catalog.ALL]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, with the name of what is called."""
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.Call):
            yield ast.unparse(found.func), found


def test_a_check_is_made_by_a_row_alone() -> None:
    makers = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        for name, _ in calls(path)
        if name.split(".")[-1] == "Check"
    }
    assert makers == {"evidence/row.py"}


def test_no_check_is_given_another_name() -> None:
    """A check that is changed keeps its name: `replace` is never given another one."""
    renamed = [
        f"{path.name}:{call.lineno}"
        for path in SRC.rglob("*.py")
        for name, call in calls(path)
        if name.endswith("replace") and "check" in {keyword.arg for keyword in call.keywords}
    ]
    assert renamed == []


def test_a_row_is_made_in_the_catalogue_alone() -> None:
    makers = {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*.py")
        if "evidence.row import" in path.read_text()
        for name, _ in calls(path)
        if name in ("Row", "Family")
    }
    assert makers == {"evidence/catalog.py"}


def test_every_row_is_in_the_catalogue_once() -> None:
    named = {value for value in vars(catalog).values() if isinstance(value, (Row, Family))}
    assert named - {catalog._UNKNOWN} == set(catalog.ALL)
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_its_words(row: Row) -> None:
    assert row.question.endswith("?")
    assert row.question[0].isupper()
    for words in (row.catches, row.if_failed, row.if_not_run):
        assert words
        assert not words.endswith(".")
        assert "|" not in words  # they stand in a table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_told_for_the_reader_is_never_needed(row: Row) -> None:
    assert (row.role is Role.INFORMATIVE) == (row.need is Need.NEVER)
    assert row.passed().required == (row.role is not Role.INFORMATIVE)
    assert row.passed(required=not row.required).required != row.required


def test_the_page_has_the_table_of_the_catalogue() -> None:
    assert page.table() in PROOF.read_text(), "python -m mnnprep.evidence.page prints the table"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_anchor_of_a_check_is_on_the_page(row: Row) -> None:
    path, _, anchor = row.anchor.partition("#")
    assert ROOT / path == PROOF
    assert re.findall(r'<a id="([^"]+)"></a>', PROOF.read_text()).count(anchor) == 1


@pytest.mark.parametrize(
    ("entry", "name"), [(e, e.prefix + "NAME" if isinstance(e, Family) else e.name) for e in catalog.ALL]
)
def test_a_row_is_found_by_the_name_of_its_check(entry: Row | Family, name: str) -> None:
    assert catalog.row(name) == (entry.row if isinstance(entry, Family) else entry)
    assert catalog.fits(name, [entry])


def test_a_family_asks_the_same_of_everything() -> None:
    row = catalog.DIMENSION.of("height")
    assert (row.name, row.question) == ("dimension:height", catalog.DIMENSION.row.question)
    assert catalog.row("dimension:height") == row
    assert row.anchor == catalog.DIMENSION.row.anchor
    assert catalog.DIMENSION.member("dimension:a:b") == "a:b"
    assert catalog.DIMENSION.has("dimension:height")
    assert not catalog.DIMENSION.has("metric:height")


def test_an_unknown_check_has_no_words_and_is_no_error() -> None:
    row = catalog.row("flavour")
    assert (row.name, row.question) == ("flavour", "")
    assert not any(profile.fits("flavour") for profile in (PREPARE, VERIFY, COMPARE))


def test_a_remedy_is_that_of_how_the_check_ended() -> None:
    found = obstacles([catalog.REFERENCE.failed("so"), catalog.MNN_CONVERT.not_run("so")])
    assert [o.remedy for o in found] == [catalog.REFERENCE.if_failed, catalog.MNN_CONVERT.if_not_run]


def test_the_names_that_a_proof_needs() -> None:
    assert PREPARE.with_dims(["batch"]).with_targets(["host:low"]).required == (
        *catalog.REQUIRED,
        "dimension:batch",
        "target:host:low",
    )
    assert catalog.REQUIRED == (
        "inference_mode",
        "determinism",
        "self_contained",
        "weights",
        "reference",
        "artifact_compare",
        "mnn_convert",
        "mnn_compare",
        "vacuity",
    )


def test_roles() -> None:
    assert {"determinism", "vacuity", "noise", "branches", "coverage"} == catalog.PROVABILITY
    assert {"artifact", "mnn_convert"} == catalog.USABILITY


def test_a_check_says_what_it_was_given() -> None:
    error = OutputError("y", 0, excess=2.0)
    made = catalog.MNN_COMPARE.failed("off", subject="y", numbers={"cases": (1, 2)}, outputs=(error,))
    assert made == Check(
        check="mnn_compare",
        status=Status.FAILED,
        reason="off",
        subject="y",
        numbers={"cases": [1, 2]},
        outputs=[error],
    )


@pytest.mark.parametrize("figure", [np.float64(1.5), np.int64(3), True, None, [1.5]])
def test_a_figure_that_json_would_not_give_back_is_a_mistake(figure: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        catalog.WEIGHTS.passed(numbers={"figure": figure})  # type: ignore[dict-item]
