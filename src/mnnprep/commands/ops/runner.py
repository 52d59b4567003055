"""Cases through MNN, each stage in a process of its own, many on a few warm workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import msgspec

from mnnprep.conformance.messages import (
    Checked,
    ChecksJob,
    Collected,
    CollectJob,
    ConformanceCase,
    Judged,
    OracleJob,
    Outcome,
    Status,
    Variant,
)
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.mnn.frontends import FRONTENDS, FrontendsJob
from mnnprep.mnn.worker import CONVERTER, DIRTY_MEMORY, RUNTIME
from mnnprep.model.files import sha256
from mnnprep.repair.steps import REPAIR, Repaired, RepairJob
from mnnprep.repair.table import applicable
from mnnprep.targets.environment import with_engine
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.step import Step, Worker

ONNX = Worker(
    "the cases of ONNX",
    ("numpy", "onnx", "onnx_ir", "mnnprep.repair.steps", "onnx_ir.passes.common.shape_inference"),
)
CLEAN = Worker("MNN", (*CONVERTER.imports, *RUNTIME.imports, "mnnprep.commands.ops.oracle"))
DIRTY = replace(CLEAN, environment=DIRTY_MEMORY)
COLLECT = Step("mnnprep.commands.ops.collect", "collect", CollectJob, Collected, ONNX)
CHECK = Step("mnnprep.commands.ops.collect", "check_all", ChecksJob, Checked, ONNX)
ORACLE = Step("mnnprep.commands.ops.oracle", "judge", OracleJob, Judged, CLEAN)
SECONDS = 15.0
COLLECT_SECONDS = 600.0


class Runner:
    """The workers of a measurement: use as a context manager.

    ``scratch`` is a directory for what the cases leave for a moment. ``engine`` is the version of MNN that
    runs them and, but for ``by_installed``, converts them; empty: the installed one.

    Raises:
        Unavailable: this engine is not here.
    """

    def __init__(self, scratch: Path, engine: str = "", *, by_installed: bool = False) -> None:
        self.scratch = scratch
        self._clean = Host(with_engine(CLEAN, engine), scratch=scratch)
        self._dirty = Host(with_engine(DIRTY, engine), scratch=scratch)
        self._onnx = Host(ONNX, scratch=scratch)
        self._converter = Host(CONVERTER, scratch=scratch) if by_installed else None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in (self._clean, self._dirty, self._onnx, self._converter):
            if host is not None:
                host.close()

    def collect(self, directory: Path, variant: Variant) -> list[ConformanceCase]:
        """Write the cases of *variant* to *directory*."""
        directory.mkdir(parents=True, exist_ok=True)
        job = CollectJob(directory=str(directory), variant=variant)
        return self._onnx.run(COLLECT, job, timeout=COLLECT_SECONDS).value.cases

    @cached_property
    def supported(self) -> list[str]:
        """The operators that the converter's ONNX frontend lists."""
        return self._clean.run(FRONTENDS, FrontendsJob(), timeout=SECONDS).value.names["ONNX"]

    def convert(self, case: ConformanceCase, rules: list[str]) -> Outcome:
        """Convert the case, repaired by *rules* if they find something, and ask the oracle.

        It is asked twice if it says right.
        """
        route = "repaired" if rules else "raw"
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            model, fired = case.model, list[str]()
            if rules:
                try:
                    repaired = self._repair(case, rules, Path(directory))
                except StepFailed as failure:
                    return outcome(case, route, "run error", "repair", described(failure))
                fired = [f.rule for f in repaired.fired]
                model = repaired.files[0].path if repaired.files else model
            for stage, host in (("", self._clean), ("again", self._dirty)):
                status, where, detail = self._once(case, model, host, Path(directory))
                if status != "right":
                    return outcome(case, route, status, stage or where, detail, fired)
            return outcome(case, route, "right", rules=fired)

    def repaired(self, case: ConformanceCase, rules: list[str], raw: Outcome) -> Outcome:
        """:meth:`convert` with *rules*; if none finds its pattern, what was *raw* stands."""
        if not applicable(rules, operators_in(Path(case.model))):
            return msgspec.structs.replace(raw, route="repaired")
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            try:
                fired = self._repair(case, rules, Path(directory)).fired
            except StepFailed as failure:
                return outcome(case, "repaired", "run error", "repair", described(failure))
        return self.convert(case, rules) if fired else msgspec.structs.replace(raw, route="repaired")

    def check(self, cases: Sequence[ConformanceCase], supported: list[str]) -> list[list[str]]:
        """Return, per case, the rules that find it wrong, crashing or refused.

        ``supported`` are the operators that the converter lists.
        """
        job = ChecksJob(models=[case.model for case in cases], supported=supported)
        return self._onnx.run(CHECK, job, timeout=COLLECT_SECONDS).value.rules

    def oracle(self, case: ConformanceCase, model: str, names: dict[str, str]) -> tuple[Status, str]:
        """Ask the oracle about a converted model, in clean and in dirty memory."""
        for host in (self._clean, self._dirty):
            status, detail = self._judge(case, model, host, names)
            if status != "right":
                return status, detail
        return "right", ""

    def _repair(self, case: ConformanceCase, rules: list[str], directory: Path) -> Repaired:
        target = directory / "repaired"
        target.mkdir()
        job = RepairJob(model=case.model, directory=str(target), rules=rules, supported=self.supported)
        return self._onnx.run(REPAIR, job, timeout=SECONDS).value

    def _once(
        self, case: ConformanceCase, model: str, host: Host, directory: Path
    ) -> tuple[Status, str, str]:
        job = ConvertJob(model=model, frontend="ONNX", uuid_seed=sha256(model), directory=str(directory))
        try:
            converted = (self._converter or host).run(CONVERT, job, timeout=SECONDS).value
        except StepFailed as failure:
            return fate(failure), "convert", described(failure)
        if converted.file is None:
            return "refused", "convert", converted.reason
        if case.unfed:
            return "unfed", "run", case.unfed
        status, detail = self._judge(case, converted.file.path, host, {})
        return status, "run", detail

    def _judge(
        self, case: ConformanceCase, model: str, host: Host, names: dict[str, str]
    ) -> tuple[Status, str]:
        job = OracleJob(
            model=model, data=case.data, inputs=list(case.inputs), outputs=list(case.outputs), names=names
        )
        try:
            judged = host.run(ORACLE, job, timeout=SECONDS).value
        except StepFailed as failure:
            return fate(failure), described(failure)
        return judged.status, judged.detail


def fate(failure: StepFailed) -> Status:
    """Return the status of a case whose step ended in *failure*."""
    return {"time": "timeout", "error": "run error"}.get(failure.fate, "crash")  # type: ignore[return-value]


def described(failure: StepFailed) -> str:
    """Return the reason for *failure*, or the message of its error and the value seen (300 characters)."""
    return failure.reason if failure.error is None else f"{failure.error.what}: {failure.error.seen}"[:300]


def outcome(
    case: ConformanceCase,
    route: str,
    status: Status,
    stage: str = "",
    detail: str = "",
    rules: list[str] | None = None,
    verdict: str = "",
) -> Outcome:
    """Return the outcome of *case* on *route*, with the stage it ended at and the rules applied."""
    return Outcome(
        case=case.name,
        variant=case.variant,
        route=route,
        operator=case.operator,
        expanded=case.expanded,
        opset=case.opset,
        dtype=case.dtype,
        status=status,
        stage=stage,
        detail=detail,
        rules=rules or [],
        verdict=verdict,
    )


def resumed(path: Path) -> dict[tuple[str, str, str], Outcome]:
    """Return the outcomes of an interrupted measurement, by variant, route and case.

    A last line that was cut off is left out.
    """
    if not path.exists():
        return {}
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Outcome))
        except msgspec.DecodeError:
            continue
    return {(o.variant, o.route, o.case): o for o in found}


def measure(
    cases: Iterable[ConformanceCase], run: Callable[[ConformanceCase], Outcome], *, jobs: int
) -> Iterator[Outcome]:
    """*run* on every case, *jobs* at a time; outcomes in the cases' order."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run, cases)
