"""A model through `prepare` in this process, on workers that serve many, and the oracle."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path

import msgspec

from evaluation.proved.row import Row
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.ops.runner import CLEAN, DIRTY, ORACLE, described, fate
from mnnprep.commands.prepare import prepare
from mnnprep.conformance.messages import OracleJob
from mnnprep.errors import EXIT_INTERNAL, EXIT_NOT_PROVEN, EXIT_PROVEN, MnnprepError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.files import load_arrays, save_arrays
from mnnprep.model.request import DEFAULT_TIME_BUDGET, Limits, Request
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.pool import Workers

SECONDS = 120.0  # for a step of `prepare`
ORACLE_SECONDS = 30.0


class Judge:
    """Prepares models and asks the oracle; one serves one thread, until :meth:`close`.

    *keep* is a directory that the last model's bundle is left in; empty: it is not. *time_budget* is the
    request's.
    """

    def __init__(self, keep: str = "", time_budget: float = DEFAULT_TIME_BUDGET) -> None:
        self._keep, self._time_budget = keep, time_budget
        self._directory = tempfile.TemporaryDirectory(prefix="proved-")
        self.scratch = Path(self._directory.name)
        self._workers = Workers(Limits(timeout=SECONDS))
        self._hosts = [Host(worker, scratch=self.scratch) for worker in (CLEAN, DIRTY)]

    def close(self) -> None:
        """End the workers and remove what they left."""
        self._workers.__exit__(None, None, None)
        for host in self._hosts:
            host.close()
        self._directory.cleanup()

    def judge(self, name: str, group: str, request: Request, fresh: list[Path]) -> Row:
        """Prepare *request* and ask the oracle about it with the arrays in the files *fresh*.

        These hold ``inputs/NAME``, and ``outputs/NUMBER`` in the order in which the source gives them.
        """
        started = time.monotonic()
        self._workers.sweep()
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            target = Path(self._keep or directory) / "bundle"
            request = msgspec.structs.replace(
                request, limits=self._workers.limits, time_budget=self._time_budget
            )
            try:
                manifest = prepare(request, target, workers=self._workers, force=bool(self._keep))
            except MnnprepError as error:
                row = Row(
                    name=name,
                    group=group,
                    verdict="refused",
                    reason=_line(f"{error.what}: {error.seen}"),
                    exit_code=error.exit_code,
                )
            except Exception:  # what the command line calls a defect of mnnprep
                trace = traceback.format_exc()
                row = Row(
                    name=name,
                    group=group,
                    verdict="error",
                    reason=_line(trace.splitlines()[-1]),
                    detail=trace[-2000:],
                    exit_code=EXIT_INTERNAL,
                )
            else:
                row = self._row(name, group, manifest, target, fresh)
        return msgspec.structs.replace(row, seconds=round(time.monotonic() - started, 2))

    def _row(self, name: str, group: str, manifest: Manifest, target: Path, fresh: list[Path]) -> Row:
        required = [c for c in manifest.evidence if c.required and c.status is not Status.PASSED]
        missed = min(required, key=_rank, default=None)
        proven = manifest.verdict is Verdict.PROVEN
        oracle, detail = self._asked(manifest, target, fresh) if proven else ("", "")
        return Row(
            name=name,
            group=group,
            verdict=manifest.verdict.value,
            check=missed.check if missed else "",
            reason=_line(missed.reason) if missed else "",
            method=manifest.artifact.method,
            opset=manifest.artifact.opset,
            rules=[r.rule for r in manifest.artifact.repairs],
            oracle=oracle,
            detail=detail,
            exit_code=EXIT_PROVEN if proven else EXIT_NOT_PROVEN,
        )

    def _asked(self, manifest: Manifest, target: Path, fresh: list[Path]) -> tuple[str, str]:
        """What the oracle says of the first of *fresh* that it does not call right."""
        if not fresh:
            return "unasked", ""
        inputs, outputs = manifest.signature.inputs, manifest.signature.outputs
        for number, path in enumerate(fresh):
            arrays = load_arrays(path)
            stored = {f"inputs/{t.source_name}": arrays[f"inputs/{t.source_name}"] for t in inputs}
            for place, tensor in enumerate(outputs):
                stored[f"outputs/{tensor.source_name}"] = arrays[f"outputs/{place}"]
                if f"noise/{place}" in arrays:
                    stored[f"noise/{tensor.source_name}"] = arrays[f"noise/{place}"]
            data = target.parent / f"fresh-{number}.npz"
            save_arrays(data, stored)
            job = OracleJob(
                model=str(target / "model.mnn"),
                data=str(data),
                inputs=[t.source_name for t in inputs],
                outputs=[t.source_name for t in outputs],
                names={t.source_name: t.mnn_name for t in (*inputs, *outputs)},
            )
            for host in self._hosts:
                try:
                    judged = host.run(ORACLE, job, timeout=ORACLE_SECONDS).value
                except StepFailed as failure:
                    return fate(failure), described(failure)
                if judged.status != "right":
                    return judged.status, judged.detail
        return "right", ""


def _rank(check: Check) -> tuple[bool, bool]:
    """What failed before what was not run; that the inputs prove nothing comes last of those."""
    return check.status is not Status.FAILED, check.check == catalog.VACUITY.name


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
