"""The attempt that is kept, when scripting is tried, and advice that is not given twice."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mnnprep.attempt.results import AttemptResult
from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import DimRecord, Manifest
from mnnprep.commands.attempt_order import choose, skip
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ExportRecipe
from mnnprep.model.messages import Exported, Survey
from mnnprep.model.request import Request
from mnnprep.model.signature import Signature
from mnnprep.reference.noise import nudged
from support.manifests import golden

SCRIPT = ExportRecipe("onnx-script", "onnx", 13, for_decisions=True)


def result(method: str, *checks: Check, sizes: int = 0, verdict: Verdict = Verdict.DIFFERS) -> AttemptResult:
    return AttemptResult(
        recipe=ExportRecipe(method, "onnx", 13),
        exported=Exported(format="onnx", opset=13, files=[]),
        checks=checks,
        verdict=verdict,
        proven_sizes={"n": list(range(sizes))},
    )


RIGHT, WRONG = catalog.ARTIFACT_COMPARE.passed(), catalog.ARTIFACT_COMPARE.failed("off")
SIZE_WRONG = catalog.DIMENSION.of("n").failed("wrong at 2")


def test_the_artifact_that_is_right_is_kept() -> None:
    results = [result("a", WRONG, sizes=1), result("b", RIGHT), result("c", RIGHT)]
    assert choose(results).recipe.method == "b"


def test_more_sizes_that_are_right_come_first() -> None:
    results = [result("a", WRONG, sizes=1), result("b", WRONG, sizes=3), result("c", WRONG, sizes=3)]
    assert choose(results).recipe.method == "b"


def test_the_verdict_comes_before_all() -> None:
    results = [result("a", RIGHT, sizes=3), result("b", WRONG, verdict=Verdict.UNPROVEN)]
    assert choose(results).recipe.method == "b"


@pytest.mark.parametrize(
    ("checks", "tried"),
    [
        ((WRONG, SIZE_WRONG), True),
        ((RIGHT, SIZE_WRONG), False),  # MNN's fault: the export follows the size
        ((WRONG,), False),
    ],
)
def test_scripting_is_tried_where_a_size_froze(checks: tuple[Check, ...], tried: bool) -> None:
    survey = Survey(signature=Signature((), (), ()), cases=[], checks=[], noise={})
    assert skip(SCRIPT, Request(source="net.py:make"), survey, [result("onnx-trace", *checks)]) is not tried


def about(check: Check, batch: DimRecord) -> Manifest:
    """The manifest of a proof of one dimension, of which *check* is all that there is."""
    manifest = golden("proven")
    signature = msgspec.structs.replace(manifest.signature, dims={"batch": batch})
    return msgspec.structs.replace(manifest, evidence=[check], signature=signature)


@pytest.mark.parametrize(("low", "high"), [(1, 8), (None, None)])
def test_a_range_that_was_given_is_not_asked_for(low: int | None, high: int | None) -> None:
    check = catalog.DIMENSION.of("batch").not_run("not run")
    manifest = about(check, DimRecord(min=low, max=high, proven=[]))
    found = next(o for o in digest.obstacles_of(manifest) if o.check == "dimension:batch")
    row = catalog.DIMENSION.row
    assert found.remedy == (row.if_not_run if low is None else row.if_followed)
    assert row.if_followed


def test_a_size_that_is_wrong_keeps_its_advice() -> None:
    check = catalog.DIMENSION.of("batch").failed("wrong at 2")
    manifest = about(check, DimRecord(min=1, max=8, proven=[]))
    found = next(o for o in digest.obstacles_of(manifest) if o.check == "dimension:batch")
    assert (found.status, found.remedy) == (Status.FAILED, catalog.DIMENSION.row.if_failed)


def test_a_number_without_dimensions_stays_an_array() -> None:
    """NumPy gives scalars for what it computes of them, and torch takes none."""
    moved = nudged({"s": np.array(2, np.float32), "i": np.array(3)}, 0)
    assert all(isinstance(array, np.ndarray) and array.shape == () for array in moved.values())
    assert moved["s"].dtype == np.float32
    assert 0 < abs(float(moved["s"]) - 2) < 1e-6


def test_other_values_of_a_number_stay_an_array() -> None:
    pytest.importorskip("torch")
    from mnnprep.formats.torch.net import other_values

    moved = other_values({"s": np.array(2, np.float32), "x": np.array([1, 3], np.float32)})
    assert all(isinstance(array, np.ndarray) and array.dtype == np.float32 for array in moved.values())
    assert [array.tolist() for array in moved.values()] == [2.0, [2.0, 3.0]]
