"""The terminal's view of a command: tables of what was prepared, inspected, verified and diagnosed.

Every state is a word, so that nothing hangs on colour; text from a model has its control characters made
visible and is never read as markup.  rich is imported inside the functions: `--help` does without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import Manifest, TargetRecord
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, OutputError, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.safety.printable import one_line, plain
from mnnprep.text import decimal_size, first_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from mnnprep.commands.compare import Comparison
    from mnnprep.commands.doctor import Doctor

VERDICT_STYLES = {
    Verdict.PROVEN: "bold cyan",
    Verdict.UNPROVEN: "bold yellow",
    Verdict.DIFFERS: "bold magenta",
    Verdict.REFUSED: "bold magenta",
}
STATUS_STYLES = {Status.PASSED: "cyan", Status.FAILED: "bold magenta", Status.NOT_RUN: "yellow"}
STATUS_WORDS = {Status.PASSED: "passed", Status.FAILED: "FAILED", Status.NOT_RUN: "not run"}
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
    _targets(console, manifest.evidence, manifest.targets)
    _metrics(console, manifest.evidence)
    _samples(console, manifest.evidence)
    _precision(console, manifest.evidence)
    _obstacles(console, digest.obstacles(manifest.evidence, digest.required_names(manifest)))
    rows = [(f.path, decimal_size(f.size)) for f in _headliners(manifest)]
    _section(console, f"files in {target}", _table(["", ">"], rows))


def show_verification(console: Console, outcome: Verdict, evidence: Sequence[Check], target: Path) -> None:
    """The outcome of `verify`: every check with its answer, errors per output, what stands in the way."""
    words = {
        Verdict.PROVEN: "the bundle was proven again",
        Verdict.UNPROVEN: (
            "not proven again: a check that the proof needs did not run, or the bundle was not proven when"
            " it was made"
        ),
        Verdict.DIFFERS: "the bundle does not match its manifest, or does not compute its references",
        Verdict.REFUSED: "nothing in the bundle could be run",
    }
    _headline(console, outcome, f"{target}: {words[outcome]}")
    rows = [(_status(c.status), c.check, c.subject) for c in evidence]
    _section(console, "checks", _table(["", "", ""], rows))
    _errors(console, evidence)
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
    _section(console, "matched", _table(["", "", "", ""], rows, ["", found.first, found.second, ""]))
    worst: dict[str, OutputError] = {}
    for error in (e for c in found.evidence for e in c.outputs if e.output):
        if error.output not in worst or (error.excess or 0) > (worst[error.output].excess or 0):
            worst[error.output] = error
    errors = [
        (n, *map(digest.number, (e.max_abs, e.max_rel)), digest.cosine_text(e.cosine), digest.share(e.excess))
        for n, e in worst.items()
    ]
    _section(
        console,
        "errors, worst over the cases",
        _table(
            ["", ">", ">", ">", ">"], errors, ["output", "max abs", "max rel", "cosine", "tolerance used"]
        ),
    )
    _metrics(console, found.evidence)
    for check in found.evidence:
        if check.status is not Status.PASSED:
            console.print()
            console.print(
                _text(
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
    _section(console, "", _pairs({name: _value(name, value) for name, value in facts.items()}))
    signature = inspection.get("signature") or {}
    for role in ("inputs", "outputs"):
        tensors = signature.get(role) if isinstance(signature, Mapping) else None
        if tensors:
            _section(console, role, _table(["", "", ""], [_tensor(t) for t in tensors]))
    operators = inspection.get("ops") or {}
    if operators:
        ordered = sorted(operators.items(), key=lambda item: (-int(item[1]), item[0]))
        listed = ", ".join(f"{one_line(name)} {count}" for name, count in ordered[:OTHER_OPERATORS])
        more = f", and {len(ordered) - OTHER_OPERATORS} more kinds" if len(ordered) > OTHER_OPERATORS else ""
        _section(console, f"operators ({sum(map(int, operators.values()))})", _text(listed + more))
    for title in ("leftovers", "warnings"):
        if inspection.get(title):
            _section(console, title, _table([""], [(_text(line, "yellow"),) for line in inspection[title]]))
    known = {*facts, "signature", "ops", "leftovers", "warnings", "details"}
    rest = {**{k: v for k, v in inspection.items() if k not in known}, **(inspection.get("details") or {})}
    details = {
        name: _value(name, value) for name, value in rest.items() if value not in (None, "", [], {}, ())
    }
    if details:
        _section(console, "details", _pairs(details))


def show_doctor(console: Console, doctor: Doctor) -> None:
    """Show the outcome of `doctor`.

    It lists packages, formats and converters, and what to type for those that don't work.
    """
    _section(
        console, "", _pairs({"python": doctor.python, "platform": doctor.platform, "mnnprep": doctor.mnnprep})
    )
    packages = [
        (p.distribution, p.version or _text("not installed", "yellow"), p.extra or "core")
        for p in doctor.packages
    ]
    _section(console, "packages", _table(["", "", ""], packages, ["package", "version", "extra"]))
    formats = [
        (f.title, _works(f.works), ", ".join(f.targets) if f.works else "", f.needs) for f in doctor.formats
    ]
    _section(console, "formats", _table(["", "", "", ""], formats, ["format", "", "to", "needs"]))
    converters = [(c.name, _works(c.works), ", ".join(c.frontends) or c.reason) for c in doctor.converters]
    _section(console, "converters", _table(["", "", ""], converters, ["converter", "", "frontends"]))
    walls = doctor.confinement
    state = "complete" if walls.complete else "in part" if walls.active else "not active"
    said = (_text(state, "cyan" if walls.complete else "yellow"), walls.level, walls.reason)
    _section(console, "confinement of the workers that run a model", _table(["", "", ""], [said]))
    for line in doctor.advice:
        console.print(_text(f"  next: {line}"), soft_wrap=True)


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
                _text(result, style),
                _text("kept" if attempt.kept else ""),
                _text(reason or repaired),
            )
        )
    _section(console, "tried", _table([""] * 5, rows))


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
    _section(console, "errors, worst over the cases", _table(["", "", ">", ">", ">", ">"], rows, head))


def _sizes(console: Console, manifest: Manifest) -> None:
    sizes = digest.sizes_tried(manifest)
    rows = [
        (
            s.dim,
            str(s.size),
            _used(s.artifact),
            _used(s.mnn),
            _text("proven", "cyan") if s.proven else _text("not proven", "yellow"),
        )
        for s in sizes
    ]
    if rows:
        head = ["dimension", "size", "artifact", "MNN", ""]
        _section(console, "tolerance used, per size", _table(["", ">", ">", ">", ""], rows, head))


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
            _status(m.status),
        )
        for m in measures
    ]
    if rows:
        _section(
            console,
            "task metrics",
            _table(["", *[">"] * len(places), ">", "", ""], rows, ["metric", *places, "wanted", "over", ""]),
        )
    for m in (m for m in measures if m.status is Status.NOT_RUN):
        console.print(_text(f"  {m.name}: {m.reason}"), soft_wrap=True)


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
        _section(console, "real inputs", _pairs(facts))
        if check.reason:
            console.print(_text(f"  {check.reason}"), soft_wrap=True)


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
        _section(console, "cost of the precision", _pairs(facts))


def _targets(console: Console, evidence: Sequence[Check], targets: Sequence[TargetRecord]) -> None:
    rows = [
        (
            row.target,
            " ".join(filter(None, (row.engine, row.arithmetic))),
            str(row.cases or ""),
            one_line(row.output),
            digest.number(row.worst.max_abs) if row.worst and row.worst.comparable else "",
            digest.number(row.worst.sqnr_db) if row.worst and row.worst.comparable else "",
            _status(row.status),
        )
        for row in digest.on_targets(evidence, targets)
    ]
    names = ["target", "MNN", "cases", "output", "max abs", "SQNR dB", ""]
    if rows:
        table = _table(["", "", ">", "", ">", ">", ""], rows, names)
        _section(console, "targets, worst over the cases", table)


def _obstacles(console: Console, found: Sequence[digest.Obstacle]) -> None:
    """Show what stands in the way, one paragraph each: the check, why, what to do."""
    from rich.padding import Padding
    from rich.text import Text

    if found:
        console.print()
        console.print(_text("in the way", "bold"))
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
        console.print(Padding(_text(o.reason.strip() or "no reason was given"), (0, 0, 0, 4), expand=False))
        console.print(Padding(_text(f"next: {o.remedy}"), (0, 0, 0, 4), expand=False))


def _headliners(manifest: Manifest) -> list[Any]:
    """The files to name in the terminal: the models; the rest is in the report."""
    return [*([manifest.mnn] if manifest.mnn else []), *manifest.artifact.files]


def _used(worst: digest.Worst | None) -> Text:
    if worst is None:
        return _text("not run", "yellow")
    if not worst.comparable:
        return _text("not comparable", "bold magenta")
    return _text(digest.share(worst.excess), "bold magenta" if (worst.excess or 0) > 1 else "cyan")


def _status(status: Status) -> Text:
    return _text(STATUS_WORDS[status], STATUS_STYLES[status])


def _works(works: bool) -> Text:
    return _text("works", "cyan") if works else _text("no", "yellow")


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


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(plain(text), style)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], head: Sequence[str] = ()
) -> Table:
    """A table without rules; a column given as ``>`` is right-aligned.

    Strings are shown in one line, never as markup.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(head), header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        title = head[index] if head else ""
        table.add_column(Text(one_line(title)), justify="right" if column == ">" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) if isinstance(cell, str) else cell for cell in row))
    return table


def _pairs(values: Mapping[str, str]) -> Table:
    return _table(
        ["", ""], [(_text(one_line(name), "dim"), _text(one_line(value))) for name, value in values.items()]
    )


def _section(console: Console, title: str, body: RenderableType) -> None:
    from rich.padding import Padding

    console.print()
    if title:
        console.print(_text(title, "bold"))
    console.print(Padding(body, (0, 0, 0, 2)))
