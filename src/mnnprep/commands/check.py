"""`check`: what MNN will refuse, crash on, or get wrong in a model, read from the file.

No code of the model runs; for a target at low precision the graph of an ONNX file does, in a confined worker.

An ONNX file is read by the hazard rules, in a worker; of other formats the operators are compared with the
list that MNN's frontend prints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep.commands.check_engines import on_engines
from mnnprep.commands.check_report import CheckReport, Hazard, Measured
from mnnprep.commands.check_target import LowReport, low_report
from mnnprep.commands.reading import SECONDS, PathJob, require_text, run_bounded
from mnnprep.conformance.page import scores
from mnnprep.conformance.table import load_table
from mnnprep.errors import UsageError
from mnnprep.formats.backend import SourceKind
from mnnprep.formats.registry import kind_of
from mnnprep.formats.sniff import identify, require_there
from mnnprep.mnn.frontends import FRONTENDS, FrontendsJob
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import Limits, Request
from mnnprep.model.target import Target, texts_of
from mnnprep.repair.low_hazards.step import LowFindings
from mnnprep.repair.steps import CHECK, CHECKER, CheckJob, Finding, Findings
from mnnprep.repair.table import RULES
from mnnprep.safety.damage import reading
from mnnprep.safety.leftovers import Scratch
from mnnprep.safety.printable import textual
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.step import Step, reader

ASKING_SECONDS = 600.0  # for MNN's own lists
LEFT_OUT = frozenset({"Input", "Const", "Placeholder"})  # what no frontend needs a name for
UNREAD = "unsupported-operator"
EFFECT = "side-effect"


class Counted(msgspec.Struct, frozen=True):
    """A model's kind and how often each of its operators is in it.

    None for a kind whose operators stand in no file, and for ONNX.
    """

    kind: str
    operators: dict[str, int]


def check_file(
    path: str | Path,
    *,
    rules_only: bool = False,
    limits: Limits | None = None,
    targets: tuple[Target, ...] = (),
    wants: InputSpecs | None = None,
) -> CheckReport:
    """Check the model file at *path*.

    ONNX is checked by the hazard rules; TFLite, TensorFlow graphs and Caffe networks by their operators.

    With *rules_only* the conformance table is left out: it adds hints, and no finding.  The file is read in a
    worker, each of its two steps within *limits* (a minute, and three quarters of the free memory).

    For *targets* that compute in half precision, an ONNX graph is run on the inputs that *wants* declares,
    within ten times the time: its values say what that breaks.

    Raises:
        UsageError: there is nothing at *path*, or it is a kind of source whose operators stand in no file.
        RefusedError: it is not a model, or a damaged one, or takes more than *limits*.
    """
    require_there(path)
    absolute = Path(os.path.abspath(path))
    limits = limits or Limits(timeout=SECONDS)
    likely = CHECKER if absolute.suffix.lower() == ".onnx" else COUNT.worker
    with Scratch() as scratch, Host(likely, scratch=scratch) as host:
        counted = run_bounded(host, COUNT, PathJob.of(absolute), absolute, limits)
        kind = kind_of(counted.kind)
        low = LowReport()
        if targets:
            request = Request(source=str(absolute), wants=wants or InputSpecs(), limits=limits)
            low = low_report(request, targets, by_rules=kind.by_rules)
        if kind.by_rules:
            require_text(absolute)
            report = _check_by_rules(host, kind, path, absolute, rules_only, limits, low.found)
            report = on_engines(report, targets)
        else:
            report = _check_operators(str(path), kind, counted.operators)
    return msgspec.structs.replace(report, targets=list(texts_of(targets)), notes=[*report.notes, *low.notes])


def count(job: PathJob) -> Counted:
    """The first step of :func:`check_file`: the kind, and the operators if there are no rules for it.

    Raises as that.
    """
    path = Path(job.path)
    kind = kind_of(identify(path))
    with reading(path, kind.title):
        if kind.require_loadable:
            kind.require_loadable(path)
        return Counted(kind.name, textual(kind.operators(path)) if kind.operators else {})


COUNT = Step.of(count, reader(__name__))


def _check_operators(path: str, kind: SourceKind, operators: dict[str, int]) -> CheckReport:
    if not kind.operators:
        raise UsageError(
            f"check reads ONNX, TFLite, TensorFlow graphs and Caffe networks, and this is a {kind.title}",
            seen=path,
            next="prepare it, and check the artifact in the bundle",
        )
    supported = supported_operators().get(kind.frontend)
    hazards = [
        Hazard(
            rule=UNREAD,
            severity="refused",
            hazard=f"MNN's {kind.frontend} frontend does not list this operator",
            node=name,
            operator=name,
            detail=f"{count} times" if count > 1 else "",
            remedy="prepare it with --to onnx, or express it with other operators",
        )
        for name, count in operators.items()
        if supported is not None and name not in supported and name not in LEFT_OUT
    ]
    if kind.side_effects:
        hazards = _effects(kind.side_effects(operators), operators) + hazards
    return CheckReport(
        path=path,
        kind=kind.name,
        opset=None,
        mnn=_version(supported),
        operators=operators,
        hazards=hazards,
    )


def _effects(names: list[str], counts: Mapping[str, int]) -> list[Hazard]:
    """The operators that are not known to compute alone."""
    return [
        Hazard(
            rule=EFFECT,
            severity="refused",
            hazard="this operator may do more than compute",
            node=name,
            operator=name,
            detail=f"{counts[name]} times" if counts[name] > 1 else "",
            remedy="prepare it with --trust if you trust where it comes from",
        )
        for name in names
    ]


def _check_by_rules(
    host: Host,
    kind: SourceKind,
    path: str | Path,
    absolute: Path,
    rules_only: bool,
    limits: Limits,
    low: LowFindings | None,
) -> CheckReport:
    supported = supported_operators().get("ONNX")
    job = CheckJob(
        model=str(absolute),
        supported=sorted(supported) if supported is not None else None,
        low=low is not None,
        magnitudes=low.magnitudes if low is not None else {},
    )
    found = run_bounded(host, CHECK, job, absolute, limits)
    rules = {rule.name: rule for rule in RULES}

    def by_values(finding: Finding) -> bool:
        """Whether a rule for low precision found it by what values are, of which the run tells more."""
        return bool(rules[finding.rule].target) and finding.severity == "narrowed"

    hazards = [
        Hazard(
            rule=f.rule,
            severity="wrong" if low is not None and rules[f.rule].target else f.severity,
            hazard=rules[f.rule].hazard,
            remedy=rules[f.rule].remedy,
            node=f.node,
            operator=f.operator,
            detail=f.detail,
            source=f.source,
            repaired=f.repaired,
        )
        for f in found.findings
        if not by_values(f)
    ]
    if low is not None:
        told = {h.node for h in hazards if rules[h.rule].target}
        repaired = {f.node for f in found.findings if by_values(f) and f.repaired}
        hazards += _low_hazards(low, told, repaired)
    return CheckReport(
        path=str(path),
        kind=kind.name,
        opset=found.opset,
        mnn=_version(supported),
        operators=found.operators,
        hazards=hazards,
        measured=[] if rules_only else _measured(found),
    )


def _low_hazards(low: LowFindings, told: set[str], repaired: set[str]) -> list[Hazard]:
    """The findings of the run, without those of nodes that a rule for low precision has *told* of.

    ``prepare`` has a rewrite for those that are in *repaired*.
    """
    return [
        Hazard(
            rule=f.rule,
            severity="wrong",
            hazard=f.hazard,
            remedy=f.remedy,
            node=f.node,
            operator=f.operator,
            detail=f.detail,
            source=f.source,
            repaired=f.node in repaired,
        )
        for f in low.findings
        if f.node not in told
    ]


def _measured(found: Findings) -> list[Measured]:
    """Return the operators without a finding that MNN gets right in some of ONNX's cases only.

    The table for this MNN says so.
    """
    table = load_table()
    if table is None:
        return []
    told = {f.operator for f in found.findings}
    rows = [
        s
        for s in scores(table)
        if s.operator in found.operators and s.operator not in told and s.right < s.cases
    ]
    return [Measured(operator=s.operator, cases=s.cases, right=s.right) for s in rows]


def _version(supported: frozenset[str] | None) -> str:
    return (deps.version("MNN") or "") if supported is not None else ""


def supported_operators() -> Mapping[str, frozenset[str]]:
    """Return the operators that each frontend of the installed converter reads.

    They come from the table for this MNN, else from a worker that asks; empty without MNN.
    """
    table = load_table()
    if table is not None:
        return {name: frozenset(operators) for name, operators in table.frontends.items()}
    if not deps.installed("_tools"):
        return {}
    with Scratch() as scratch, Host(FRONTENDS.worker, scratch=scratch) as host:
        try:
            answer = host.run(FRONTENDS, FrontendsJob(), timeout=ASKING_SECONDS).value
        except StepFailed:
            return {}
    return {name: frozenset(operators) for name, operators in answer.names.items()}
