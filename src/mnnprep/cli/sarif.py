"""A check's report as SARIF 2.1.0 (OASIS), which code-review pages show beside the code.

A result stands at the line of the model's own code where the exporter left one, else at the model file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mnnprep._version import __version__
from mnnprep.commands.check_report import CheckReport, Hazard

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"wrong": "error", "crash": "error", "refused": "error", "low": "warning", "narrowed": "note"}


def document(report: CheckReport) -> dict[str, Any]:
    """The report as one SARIF log of one run."""
    first = {h.rule: h for h in reversed(report.hazards)}
    names = sorted(first)
    rules = [
        {
            "id": name,
            "shortDescription": {"text": first[name].hazard},
            "help": {"text": first[name].remedy},
            "defaultConfiguration": {"level": LEVELS[first[name].severity]},
            "properties": {"severity": first[name].severity},
        }
        for name in names
    ]
    results = [
        {
            "ruleId": h.rule,
            "ruleIndex": names.index(h.rule),
            "level": LEVELS[h.severity],
            "message": {"text": message(h)},
            "locations": [_location(report, h)],
        }
        for h in report.hazards
    ]
    driver = {"name": "mnnprep", "version": __version__, "rules": rules}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def message(hazard: Hazard) -> str:
    """One line: the node, what MNN does with it, what to do."""
    detail = f" ({hazard.detail})" if hazard.detail else ""
    return f"{hazard.node}{detail}: {hazard.hazard}. {hazard.remedy[:1].upper()}{hazard.remedy[1:]}."


def _location(report: CheckReport, hazard: Hazard) -> dict[str, Any]:
    file, _, line = hazard.source.rpartition(":")
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(file or report.path)}}
    if file:
        physical["region"] = {"startLine": int(line)}
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": hazard.node, "kind": "element"}],
    }


def _uri(path: str) -> str:
    """Return the URI relative to the current directory if the file is below it, else absolute.

    Code-review pages need the relative form.
    """
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    if absolute.is_relative_to(here):
        from urllib.parse import quote

        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()
