"""The steps that look for hazards in an ONNX model and repair it by rules; they run in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mnnprep.deps import require
from mnnprep.errors import MnnprepError, UsageError
from mnnprep.formats.onnx.constant_growth import require_bounded
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.onnx.sound import label, not_allowed, require_sound
from mnnprep.formats.onnx.steps import save
from mnnprep.model.files import FileRef
from mnnprep.model.magnitudes import Magnitude
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.repair.rule import Match, Rule, Severity
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, scopes, source_line
from mnnprep.repair.table import RULES, all_rules, always_rules, low_rules
from mnnprep.safety import damage
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step, Worker

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["AppliedRule", "RepairJob", "Repaired", "all_rules", "always_rules", "low_rules", "repair"]


class RepairJob(msgspec.Struct, frozen=True, kw_only=True):
    """Apply ``rules`` (names, applied in table order) to the ONNX file ``model``.

    ``directory`` is the step's own, not the model's.

    ``supported`` are the operators that the converter at hand reads; if it was not asked (None), none is
    written out for want of it.

    ``magnitudes`` are those of the model's values, by name, as a run of it measured them; a rule that needs
    one that is not there leaves the place alone.
    """

    model: ReadPath
    directory: WritePath
    rules: list[str]
    supported: list[str] | None = None
    magnitudes: dict[str, Magnitude] = msgspec.field(default_factory=dict)


class AppliedRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that rewrote something.

    It has the hazard it answers, whether the rewrite is exact, and the nodes, each as operator and name.
    """

    rule: str
    hazard: str
    exact: bool
    nodes: list[str]


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """The repaired model, ``files[0]``, and its external data if the source had any.

    No files if nothing fired.
    """

    files: list[FileRef] = msgspec.field(default_factory=list)
    fired: list[AppliedRule] = msgspec.field(default_factory=list)


class CheckJob(msgspec.Struct, frozen=True, kw_only=True):
    """Look for the hazards of the ONNX file ``model``.

    ``supported`` are the operators that the converter at hand reads (None: not asked). ``low``: those too
    that values decide at precision ``low``, by the ``magnitudes`` that were measured.
    """

    model: ReadPath
    supported: list[str] | None = None
    low: bool = False
    magnitudes: dict[str, Magnitude] = msgspec.field(default_factory=dict)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the model that MNN gets wrong, refuses, crashes on or narrows.

    ``node`` is its operator and name, or the name of a value; ``detail`` the form of the hazard; ``source``
    the line of the model's own code (``file:line``) where the exporter left one; ``repaired`` tells whether
    ``prepare`` has a rewrite for it.
    """

    rule: str
    severity: Severity
    node: str
    operator: str
    detail: str
    source: str
    repaired: bool


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """``operators`` counts the model's operators; one of another domain as ``domain::Type``."""

    findings: list[Finding]
    operators: dict[str, int]
    opset: int

    @property
    def known_wrong_at_low(self) -> list[Finding]:
        """What MNN computes wrong at precision ``low`` on CPUs with half precision, whatever the values."""
        return [found for found in self.findings if found.severity == "low"]


def check(job: CheckJob) -> Findings:
    """Return every place of the model that a rule finds, in the order of the rules.

    Nothing of the model is run or changed.

    Raises:
        RefusedError: the file is damaged, or its graph is not one that ONNX allows.
    """
    doing("reading the model to check")
    path = Path(job.model)
    with damage.reading(path, "ONNX model"):
        require_bounded(skeleton(path), path.name)
        model = require("onnx_ir").load(job.model)
        require_sound(model, path.name)
    supported = frozenset(job.supported) if job.supported is not None else None
    view = ModelView(model, supported, job.magnitudes)
    findings = []
    for rule in RULES:
        if rule.preparation or (rule.target and rule.severity != "low" and not job.low):
            continue
        doing(f"looking for {rule.name}")
        try:
            findings += [_finding(rule, match) for match in rule.find(view)]
        except (MnnprepError, MemoryError, *damage.DEFECTS):
            raise
        except Exception as error:
            _require_valid(path, error)
            raise
    counts: dict[str, int] = {}
    for node, _ in view.everything:
        name = node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"
        counts[name] = counts.get(name, 0) + 1
    return Findings(
        findings=findings,
        operators=dict(sorted(counts.items())),
        opset=next(opset for _, opset in scopes(model)),
    )


class KnownJob(msgspec.Struct, frozen=True, kw_only=True):
    """Look in the ONNX file ``model`` for what is wrong at precision ``low``, whatever the values."""

    model: ReadPath


def known_wrong(job: KnownJob) -> Findings:
    """The places of a model that mnnprep itself has written, or accepted, that are wrong at ``low``."""
    doing("looking for what is wrong at precision low")
    model = require("onnx_ir").load(job.model)
    view = ModelView(model)
    rules = [rule for rule in RULES if rule.severity == "low"]
    found = [_finding(rule, match) for rule in rules for match in rule.find(view)]
    return Findings(findings=found, operators={}, opset=next(opset for _, opset in scopes(model)))


def _require_valid(path: Path, met: Exception) -> None:
    """Tell a damaged model from a rule of ours that fails.

    ONNX's own checker, with its inference of types and shapes, decides.

    A rule that can't read a graph must not pass for one that found nothing.

    Raises:
        RefusedError: the checker finds fault with the model.
    """
    checker = require("onnx.checker")
    try:
        checker.check_model(str(path), full_check=True)
    except Exception as error:
        first = f"{error}".strip().split("\n", 1)[0]
        raise not_allowed(f"{path.name}: {first}") from met


def _finding(rule: Rule[Any], match: Match[Any]) -> Finding:
    node = None if isinstance(match.at, str) else match.at
    return Finding(
        rule=rule.name,
        severity=rule.severity,
        node=label(node) if node is not None else str(match.at),
        operator="" if node is None else node.op_type,
        detail=match.detail,
        source="" if node is None else source_line(node),
        repaired=rule.rewrite is not None and match.repairable,
    )


def repair(job: RepairJob) -> Repaired:
    """Write the model as the rules rewrite it, or nothing if none finds its pattern.

    The same model and rules give the same bytes.  The names of inputs, outputs and initializers stay.

    Raises:
        UsageError: a name is not that of a rule.
    """
    rewriting = [*all_rules(), *low_rules()]
    unknown = sorted(set(job.rules) - set(rewriting))
    if unknown:
        raise UsageError(
            "there is no such repair rule",
            seen=", ".join(unknown),
            next=f"use one of: {', '.join(rewriting)}",
        )
    doing("reading the model to repair")
    model = require("onnx_ir").load(job.model)
    fired = []
    supported = frozenset(job.supported) if job.supported is not None else None
    view = ModelView(model, supported, job.magnitudes)
    for rule in RULES:
        if rule.rewrite is None or rule.name not in job.rules:
            continue
        doing(f"applying the repair {rule.name}")
        nodes: list[str] = []
        while rewrote := rewrite(rule, view):  # again: a rewrite can tell the shapes of what is behind it
            nodes += rewrote
            view = ModelView(model, supported, job.magnitudes)
        if nodes:
            fired.append(
                AppliedRule(rule=rule.name, hazard=rule.hazard, exact=rule.rewrite.exact, nodes=nodes)
            )
    if not fired:
        return Repaired()
    doing("saving the repaired model")
    return Repaired(files=save(model, Path(job.directory), external=_has_external_data(model)), fired=fired)


def rewrite(rule: Rule[Any], view: ModelView) -> list[str]:
    """Apply *rule* wherever it matches; what it rewrote, each as operator and name."""
    matches = [match for match in rule.find(view) if match.repairable]
    if not matches or rule.rewrite is None:
        return []
    editor = Editor(view, rule.name)
    names = [(match, match.at if isinstance(match.at, str) else label(match.at)) for match in matches]
    return [name for match, name in names if rule.rewrite.apply(editor, match)]


def _has_external_data(model: ir.Model) -> bool:
    external = require("onnx_ir").ExternalTensor
    return any(
        isinstance(value.const_value, external)
        for graph in model.graphs()
        for value in graph.initializers.values()
    )


REPAIRER = Worker(
    "rules",
    (
        "numpy",
        "onnx_ir",
        "onnx_ir.passes.common.shape_inference",
        "onnx.reference.ops._op_list",
        "mnnprep.repair.steps",
    ),
)
CHECKER = Worker("hazards", ("mnnprep.commands.check", "numpy", "onnx_ir"))
REPAIR = Step.of(repair, REPAIRER)
KNOWN_WRONG = Step.of(known_wrong, REPAIRER)
CHECK = Step.of(check, CHECKER)
