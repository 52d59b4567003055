"""The noise of the cases that a comparison finds wrong: measured then, if the survey had no reason to."""

from __future__ import annotations

from mnnprep.evidence.check import Check
from mnnprep.formats.backend import SourceSteps
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import InputSpecs, ReplayJob, Source, Survey
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers


def learn_noise(
    workers: Workers, steps: SourceSteps, source: Source, wants: InputSpecs, survey: Survey, check: Check
) -> bool:
    """Measure the rounding noise of the source in the cases whose numbers *check* found wrong.

    The noise goes into the survey. Returns False if nothing is new.

    An error is a difference only if it exceeds the noise of its own case.
    """
    wrong = {e.case for e in check.outputs if e.problem and e.max_abs is not None}
    count = len(survey.cases)
    unknown = [
        c
        for c in survey.cases
        if c.index in wrong and not any(_known(survey, name, c.index) for name in survey.noise)
    ]
    if not unknown or steps.replay is None or not survey.noise:
        return False
    job = ReplayJob(
        source=source,
        wants=wants,
        cases=unknown,
        signature=survey.signature,
        directory=str(workers.directory("noise")),
        noise=True,
    )
    try:
        found = workers.run(steps.replay, job).ran.outputs
    except StepFailed:
        return False
    for key, file in found.items():
        for name, noise in load_arrays(file.path).items():
            floors = survey.noise.setdefault(name, [None] * count)
            if isinstance(floors, list):
                floors[int(key)] = float(noise)
    return True


def _known(survey: Survey, name: str, case: int) -> bool:
    floors = survey.noise[name]
    return not isinstance(floors, list) or floors[case] is not None
