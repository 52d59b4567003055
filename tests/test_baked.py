"""A size that an export kept as a constant: caught, with the dimension, the node and the user's line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from support.command import SUPPORT, checks_of, prepared

pytest.importorskip("torch")

NETS = SUPPORT / "baked_nets.py"


def line_of(name: str) -> int:
    """The line in the class *name* that bakes a size in."""
    lines = NETS.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {name}("))
    return next(i for i, line in enumerate(lines[start:], start + 1) if line.endswith("# baked"))


@pytest.mark.parametrize(
    ("name", "spec", "dimension", "bounds"),
    [
        ("IntOfShape", "x=float32[n,4]", "n", "1:9"),
        ("LengthByNumpy", "x=float32[1,length,4]", "length", "2:40"),
        ("PoolOfHeight", "x=float32[1,3,height,8]", "height", "4:20"),
        ("Expanded", "x=float32[n,4]", "n", "2:9"),
    ],
)
def test_a_baked_size_is_named_with_its_node_and_line(
    tmp_path: Path, name: str, spec: str, dimension: str, bounds: str
) -> None:
    manifest = prepared(
        f"{NETS}:{name}",
        tmp_path / "out",
        "--input",
        spec,
        "--dim",
        f"{dimension}={bounds}",
        "--method",
        "onnx-trace",
    )
    assert manifest.verdict is Verdict.DIFFERS
    (check,) = checks_of(manifest, f"dimension:{dimension}")
    assert check.status is Status.FAILED
    assert check.reason.startswith(f"the export kept {dimension}=")
    assert f"(at baked_nets.py:{line_of(name)})" in check.reason
    assert check.numbers["baked"]


def test_a_size_that_is_free_is_not_named(tmp_path: Path) -> None:
    manifest = prepared(
        f"{NETS}:Free",
        tmp_path / "out",
        "--input",
        "x=float32[n,4]",
        "--dim",
        "n=1:9",
        "--method",
        "onnx-trace",
    )
    assert manifest.verdict is Verdict.PROVEN, manifest.evidence
    (check,) = checks_of(manifest, "dimension:n")
    assert "baked" not in check.numbers


def test_a_branch_on_a_size_is_exported_where_it_is_taken(tmp_path: Path) -> None:
    words = ("--input", "x=float32[1,length,4]", "--dim", "length=2:24", "--method", "onnx-trace")
    manifest = prepared(f"{NETS}:PaddedToFour", tmp_path / "out", *words)
    assert manifest.verdict is Verdict.PROVEN, manifest.evidence
    first, *_, last = manifest.artifact.attempts
    assert (first.verdict, last.verdict) == ("differs", "proven")
    assert "exported at length=13" in last.notes
