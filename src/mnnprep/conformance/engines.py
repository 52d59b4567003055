"""The measured table of older engines: what each makes of the models that a newer converter writes.

One ships with mnnprep, for ONNX's own test cases by operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep.conformance.messages import Outcome
from mnnprep.conformance.table import SHIPPED, machine
from mnnprep.model.files import atomic_write, canonical_json
from mnnprep.model.target import version_key


class OnEngines(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's ``cases`` that are right in the converter's own engine, and how many are in others.

    ``right`` has an entry for each engine of the table.
    """

    operator: str
    cases: int
    right: dict[str, int]

    @property
    def oldest(self) -> str:
        """The oldest engine from which on every case is right; empty: only the converter's own is."""
        oldest = ""
        for version in sorted(self.right, key=version_key, reverse=True):
            if self.right[version] < self.cases:
                break
            oldest = version
        return oldest


class EngineTable(msgspec.Struct, frozen=True, kw_only=True):
    """Models written by MNN ``converter`` on ``engines``; ``onnx`` is the version whose cases were run.

    ``rows`` are the operators that an engine loses cases of; of others all engines are right.
    """

    converter: str
    machine: str
    onnx: str
    engines: list[str]
    rows: list[OnEngines]

    def losing(self, engine: str, operators: Iterable[str]) -> list[OnEngines]:
        """The rows of those *operators* that *engine* loses cases of; none if it was not measured."""
        asked = frozenset(operators)
        return [r for r in self.rows if r.operator in asked and r.right.get(engine, r.cases) < r.cases]


def engine_table(
    converter: str, onnx: str, own: Iterable[Outcome], others: dict[str, list[Outcome]]
) -> EngineTable:
    """Sum up the outcomes of the converter's *own* engine and of the *others*, by version."""
    right = {(o.variant, o.case): o.operator for o in own if o.status == "right" and o.operator}
    cases = Counter(right.values())
    kept = {
        version: Counter(
            right[o.variant, o.case] for o in outcomes if o.status == "right" and (o.variant, o.case) in right
        )
        for version, outcomes in others.items()
    }
    rows = [
        OnEngines(operator=name, cases=count, right={v: kept[v][name] for v in kept})
        for name, count in sorted(cases.items())
        if any(counts[name] < count for counts in kept.values())
    ]
    engines = sorted(others, key=version_key)
    return EngineTable(converter=converter, machine=machine(), onnx=onnx, engines=engines, rows=rows)


def load_engine_table() -> EngineTable | None:
    """The table for the converter that is installed, on this kind of machine; None if none ships."""
    path = _path(deps.version("MNN") or "", machine())
    return msgspec.json.decode(path.read_bytes(), type=EngineTable) if path.is_file() else None


def save_engine_table(table: EngineTable) -> Path:
    """Write *table* where it ships from; the same measurements give the same bytes."""
    path = _path(table.converter, table.machine)
    with atomic_write(path) as file:
        file.write(canonical_json(table))
    return path


def _path(converter: str, kind: str) -> Path:
    return SHIPPED / f"engines-{converter}-{kind}.json"
