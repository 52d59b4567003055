"""`ops --measure`: ONNX's own cases through the MNN that is installed, into a table of operators.

Resumable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.commands.ops.runner import Runner, measure, resumed
from mnnprep.conformance.messages import ConformanceCase, Outcome, Variant
from mnnprep.conformance.table import OperatorTable, cache_directory, machine, rows_of, save_table
from mnnprep.mnn.frontends import FRONTENDS, FrontendsJob
from mnnprep.repair.table import all_rules
from mnnprep.safety.leftovers import Scratch
from mnnprep.targets.environment import engine_workers
from mnnprep.text import Progress
from mnnprep.workers.host import Host

VARIANTS: tuple[Variant, ...] = ("fed", "frozen")
EVERY = 200  # cases between two lines of progress


def measure_table(*, jobs: int, tell: Progress, keep: Path | None = None, engine: str = "") -> OperatorTable:
    """Run every case, as it is and repaired, in MNN of the version *engine*; empty: the installed one.

    Outcomes that *keep* (JSON lines) has already are not measured again.

    Without *keep* they stand in the user's cache directory, named by MNN, machine and mnnprep.

    Raises:
        RefusedError: MNN or onnx is not installed, or this engine is not here.
    """
    installed, onnx = (_required(module) for module in ("MNN", "onnx"))
    mnn = engine or installed
    asked = engine_workers(engine).get(FRONTENDS.worker, FRONTENDS.worker)
    keep = keep or cache_directory() / f"outcomes-{mnn}-{machine()}-{__version__}.jsonl"
    keep.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with Scratch() as scratch, keep.open("ab") as file:
        with Host(asked, scratch=scratch) as host:
            frontends = host.run(FRONTENDS, FrontendsJob(), timeout=120).value.names

        def note(outcome: Outcome, number: int, total: int) -> None:
            outcomes.append(outcome)
            file.write(msgspec.json.encode(outcome) + b"\n")
            file.flush()
            if number % EVERY == 0 or number == total:
                tell(f"{outcome.variant}, {outcome.route}: {number} of {total}")

        with Runner(scratch, engine) as runner:
            for variant in VARIANTS:
                done = resumed(keep)
                cases = runner.collect(scratch / variant, variant)
                left = [case for case in cases if (variant, "raw", case.name) not in done]
                for number, outcome in enumerate(
                    measure(left, lambda case: runner.convert(case, []), jobs=jobs), 1
                ):
                    note(outcome, number, len(left))
                raw = resumed(keep)
                left = [case for case in cases if (variant, "repaired", case.name) not in done]
                again = measure(left, _repaired(runner, raw), jobs=jobs)
                for number, outcome in enumerate(again, 1):
                    note(outcome, number, len(left))
    rows = rows_of(resumed(keep).values())
    return OperatorTable(
        mnn=mnn, mnnprep=__version__, machine=machine(), onnx=onnx, frontends=frontends, rows=rows
    )


def measure_and_keep(*, jobs: int, tell: Progress, engine: str = "") -> Path:
    """:func:`measure_table` into the user's cache directory, where `ops` and `check` find it; its path."""
    return save_table(measure_table(jobs=jobs, tell=tell, engine=engine), cache_directory())


def _repaired(
    runner: Runner, raw: dict[tuple[str, str, str], Outcome]
) -> Callable[[ConformanceCase], Outcome]:
    """Convert a case with all rules; *raw* are the outcomes without."""
    return lambda case: runner.repaired(case, all_rules(), raw[case.variant, "raw", case.name])


def _required(module: str) -> str:
    version = deps.version(module)
    if version is None:
        raise deps.missing(module)
    return version
