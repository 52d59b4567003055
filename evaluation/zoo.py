"""The zoo: many architectures through `mnnprep prepare`, one line a net.

    python -m evaluation.zoo [--only NAME]... [--family F]... [--to FORMAT] [--all] [--jobs 1] [--json FILE]

Every net is a factory in a file of ``evaluation/nets``, prepared by the command line in a process of its own.
A further collection of nets (another framework) is one more row in ``COLLECTIONS``: its file of factories
and its table of entries.  Timings depend on what else the machine does; verdicts do not.
Exit code: 0 when every net was run to a verdict, 1 when some command failed otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.nets import zoo_keras, zoo_models
from evaluation.nets.zoo_models import Entry
from evaluation.places import NETS, environment

ENVIRONMENT = environment()
TIME_LIMIT = 900  # seconds, for one net
VERDICTS = ("proven", "unproven", "differs", "refused")


class Collection(NamedTuple):
    """Nets of one framework: the file of their factories, their table, and close relatives that only `--all`
    runs.
    """

    framework: str
    file: Path
    entries: tuple[Entry, ...]
    more: tuple[Entry, ...] = ()


COLLECTIONS: tuple[Collection, ...] = (
    Collection("torch", NETS / "zoo_models.py", zoo_models.ZOO, zoo_models.MORE),
    Collection("keras", NETS / "zoo_keras.py", zoo_keras.ZOO),
)


class Row(NamedTuple):
    name: str
    framework: str
    family: str
    dims: tuple[str, ...]
    verdict: str
    method: str
    opset: int | None
    seconds: float
    exit_code: int | None
    reason: str
    attempts: list[dict[str, Any]]
    repairs: list[str]


def command(collection: Collection, entry: Entry, bundle: Path, to: str) -> list[str]:
    """The command line that prepares *entry* into *bundle*."""
    options: list[str] = ["--to", to] if to else []
    for option, values in (("--input", entry.inputs), ("--dim", entry.dims), ("--range", entry.ranges)):
        for value in values:
            options += [option, value]
    return [
        sys.executable,
        "-m",
        "mnnprep",
        "prepare",
        f"{collection.file}:{entry.name}",
        *options,
        "-o",
        str(bundle),
        "--json",
    ]


def reason(document: dict[str, Any]) -> str:
    """Why the verdict is not `proven`: the first required check that did not pass, else the last attempt's
    reason.
    """
    for check in document.get("evidence", ()):
        if check.get("required", True) and check.get("status") != "passed":
            subject = f" ({check['subject']})" if check.get("subject") else ""
            return f"{check['check']} {check['status']}{subject}: {check.get('reason', '')}"
    attempts = document.get("artifact", {}).get("attempts", ())
    if attempts:
        return str(attempts[-1].get("reason", ""))
    error = document.get("error", {})
    return f"{error.get('what', 'no reason given')} {error.get('seen', '')}"


def prepare(collection: Collection, entry: Entry, to: str) -> Row:
    """Prepare one net in a fresh directory; what the command did not say is a row with the verdict
    `error`.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-") as directory:
        try:
            done = subprocess.run(
                command(collection, entry, Path(directory) / "bundle", to),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT,
                env=ENVIRONMENT,
            )
            code, output, noise = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            code, output, noise = None, "", f"stopped after {TIME_LIMIT} s"
    seconds = time.perf_counter() - started
    try:
        document = json.loads(output)
    except json.JSONDecodeError:
        document = {}
    verdict = document.get("verdict", "") if isinstance(document, dict) else ""
    artifact = (document.get("artifact") or {}) if verdict else {}
    if verdict in VERDICTS:
        why = "" if verdict == "proven" else reason(document)
    else:
        verdict, why = (
            "error",
            reason(document) if document else (noise.strip().splitlines() or ["no output"])[-1],
        )
    return Row(
        name=entry.name,
        framework=collection.framework,
        family=entry.family,
        dims=entry.dims,
        verdict=verdict,
        method=artifact.get("method", ""),
        opset=artifact.get("opset"),
        seconds=round(seconds, 1),
        exit_code=code,
        reason=" ".join(why.split()),
        attempts=artifact.get("attempts", []),
        repairs=sorted({str(r.get("rule", r)) for r in artifact.get("repairs", [])}),
    )


def chosen(only: list[str], families: list[str], everything: bool) -> list[tuple[Collection, Entry]]:
    """The nets asked for, in the tables' order; an unknown name or family ends the program."""
    nets = [(c, e) for c in COLLECTIONS for e in (*c.entries, *(c.more if everything or only else ()))]
    names = {e.name for _, e in nets}
    groups = {e.family for _, e in nets} | {c.framework for c, _ in nets}
    for kind, asked, known in (("net", only, names), ("family", families, groups)):
        if unknown := sorted(set(asked) - known):
            sys.exit(f"no {kind} is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [
        (c, e)
        for c, e in nets
        if (not only or e.name in only) and (not families or {e.family, c.framework} & set(families))
    ]


def rows(nets: list[tuple[Collection, Entry]], jobs: int, to: str) -> Iterator[Row]:
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(lambda net: prepare(*net, to), nets)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this net only (repeatable)"
    )
    parser.add_argument(
        "--family",
        action="append",
        default=[],
        metavar="F",
        help="this family, or this framework, only (repeatable)",
    )
    parser.add_argument(
        "--to", default="", metavar="FORMAT", help="prepare to this format (default: the source's own choice)"
    )
    parser.add_argument("--all", action="store_true", help="close relatives, too")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file, too")
    options = parser.parse_args()
    nets = chosen(options.only, options.family, options.all)
    line = "{:20} {:15} {:26} {:9} {:12} {:>5} {:>7}  {}"
    print(line.format("model", "family", "dims", "verdict", "method", "opset", "seconds", "reason"))
    table: list[Row] = []
    for row in rows(nets, max(1, options.jobs), options.to):
        table.append(row)
        opset = "" if row.opset is None else row.opset
        print(
            line.format(
                row.name,
                row.family,
                " ".join(row.dims),
                row.verdict,
                row.method,
                opset,
                row.seconds,
                row.reason,
            ).rstrip(),
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in table], indent=1) + "\n")
    several = [row for row in table if len(row.dims) > 1]  # batch and a length
    print(
        f"\nbatch and length dynamic: {sum(r.verdict == 'proven' for r in several)} of {len(several)} proven"
    )
    print(f"{sum(r.verdict == 'proven' for r in table)} of {len(table)} proven")
    return 1 if any(row.verdict == "error" for row in table) else 0


if __name__ == "__main__":
    sys.exit(main())
