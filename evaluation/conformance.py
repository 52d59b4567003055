"""ONNX's own test cases through MNN, judged by an oracle that is not mnnprep's proof.

    python -m evaluation.conformance [--variant fed|frozen] [--route raw|repaired|prepare|check] [--ops A,B]
        [--every N] [--resume FILE] [--jobs 2]

``raw`` converts each case as it is; ``repaired`` after every rule that finds its pattern; ``prepare`` runs
the whole pipeline, and asks the oracle about what it calls proven.  ``check`` scores the rules against the
raw outcomes in FILE. With ``--resume FILE`` (JSON lines) outcomes are kept, and those that are there already
are not measured again.
Exit code: 0; 1 when ``prepare`` called something proven that the oracle calls wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from mnnprep.commands.check import supported_operators
from mnnprep.commands.ops.proving import Prover
from mnnprep.commands.ops.runner import Runner, measure, resumed
from mnnprep.conformance.messages import STATUSES, ConformanceCase, Outcome
from mnnprep.repair.table import all_rules

EVERY = 200  # cases between two lines of progress


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=("fed", "frozen"), default="fed")
    parser.add_argument("--route", choices=("raw", "repaired", "prepare", "check"), default="raw")
    parser.add_argument("--ops", default="", help="only cases of these operators, comma-separated")
    parser.add_argument(
        "--names", default="", help="only cases whose name holds one of these texts, comma-separated"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only one of N cases, spread over all"
    )
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="list what is not right")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="conformance-") as directory,
        Runner(Path(directory)) as runner,
        Prover(runner) as prover,
    ):
        cases = chosen(
            runner.collect(Path(directory) / "cases", options.variant), options.ops, options.names
        )[:: options.every]
        if options.route == "check":
            return score(runner, cases, options)
        run = routes(runner, prover)[options.route]
        outcomes = go(cases, run, options.resume, options.route, options.jobs)
    report(outcomes, show=options.show)
    return int(any(o.verdict == "proven" and o.status != "right" for o in outcomes))


def chosen(cases: list[ConformanceCase], operators: str, names: str) -> list[ConformanceCase]:
    wanted, parts = set(filter(None, operators.split(","))), tuple(filter(None, names.split(",")))
    return [
        c
        for c in cases
        if (not wanted or c.operator in wanted) and (not parts or any(p in c.name for p in parts))
    ]


def routes(runner: Runner, prover: Prover) -> dict[str, Callable[[ConformanceCase], Outcome]]:
    return {
        "raw": lambda case: runner.convert(case, []),
        "repaired": lambda case: runner.convert(case, all_rules()),
        "prepare": prover.prepare,
    }


def score(runner: Runner, cases: list[ConformanceCase], options: argparse.Namespace) -> int:
    """How much of what MNN gets wrong the rules flag, and how much of what it gets right: of all cases, and
    of each half.
    """
    known = resumed(options.resume) if options.resume else {}
    if not options.resume or any((c.variant, "raw", c.name) not in known for c in cases):
        sys.exit(
            "--route check needs the raw outcomes: run --route raw --resume FILE first, then --route check"
            " --resume FILE"
        )
    supported = sorted(supported_operators()["ONNX"])
    judged = [c for c in cases if known[c.variant, "raw", c.name].status != "unfed"]
    found = runner.check(judged, supported)
    marks = [
        (case, known[case.variant, "raw", case.name], names)
        for case, names in zip(judged, found, strict=True)
    ]
    for title, half in (("all cases", None), ("half A", 0), ("half B", 1)):
        part = [m for m in marks if half is None or half_of(m[0]) == half]
        bad, right = [m for m in part if m[1].status != "right"], [m for m in part if m[1].status == "right"]
        print(
            f"{title}: flagged {share(bad)} of what MNN does not get right, {share(right)} of what it gets"
            " right"
        )
    for case, outcome, names in marks if options.show else ():
        if (outcome.status == "right") == bool(names):
            print(
                f"  {'flagged, right' if names else 'not flagged'}: {case.name} {outcome.status}"
                f" {', '.join(names)} {outcome.detail[:100]}"
            )
    return 0


def share(marks: list[tuple[ConformanceCase, Outcome, list[str]]]) -> str:
    flagged = sum(bool(names) for _, _, names in marks)
    return f"{flagged} of {len(marks)} ({100 * flagged / max(1, len(marks)):.1f} %)"


def half_of(case: ConformanceCase) -> int:
    """The half a case belongs to: that of its operator's hash, so that the cases of an operator stay
    together.
    """
    return hashlib.sha256((case.operator or case.name).encode()).digest()[0] & 1


def go(
    cases: list[ConformanceCase],
    run: Callable[[ConformanceCase], Outcome],
    keep: Path | None,
    route: str,
    jobs: int,
) -> list[Outcome]:
    done = resumed(keep) if keep else {}
    kept = [done[c.variant, route, c.name] for c in cases if (c.variant, route, c.name) in done]
    left = [c for c in cases if (c.variant, route, c.name) not in done]
    started = time.monotonic()
    file = keep.open("ab") if keep else None
    found = []
    for number, outcome in enumerate(measure(left, run, jobs=jobs), 1):
        found.append(outcome)
        if file:
            file.write(msgspec.json.encode(outcome) + b"\n")
            file.flush()
        if number % EVERY == 0:
            print(f"{number} of {len(left)} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    if file:
        file.close()
    return kept + found


def report(outcomes: list[Outcome], *, show: bool) -> None:
    counts = Counter(o.status for o in outcomes)
    print(
        f"{counts['right']} of {len(outcomes)} right; "
        + ", ".join(f"{counts[s]} {s}" for s in STATUSES if s != "right")
    )
    if any(o.verdict for o in outcomes):
        verdicts = Counter((o.verdict, o.status) for o in outcomes)
        for (verdict, status), count in sorted(verdicts.items()):
            print(f"  {verdict or 'no verdict'}, oracle: {status}: {count}")
    causes = Counter(
        (o.status, o.stage, o.operator or "(several operators)") for o in outcomes if o.status != "right"
    )
    for (status, stage, operator), count in sorted(causes.items(), key=lambda item: -item[1])[
        : None if show else 25
    ]:
        print(f"  {count:4d} {status} ({stage}): {operator}")
    if show:
        for o in outcomes:
            if o.status != "right":
                print(f"    {o.case}: {o.status} ({o.stage}) {' '.join(o.detail.split())[:150]}")


if __name__ == "__main__":
    sys.exit(main())
