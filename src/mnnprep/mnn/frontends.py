"""The step that asks a converter whether it loads and which frontends it was built with."""

from __future__ import annotations

import re
import signal
import subprocess

import msgspec

from mnnprep import deps
from mnnprep.mnn import convert
from mnnprep.mnn.capture import captured
from mnnprep.mnn.worker import CONVERTER
from mnnprep.model.reach import ProgramPath
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

OPERATOR_LINE = re.compile(r"\w+$")


class FrontendsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Ask ``converter``, the path of an executable that takes MNNConvert's options.

    Empty stands for the MNN package's.
    """

    converter: ProgramPath = ""
    timeout: float = 60.0


class Frontends(msgspec.Struct, frozen=True, kw_only=True):
    """The registered operators: ``operators`` counts them by frontend, ``names`` lists them.

    A frontend that is not there has no entry.

    ``reason`` says why the converter could not be asked; empty when it could.
    """

    operators: dict[str, int] = msgspec.field(default_factory=dict)
    names: dict[str, list[str]] = msgspec.field(default_factory=dict)
    reason: str = ""


def frontends(job: FrontendsJob) -> Frontends:
    """Ask for the operators of each frontend (``-f NAME --OP``).

    Runs in a worker, for the converter may crash.
    """
    operators: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for name in convert.FRONTENDS:
        if name == "MNN":
            continue  # every converter rewrites its own format
        doing(f"asking the converter for its {name} frontend")
        with captured() as printed:
            fate = ask(job, ["-f", name, "--OP"])
        if fate:
            return Frontends(reason=fate)
        count = operator_count(printed.text)
        if convert.has_frontend(printed.text) and count:
            operators[name] = count
            names[name] = operator_names(printed.text)
    return Frontends(
        operators=operators,
        names=names,
        reason="" if operators else "it answered, but named no operator of any frontend",
    )


class OperatorsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Name the operators that ``converter`` (as in :class:`FrontendsJob`) has registered for ``frontend``."""

    frontend: str
    converter: ProgramPath = ""


class Operators(msgspec.Struct, frozen=True, kw_only=True):
    """``names`` in the frontend's own words; none if the converter does not tell."""

    names: list[str]


def operators(job: OperatorsJob) -> Operators:
    """Ask for the operators of one frontend; runs in a worker, for the converter may crash."""
    with captured() as printed:
        fate = ask(FrontendsJob(converter=job.converter), ["-f", job.frontend, "--OP"])
    listed = [line.strip() for line in printed.text.splitlines() if OPERATOR_LINE.match(line)]
    return Operators(names=[] if fate or len(listed) != operator_count(printed.text) else listed)


def ask(job: FrontendsJob, argv: list[str]) -> str:
    """Run the job's converter, its output going to this process's.

    Returns what speaks against it, or empty.
    """
    if not job.converter:
        deps.require("_tools").mnnconvert(["MNNConvert", *argv])
        return ""
    try:
        done = subprocess.run(
            [job.converter, *argv], stdin=subprocess.DEVNULL, timeout=job.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {job.timeout:g} s"
    except OSError as error:
        return f"it could not be started: {error.strerror}"
    return f"it crashed with {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""


def operator_count(printed: str) -> int:
    """The number after ``Total:``, which ends a list of operators; 0 when there is none."""
    numbers = [line.partition(":")[2].strip() for line in printed.splitlines() if line.startswith("Total:")]
    return int(numbers[-1]) if numbers and numbers[-1].isdigit() else 0


def operator_names(printed: str) -> list[str]:
    """The lines between the one that begins with ``Dump`` and ``Total:``, sorted."""
    lines = printed.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("Dump ")]
    ends = [number for number, line in enumerate(lines) if line.startswith("Total:")]
    return (
        sorted({line.strip() for line in lines[starts[-1] + 1 : ends[-1]] if line.strip()})
        if starts and ends
        else []
    )


FRONTENDS = Step.of(frontends, CONVERTER)
OPERATORS = Step.of(operators, CONVERTER)


def listed_operators(workers: Workers, converter: str) -> list[str] | None:
    """The operators that the *converter* (a path; empty: the MNN package's) lists for ONNX.

    None if it can't be asked.
    """
    try:
        return workers.run(FRONTENDS, FrontendsJob(converter=converter)).names.get("ONNX")
    except StepFailed:
        return None
