"""The part of `check` that is about older engines: what they get wrong of what a newer converter writes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mnnprep.commands.check_report import CheckReport, Hazard, Measured
from mnnprep.conformance.engines import OnEngines, load_engine_table
from mnnprep.model.target import EVERY, Target
from mnnprep.text import listed

NEWER = "newer-engine"


def on_engines(report: CheckReport, targets: Sequence[Target]) -> CheckReport:
    """*report* with the operators that the engines of *targets* lose, as measured on ONNX's own cases.

    One of which an engine gets no case right is a hazard; of others it is told how many.
    """
    asked = dict.fromkeys(target.engine for target in targets if target.engine)
    if not asked:
        return report
    table = load_engine_table()
    if table is None:
        return msgspec.structs.replace(
            report, notes=[*report.notes, "no engine was measured with the MNN that is installed here"]
        )
    engines = list(dict.fromkeys(e for name in asked for e in (table.engines if name == EVERY else [name])))
    hazards, measured, notes = list(report.hazards), list(report.measured), list(report.notes)
    for engine in engines:
        if engine not in (*table.engines, table.converter):
            notes.append(f"MNN {engine} was not measured; {listed(table.engines)} were")
        for row in table.losing(engine, report.operators):
            if row.right[engine]:
                measured.append(
                    Measured(operator=row.operator, cases=row.cases, right=row.right[engine], engine=engine)
                )
            else:
                hazards.append(_hazard(row, engine, table.converter))
    return msgspec.structs.replace(report, hazards=hazards, measured=measured, notes=notes)


def _hazard(row: OnEngines, engine: str, converter: str) -> Hazard:
    return Hazard(
        rule=NEWER,
        severity="wrong",
        hazard=f"this engine gets the operator wrong as MNN {converter} writes it",
        remedy=f"ship a newer engine, or convert for this one: mnnprep prepare --engine {engine}",
        node=row.operator,
        operator=row.operator,
        detail=f"MNN {engine}; needs {row.oldest or converter} or later",
    )
