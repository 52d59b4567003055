"""Faults that show for some values alone: how many random inputs find, and how many the search.

    python -m evaluation.faults.values [--count 200] [--every N] [--only NET]... [--clean] [--json FILE]

A seeded generator plants them in 16 nets with the structure of trained ones, as ONNX files and as PyTorch
modules, and in 7 TensorFlow graphs: beyond a bound that random inputs hardly reach, between two of them, at
equality, ties and halves, in one row of a table, for odd masks, close to zero.  Where a bound lies follows
from what random and wild inputs reach in the net (``value_inputs``); nothing of mnnprep's search is used.  A
fault counts if an input within the declared values moves an output by three tolerances, and at most one of
twelve ordinary inputs shows it, both judged without mnnprep.

Each is put in what MNN is given, or in the artifact, and goes through the stages of one attempt of
``prepare``.  Found by random inputs: a check fails by the cases of the survey.  Found by the search: by a
case that it added.  ``--clean`` runs the nets without a fault instead: none may differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.faults.one_attempt import Bench, by_search, failed
from evaluation.faults.value_hosts import FORMATS, Host, hosts

SEED = 20


@dataclass(frozen=True)
class Outcome:
    """What became of one fault: ``found`` is ``random``, ``search`` or empty."""

    id: str
    format: str
    kind: str
    side: str
    found: str
    checks: list[str]
    by: str
    seconds: float


def outcomes(bench: Bench, host: Host, count: int, every: int) -> Iterator[Outcome]:
    """The trials of one host."""
    net = bench.prepared(host.request())
    artifact = Path(net.exported.files[0].path)
    for number, fault in enumerate(host.faults(artifact, count, SEED)):
        if number % every:
            continue
        started = time.perf_counter()
        side = "converter" if number % 3 else "artifact"
        files = {"converted" if side == "converter" else "artifact": fault.file}
        result = bench.attempt(net, **files)
        checks = failed(result)
        found = "" if not checks else "search" if by_search(result) else "random"
        assert result.survey is not None
        by = next((c.origin for c in result.survey.cases if c.origin.startswith("searched")), "")
        yield Outcome(
            f"{host.format}-{host.name}-{number}",
            host.format,
            f"{fault.kind} at {fault.place}",
            side,
            found,
            checks,
            by,
            round(time.perf_counter() - started, 2),
        )


def clean(bench: Bench, host: Host) -> str:
    """Why a net without a fault is not proven; empty if it is."""
    try:
        bench.prepared(host.request())
    except ValueError as error:
        return str(error)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="faults, over all nets and formats")
    parser.add_argument("--every", type=int, default=1, help="run every Nth of them")
    parser.add_argument("--only", action="append", default=[], help="a net, or a format")
    parser.add_argument("--clean", action="store_true", help="run the nets without a fault instead")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="values-") as work, Bench() as bench:
        only = set(options.only)
        formats = [f for f in FORMATS if f in only] or list(FORMATS)
        names = only - set(FORMATS)
        chosen = [h for h in hosts(Path(work), formats) if not names or h.name in names]
        if options.clean:
            return run_clean(bench, chosen)
        found: list[Outcome] = []
        each = {form: options.count * share // sum(FORMATS.values()) for form, share in FORMATS.items()}
        for form in FORMATS:
            own = [h for h in chosen if h.format == form]
            for place, host in enumerate(own):
                count = each[form] * (place + 1) // len(own) - each[form] * place // len(own)
                for outcome in outcomes(bench, host, count, options.every):
                    found.append(outcome)
                    told = f"{outcome.found or 'missed':7} {outcome.id:24} {outcome.side:9} {outcome.kind:50}"
                    print(f"{told} {outcome.seconds:5.1f} s  {outcome.by}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(o) for o in found], indent=1))
    return summary(found)


def run_clean(bench: Bench, chosen: list[Host]) -> int:
    wrong = 0
    for host in chosen:
        reason = clean(bench, host)
        wrong += bool(reason)
        print(f"{host.format:10} {host.name:12} {reason or 'proven'}", flush=True)
    print(f"{len(chosen)} right nets, {wrong} false alarms")
    return int(wrong > 0)


def summary(found: list[Outcome]) -> int:
    """Print the figures; 0 if the search finds 90 % of what random inputs find less than 30 % of."""
    for form in (*FORMATS, ""):
        own = [o for o in found if not form or o.format == form]
        ways = Counter(o.found for o in own)
        both = ways["random"] + ways["search"]
        if own:
            shares = [f"{count} ({100 * count / len(own):.0f} %)" for count in (ways["random"], both)]
            words = ", with the search ".join(shares)
            print(f"{form or 'all':10} {len(own):4} faults: random inputs find {words}")
    kinds = Counter(o.kind.partition(" at ")[0] for o in found if not o.found)
    print("missed:", ", ".join(f"{kind} {n}" for kind, n in kinds.items()) or "none")
    ways = Counter(o.found for o in found)
    return int(not found or ways[""] > 0.1 * len(found) or ways["random"] >= 0.3 * len(found))


if __name__ == "__main__":
    sys.exit(main())
