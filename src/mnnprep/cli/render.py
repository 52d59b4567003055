"""The terminal's view of a command: tables of what was prepared, inspected, verified and diagnosed.

Every state is a word, so that nothing hangs on colour; text from a model has its control characters made
visible and is never read as markup.  rich is imported inside the functions: `--help` does without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import Manifest
from mnnprep.bundle.target_view import against_low, engine_spans, wrong_targets
from mnnprep.bundle.worst import Worst
from mnnprep.cli.render_targets import show_targets
from mnnprep.cli.tables import (
    STATUS_STYLES,
    STATUS_WORDS,
    grid,
    pairs,
    section,
    status_word,
    word,
    works_word,
)
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, OutputError, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.safety.printable import one_line
from mnnprep.text import decimal_size, first_line, listed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from mnnprep.commands.compare import Comparison
    from mnnprep.commands.doctor import Doctor
    from mnnprep.commands.verify import Verification

VERDICT_STYLES = {
    Verdict.PROVEN: "bold cyan",
    Verdict.UNPROVEN: "bold yellow",
    Verdict.DIFFERS: "bold magenta",
    Verdict.REFUSED: "bold magenta",
}
OTHER_OPERATORS = 12
LONGEST_VALUE = 400


def show_prepared(console: Console, manifest: Manifest, target: Path) -> None:
    """Show the outcome of `prepare`.

    It names what was tried and what won, errors per output and size, what stands in the way, the files.
    """
    outcome = digest.concluded(manifest)
    _headline(console, outcome, digest.meaning(manifest))
    _attempts(console, manifest)
    _errors(console, manifest.evidence)
    _sizes(console, manifest)
    spans = engine_spans(manifest.evidence, manifest.tools.get("MNN", ""))
    show_targets(console, manifest.evidence, manifest.targets, spans)
    _metrics(console, manifest.evidence)
    _samples(console, manifest.evidence)
    _precision(console, manifest.evidence)
    _obstacles(console, digest.obstacles_of(manifest))
    rows = [(f.path, decimal_size(f.size)) for f in _headliners(manifest)]
    section(console, f"files in {target}", grid(["", ">"], rows))


def show_verification(console: Console, found: Verification, target: Path) -> None:
    """The outcome of `verify`: every check with its answer, errors per output, what stands in the way."""
    outcome, evidence = found.verdict, found.evidence
    words = {
        Verdict.PROVEN: "the bundle was proven again",
        Verdict.UNPROVEN: (
            "not proven again: a check that the proof needs did not run, or the bundle was not proven when"
            " it was made"
        ),
        Verdict.DIFFERS: "the bundle does not match its manifest, or does not compute its references",
        Verdict.REFUSED: "nothing in the bundle could be run",
    }
    wrong = wrong_targets(evidence)
    told = f"right in MNN on this machine, and wrong on {listed(wrong)}" if wrong else words[outcome]
    low = against_low(found.against_low)
    _headline(console, outcome, f"{target}: {told}{f'. {low}' if low else ''}")
    rows = [(status_word(c.status), c.check, c.subject) for c in evidence]
    section(console, "checks", grid(["", "", ""], rows))
    _errors(console, evidence)
    show_targets(console, evidence, found.targets, found.engines)
    _metrics(console, evidence)
    _obstacles(console, digest.obstacles(evidence))


def show_comparison(console: Console, found: Comparison) -> None:
    """The outcome of `compare`: what was matched with what, errors per output, what stands in the way."""
    words = {
        Verdict.PROVEN: "the two models compute the same, within the tolerance",
        Verdict.UNPROVEN: "the two models agree on inputs that prove nothing",
        Verdict.DIFFERS: "the two models compute different things",
    }
    _headline(console, found.verdict, words[found.verdict])
    rows = [("input", a, b, "") for a, b in found.inputs.items()]
    rows += [("output", a, b, f"by {found.matched[a]}") for a, b in found.outputs.items()]
    section(console, "matched", grid(["", "", "", ""], rows, ["", found.first, found.second, ""]))
    worst: dict[str, OutputError] = {}
    for error in (e for c in found.evidence for e in c.outputs if e.output):
        if error.output not in worst or (error.excess or 0) > (worst[error.output].excess or 0):
            worst[error.output] = error
    errors = [
        (n, *map(digest.number, (e.max_abs, e.max_rel)), digest.cosine_text(e.cosine), digest.share(e.excess))
        for n, e in worst.items()
    ]
    section(
        console,
        "errors, worst over the cases",
        grid(["", ">", ">", ">", ">"], errors, ["output", "max abs", "max rel", "cosine", "tolerance used"]),
    )
    _metrics(console, found.evidence)
    for check in found.evidence:
        if check.status is not Status.PASSED:
            console.print()
            console.print(
                word(
                    f"  {STATUS_WORDS[check.status]}  {check.check}: {check.reason}",
                    STATUS_STYLES[check.status],
                )
            )


def show_inspection(console: Console, inspection: Mapping[str, Any]) -> None:
    """Show the outcome of `inspect`, given as plain data.

    The scalars come first, then inputs and outputs, operators, warnings, details.
    """
    facts = {
        k: v
        for k, v in inspection.items()
        if not isinstance(v, (Mapping, list, tuple)) and v not in (None, "")
    }
    section(console, "", pairs({name: _value(name, value) for name, value in facts.items()}))
    signature = inspection.get("signature") or {}
    for role in ("inputs", "outputs"):
        tensors = signature.get(role) if isinstance(signature, Mapping) else None
        if tensors:
            section(console, role, grid(["", "", ""], [_tensor(t) for t in tensors]))
    operators = inspection.get("ops") or {}
    if operators:
        ordered = sorted(operators.items(), key=lambda item: (-int(item[1]), item[0]))
        most = ", ".join(f"{one_line(name)} {count}" for name, count in ordered[:OTHER_OPERATORS])
        more = f", and {len(ordered) - OTHER_OPERATORS} more kinds" if len(ordered) > OTHER_OPERATORS else ""
        section(console, f"operators ({sum(map(int, operators.values()))})", word(most + more))
    for title in ("leftovers", "warnings"):
        if inspection.get(title):
            section(console, title, grid([""], [(word(line, "yellow"),) for line in inspection[title]]))
    known = {*facts, "signature", "ops", "leftovers", "warnings", "details"}
    rest = {**{k: v for k, v in inspection.items() if k not in known}, **(inspection.get("details") or {})}
    details = {
        name: _value(name, value) for name, value in rest.items() if value not in (None, "", [], {}, ())
    }
    if details:
        section(console, "details", pairs(details))


def show_doctor(console: Console, doctor: Doctor) -> None:
    """Show the outcome of `doctor`.

    It lists packages, formats and converters, and what to type for those that don't work.
    """
    section(
        console,
        "",
        pairs({"python": doctor.python, "platform": doctor.platform, "mnnprep": doctor.mnnprep}),
    )
    packages = [
        (p.distribution, p.version or word("not installed", "yellow"), p.extra or "core")
        for p in doctor.packages
    ]
    section(console, "packages", grid(["", "", ""], packages, ["package", "version", "extra"]))
    formats = [
        (f.title, works_word(f.works), ", ".join(f.targets) if f.works else "", f.needs)
        for f in doctor.formats
    ]
    section(console, "formats", grid(["", "", "", ""], formats, ["format", "", "to", "needs"]))
    converters = [
        (c.name, works_word(c.works), ", ".join(c.frontends) or c.reason) for c in doctor.converters
    ]
    section(console, "converters", grid(["", "", ""], converters, ["converter", "", "frontends"]))
    walls = doctor.confinement
    state = "complete" if walls.complete else "in part" if walls.active else "not active"
    said = (word(state, "cyan" if walls.complete else "yellow"), walls.level, walls.reason)
    section(console, "confinement of the workers that run a model", grid(["", "", ""], [said]))
    emulators = [(arch, path or word("not installed", "yellow")) for arch, path in doctor.emulators.items()]
    there = [(f"{e.arch} MNN {e.engine}", e.needs or "works") for e in doctor.environments if e.engine]
    section(console, "targets", grid(["", ""], [*emulators, *there]))
    for line in doctor.advice:
        console.print(word(f"  next: {line}"), soft_wrap=True)


def _headline(console: Console, outcome: Verdict, sentence: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text.assemble((outcome.value.upper(), VERDICT_STYLES[outcome]), "  ", one_line(sentence)))


def _attempts(console: Console, manifest: Manifest) -> None:
    rows: list[tuple[RenderableType, ...]] = []
    for attempt in manifest.artifact.attempts:
        result = attempt.verdict or ("made" if attempt.ok else "failed")
        style = "cyan" if result in ("proven", "made") else "yellow" if result == "unproven" else "magenta"
        reason = first_line(attempt.reason)
        repaired = f"repaired: {', '.join(attempt.repairs)}" if attempt.repairs else ""
        opset = f"opset {attempt.opset}" if attempt.opset else ""
        rows.append(
            (
                attempt.method,
                opset,
                word(result, style),
                word("kept" if attempt.kept else ""),
                word(reason or repaired),
            )
        )
    section(console, "tried", grid([""] * 5, rows))


def _errors(console: Console, evidence: Sequence[Check]) -> None:
    rows: list[tuple[RenderableType, ...]] = []
    for worst in digest.worst_errors(evidence):
        figures = (
            digest.number(worst.max_abs),
            digest.number(worst.max_rel),
            digest.cosine_text(worst.cosine),
        )
        rows.append((worst.output or "every output", worst.stage, *figures, _used(worst)))
    rows += [("every output", stage, "–", "–", "–", _used(None)) for stage in digest.uncompared(evidence)]
    head = ["output", "by", "max abs", "max rel", "cosine", "tolerance used"]
    section(console, "errors, worst over the cases", grid(["", "", ">", ">", ">", ">"], rows, head))


def _sizes(console: Console, manifest: Manifest) -> None:
    sizes = digest.sizes_tried(manifest)
    rows = [
        (
            s.dim,
            str(s.size),
            _used(s.artifact),
            _used(s.mnn),
            word("proven", "cyan") if s.proven else word("not proven", "yellow"),
        )
        for s in sizes
    ]
    if rows:
        head = ["dimension", "size", "artifact", "MNN", ""]
        section(console, "tolerance used, per size", grid(["", ">", ">", ">", ""], rows, head))


def _metrics(console: Console, evidence: Sequence[Check]) -> None:
    """The task metrics, if any were asked for."""
    measures = digest.measures(evidence)
    places = [where for where in digest.MEASURED_IN if any(where in m.values for m in measures)]
    rows: list[tuple[RenderableType, ...]] = [
        (
            m.name,
            *(m.values.get(where, "–") for where in places),
            m.wanted or "–",
            m.inputs,
            status_word(m.status),
        )
        for m in measures
    ]
    if rows:
        section(
            console,
            "task metrics",
            grid(["", *[">"] * len(places), ">", "", ""], rows, ["metric", *places, "wanted", "over", ""]),
        )
    for m in (m for m in measures if m.status is Status.NOT_RUN):
        console.print(word(f"  {m.name}: {m.reason}"), soft_wrap=True)


def _samples(console: Console, evidence: Sequence[Check]) -> None:
    """Which real inputs were taken, and the values in them."""
    for check in (c for c in evidence if c.check == catalog.SAMPLES.name):
        facts = {
            "cases": (
                f"{check.numbers.get('cases', 0)} from {check.numbers.get('taken', 0)} of"
                f" {check.numbers.get('files', 0)} files"
            )
        }
        facts |= {
            name.removeprefix("range:"): f"{value}"
            for name, value in check.numbers.items()
            if name.startswith("range:")
        }
        section(console, "real inputs", pairs(facts))
        if check.reason:
            console.print(word(f"  {check.reason}"), soft_wrap=True)


def _precision(console: Console, evidence: Sequence[Check]) -> None:
    """Show what a lower precision of the weights costs."""
    for check in (c for c in evidence if c.check == catalog.PRECISION.name):
        figures = {
            name: digest.number(value) for name, value in check.numbers.items() if isinstance(value, float)
        }
        facts = {"weights": check.subject, "size": decimal_size(int(str(check.numbers["bytes"])))}
        facts["SQNR"] = (
            f"{figures['sqnr_db']} dB, at least {figures['least_sqnr_db']} dB"
            if "sqnr_db" in figures
            else "no error"
        )
        if "rows" in check.numbers:
            facts["same first choice"] = f"{check.numbers['same_top1']} of {check.numbers['rows']} rows"
        section(console, "cost of the precision", pairs(facts))


def _obstacles(console: Console, found: Sequence[digest.Obstacle]) -> None:
    """Show what stands in the way, one paragraph each: the check, why, what to do."""
    from rich.padding import Padding
    from rich.text import Text

    if found:
        console.print()
        console.print(word("in the way", "bold"))
    for o in found:
        check = (one_line(o.check), "bold")
        console.print(
            Text.assemble(
                "  ",
                (STATUS_WORDS[o.status], STATUS_STYLES[o.status]),
                "  ",
                check,
                "  ",
                one_line(o.subject),
            )
        )
        console.print(Padding(word(o.reason.strip() or "no reason was given"), (0, 0, 0, 4), expand=False))
        console.print(Padding(word(f"next: {o.remedy}"), (0, 0, 0, 4), expand=False))


def _headliners(manifest: Manifest) -> list[Any]:
    """The files to name in the terminal: the models; the rest is in the report."""
    return [*([manifest.mnn] if manifest.mnn else []), *manifest.artifact.files]


def _used(worst: Worst | None) -> Text:
    if worst is None:
        return word("not run", "yellow")
    if not worst.comparable:
        return word("not comparable", "bold magenta")
    return word(digest.share(worst.excess), "bold magenta" if (worst.excess or 0) > 1 else "cyan")


def _tensor(tensor: Mapping[str, Any]) -> tuple[str, str, str]:
    shape = tensor.get("shape")
    sizes = "?" if shape is None else digest.shape_text(["?" if e is None else e for e in shape])
    return tensor.get("name", ""), tensor.get("dtype") or "?", sizes


def _value(name: str, value: Any) -> str:
    """One value in one line or so: sizes in bytes for reading, containers as short text."""
    if name == "size" and isinstance(value, int):
        return decimal_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if name == "parameters" else str(value)
    if isinstance(value, Mapping):
        text = ", ".join(f"{k} {_value('', v)}" for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(_value("", v) for v in value)
    else:
        text = str(value)
    return one_line(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + " …")
