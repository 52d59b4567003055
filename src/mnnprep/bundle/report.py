"""``report.html``: a manifest as one self-contained page, for an engineer who decides whether to ship.

The page is a pure function of the manifest: no time, no script, nothing fetched.  Text from the model is
escaped, and its control characters are made visible.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from mnnprep import deps
from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import Manifest
from mnnprep.bundle.target_view import engine_spans, on_targets
from mnnprep.bundle.usage import cpp_snippet, python_snippet
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.safety.printable import plain
from mnnprep.text import decimal_size

FILE_NAME = "report.html"
TEMPLATE = "report.html.j2"
IDENTIFYING = 3  # files of the source that stand at the top

MARKS = {Verdict.PROVEN: "✓", Verdict.UNPROVEN: "?", Verdict.DIFFERS: "≠", Verdict.REFUSED: "✕"}
STATUS_MARKS = {Status.PASSED: "✓", Status.FAILED: "✕", Status.NOT_RUN: "–"}
STATUS_WORDS = {Status.PASSED: "passed", Status.FAILED: "failed", Status.NOT_RUN: "not run"}


def render(manifest: Manifest) -> str:
    """The report of *manifest* as one HTML document; the same manifest always gives the same text.

    The verdict shown is the one its evidence gives; if the manifest claims another, the page says so
    first.

    Raises:
        RefusedError: jinja2 is not installed; the message names the extra.
    """
    text: str = _template().render(context(manifest))
    return text


def page_bytes(manifest: Manifest) -> bytes:
    """The bytes of ``report.html``, of the manifest as its file has it (there the names are in order).

    Raises as :func:`render`.
    """
    stored = msgspec.json.decode(manifest.to_bytes(), type=Manifest)
    return render(stored).encode("utf-8", "backslashreplace")


def compile_early() -> None:
    """Compile the template beside what else happens, if jinja2 is here."""
    if deps.installed("jinja2"):
        threading.Thread(target=_template, daemon=True).start()


@cache
def _template() -> Any:
    jinja2 = deps.require("jinja2")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
        ),
    )
    environment.filters.update(
        number=digest.number,
        cosine=digest.cosine_text,
        share=digest.share,
        size=decimal_size,
        shape=digest.shape_text,
        figure=figure,
        bar=bar_percent,
    )
    return environment.from_string(files("mnnprep.bundle").joinpath(TEMPLATE).read_text(encoding="utf-8"))


def context(manifest: Manifest) -> dict[str, Any]:
    """Return the values that the template shows, by name."""
    concluded = digest.concluded(manifest)
    blocking = digest.obstacles_of(manifest)
    return {
        "manifest": manifest,
        "identity": manifest.source.files[:IDENTIFYING],
        "more_files": max(0, len(manifest.source.files) - IDENTIFYING),
        "command": shlex.join(["mnnprep", *manifest.source.command, "-o", "DIR"])
        if manifest.source.command
        else "",
        "verdict": concluded,
        "verdict_mark": MARKS[concluded],
        "disputed": concluded is not manifest.verdict,
        "meaning": digest.meaning(manifest),
        "searched": digest.searched(manifest),
        "obstacles": blocking,
        "absent": [o for o in blocking if o.check not in {c.check for c in manifest.evidence}],
        "status_marks": STATUS_MARKS,
        "status_words": STATUS_WORDS,
        "tally": tally(manifest.evidence),
        "question": lambda check: catalog.row(check).question,
        "required": digest.required_names(manifest),
        "errors": digest.worst_errors(manifest.evidence),
        "on_targets": on_targets(manifest.evidence, manifest.targets),
        "engine_spans": [
            str(span) for span in engine_spans(manifest.evidence, manifest.tools.get("MNN", ""))
        ],
        "measures": digest.measures(manifest.evidence),
        "measured_in": [
            w for w in digest.MEASURED_IN if any(w in m.values for m in digest.measures(manifest.evidence))
        ],
        "uncompared": digest.uncompared(manifest.evidence),
        "files": digest.bundle_files(manifest),
        "sizes": digest.sizes_tried(manifest),
        "tolerance": digest.tolerance_words(manifest.tolerance),
        "python": python_snippet(manifest) if manifest.mnn else "",
        "cpp": cpp_snippet(manifest) if manifest.mnn else "",
        "options": {name: figure(value) for name, value in sorted(manifest.source.options.items())},
    }


def tally(evidence: Iterable[Check]) -> dict[Status, int]:
    """How many checks ended how."""
    statuses = [c.status for c in evidence]
    return {status: statuses.count(status) for status in Status}


def bar_percent(excess: float | None) -> str:
    """The length of an error's bar, in percent: the share of the tolerance used, full from 1 on."""
    return f"{min(max(excess or 0.0, 0.0), 1.0) * 100:.2f}"


def figure(value: object) -> str:
    """Any JSON value for reading: numbers short, lists without brackets, the rest as compact JSON."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return digest.number(value)
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return ", ".join(map(figure, value)) if value else "none"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {figure(v)}" for k, v in sorted(value.items())) if value else "none"
    return str(value)
