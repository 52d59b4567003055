"""Which attempts are tried, when no further one can say more, and which is the best."""

from __future__ import annotations

from mnnprep.attempt.results import AttemptResult
from mnnprep.comparison.dimensions import broken_promise
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ExportRecipe
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.model.messages import Survey
from mnnprep.model.request import Request

RANK = {Verdict.PROVEN: 0, Verdict.UNPROVEN: 1, Verdict.DIFFERS: 2, Verdict.REFUSED: 3}


def skip(recipe: ExportRecipe, request: Request, survey: Survey, results: list[AttemptResult]) -> bool:
    """Whether an attempt would say nothing new.

    Other opsets are tried only if MNN alone stood in the way of the earlier one; scripting only for a
    source that decides on data, or where an export froze a size; another format is not tried where the first
    gave an artifact and no converter for the other is at hand.
    """
    if recipe.searches:
        there = [
            r
            for r in results
            if r.exported and r.recipe.method in (recipe.method, "copy") and r.recipe.target == recipe.target
        ]
        refused = request.precision.reduced  # a smaller precision may be all that MNN gets wrong
        hopeful = any(
            r.repairable and (not refused or r.status(catalog.MNN_CONVERT) is Status.FAILED) for r in there
        )
        if not hopeful or recipe.opset in {r.opset for r in there}:
            return True
    if recipe.for_decisions and not (survey.decides or any(r.froze_a_size for r in results)):
        return True
    other = bool(results) and recipe.target != results[0].recipe.target
    convertible = ARTIFACTS[recipe.target].packaged or bool(request.mnnconvert)
    return other and not convertible and any(r.exported for r in results)


def finished(survey: Survey, result: AttemptResult) -> bool:
    """Whether no further attempt can say more than *result* does."""
    lost = hopeless(survey) or any(broken_promise(dim, survey) for dim in survey.signature.dims)
    proven = result.verdict is Verdict.PROVEN or result.right_here  # no export mends a target
    return proven or (result.exported is not None and lost and not improvable(survey, result))


def hopeless(survey: Survey) -> bool:
    """Whether the source alone keeps every attempt from being proven."""
    return any(c.required and c.status is not Status.PASSED for c in survey.checks)


def improvable(survey: Survey, result: AttemptResult) -> bool:
    """Whether another attempt may still be unproven where *result* differs.

    That is so if the source lacks a check, and fails none.
    """
    lacking = all(c.status is not Status.FAILED for c in survey.checks if c.required)
    return lacking and result.verdict is not Verdict.UNPROVEN


def choose(results: list[AttemptResult]) -> AttemptResult:
    """The best attempt: the strongest verdict, then the most that is right, then the earliest.

    An artifact that is right comes before one that is not, and more sizes that passed before fewer.

    Raises:
        RefusedError: no attempt made an artifact.
    """
    made = [r for r in results if r.exported is not None]
    if not made:
        raise RefusedError(
            "no method made an artifact from this source",
            seen="; ".join(f"{r.recipe.method}: {r.reason}" for r in results),
            next="fix the model at the places that the messages name, or choose a method with --method",
        )
    return min(made, key=lambda r: (RANK[r.verdict], not r.right, -r.sizes_right))
