"""Runs of some cases: those that a process survives, parts of one run, several as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.workers.failure import StepFailed, describe

Ran = TypeVar("Ran", bound=RunResult)
RunOn = Callable[[list[CaseFile]], RunResult]


def isolated(run: RunOn, cases: list[CaseFile], who: str) -> RunResult:
    """*run* on *cases*; where its process dies, on halves of them, so that one that it dies of is an error.

    Raises:
        StepFailed: the machine or a limit stood in the way.
    """
    if not cases:
        return RunResult()
    try:
        return run(cases)
    except StepFailed as failure:
        if failure.unable:
            raise
        if len(cases) == 1:
            return RunResult(errors={str(cases[0].index): f"{who} {describe(failure)}"})
    middle = len(cases) // 2
    return joined(isolated(run, cases[:middle], who), isolated(run, cases[middle:], who))


def joined(first: Ran, second: RunResult) -> Ran:
    """Both runs as one, with the settings of the first."""
    return msgspec.structs.replace(
        first,
        outputs={**first.outputs, **second.outputs},
        errors={**first.errors, **second.errors},
        narrowed={**first.narrowed, **second.narrowed},
        narrowed_inputs={**first.narrowed_inputs, **second.narrowed_inputs},
    )


def only(ran: RunResult, index: int, renamed: int) -> RunResult:
    """What *ran* says of the case *index*, which is called *renamed*."""
    key, name = str(index), str(renamed)
    return msgspec.structs.replace(
        ran,
        outputs={name: ran.outputs[key]} if key in ran.outputs else {},
        errors={name: ran.errors[key]} if key in ran.errors else {},
    )
