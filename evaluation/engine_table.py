"""Measure what older engines make of the models that the installed converter writes.

    python -m evaluation.engine_table [--jobs 2] ENGINE...

ONNX's own test cases are converted by the installed MNN as they are; each that is right there is run on every
ENGINE (`mnnprep target add host,engine=3.2.0`). The table ships with mnnprep, and `check --target
host,engine=3.2.0` reads it. A few minutes an engine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from mnnprep import deps
from mnnprep.commands.ops.measuring import VARIANTS
from mnnprep.commands.ops.runner import Runner, measure
from mnnprep.conformance.engines import engine_table, save_engine_table
from mnnprep.conformance.messages import ConformanceCase, Outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", nargs="+", metavar="ENGINE")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        with Runner(scratch) as runner:
            cases = [case for v in VARIANTS for case in runner.collect(scratch / v, v) if not case.unfed]
            own = outcomes(runner, cases, options.jobs, "the converter's own engine")
        right = {(o.variant, o.case) for o in own if o.status == "right"}
        kept = [case for case in cases if (case.variant, case.name) in right]
        others = {}
        for engine in options.engines:
            with Runner(scratch, engine, by_installed=True) as runner:
                others[engine] = outcomes(runner, kept, options.jobs, f"MNN {engine}")
    table = engine_table(deps.version("MNN") or "", deps.version("onnx") or "", own, others)
    for row in table.rows:
        print(row.operator, row.cases, row.right)
    print(save_engine_table(table))
    return 0


def outcomes(runner: Runner, cases: list[ConformanceCase], jobs: int, name: str) -> list[Outcome]:
    """The outcome of each case as it is."""
    found = list(measure(cases, lambda case: runner.convert(case, []), jobs=jobs))
    right = sum(o.status == "right" for o in found)
    print(f"{name}: {right} of {len(found)} right", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
