"""The measured table of operators.

For one MNN and one kind of machine, what each frontend reads and what ONNX's cases say.

One table ships with mnnprep; ``mnnprep ops --measure`` makes others, kept in the user's cache directory by
the version of MNN and the machine.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.conformance.messages import Outcome
from mnnprep.model.files import atomic_write, canonical_json

SHIPPED = Path(__file__).parent / "data"
CACHE_VARIABLE = "XDG_CACHE_HOME"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The cases of one operator at one opset and dtype; ``raw`` and ``repaired`` count them by status.

    ``operator`` is empty for graphs of several; ``expanded``: the operator was replaced by its function body.
    """

    variant: str
    operator: str
    expanded: bool
    opset: int
    dtype: str
    raw: dict[str, int]
    repaired: dict[str, int]


class OperatorTable(msgspec.Struct, frozen=True, kw_only=True):
    """``frontends`` lists the operators that the converter says it reads, by frontend; ``rows`` are sorted.

    ``mnnprep`` is the version whose repairs were applied, ``onnx`` the one whose cases were run.
    """

    mnn: str
    mnnprep: str
    machine: str
    onnx: str
    frontends: dict[str, list[str]]
    rows: list[Row] = msgspec.field(default_factory=list)


def machine() -> str:
    """The kind of processor, as it names a table."""
    return platform.machine().lower()


def cache_directory() -> Path:
    """Return the directory of measurements: ``$XDG_CACHE_HOME/mnnprep``, else ``~/.cache/mnnprep``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache") / "mnnprep"


def file_name(mnn: str, kind: str) -> str:
    """Return the file name of the table for MNN's version *mnn* on a machine of this *kind*."""
    return f"mnn-{mnn}-{kind}.json"


def load_table(engine: str = "") -> OperatorTable | None:
    """Return the table of MNN of the version *engine*, on this kind of machine; empty: the installed one.

    One measured here goes before one shipped. None if there is neither.
    """
    version = engine or deps.version("MNN")
    if version is None:
        return None
    for directory in (cache_directory(), SHIPPED):
        path = directory / file_name(version, machine())
        if path.is_file():
            try:
                table = msgspec.json.decode(path.read_bytes(), type=OperatorTable)
            except msgspec.DecodeError:  # of another version's form
                continue
            if table.mnnprep == __version__:
                return table
    return None


def save_table(table: OperatorTable, directory: Path) -> Path:
    """Write *table* under its name; the same measurements give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file_name(table.mnn, table.machine)
    with atomic_write(path) as file:
        file.write(canonical_json(table))
    return path


def rows_of(outcomes: Iterable[Outcome]) -> list[Row]:
    """The outcomes of the routes ``raw`` and ``repaired``, counted."""
    counts: dict[tuple[str, str, bool, int, str], dict[str, Counter[str]]] = {}
    for o in outcomes:
        if o.route in ("raw", "repaired"):
            by_route = counts.setdefault(
                (o.variant, o.operator, o.expanded, o.opset, o.dtype),
                {"raw": Counter(), "repaired": Counter()},
            )
            by_route[o.route][o.status] += 1
    return [
        Row(
            variant=v,
            operator=op,
            expanded=e,
            opset=opset,
            dtype=dtype,
            raw=dict(sorted(c["raw"].items())),
            repaired=dict(sorted(c["repaired"].items())),
        )
        for (v, op, e, opset, dtype), c in sorted(counts.items())
    ]
