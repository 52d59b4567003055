"""Prepare every small model of a kind that once was not proven, and say which end otherwise than they must.

    python -m evaluation.kinds [--only TEXT] [--jobs N]

About ten seconds a model and job. Exit code: 0 if all end as they must, else 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluation.kinds.run import Ran, copied, ran
from evaluation.kinds.table import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    chosen = [kind for kind in KINDS if options.only in kind.source]
    wrong = 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        root = copied(Path(directory))

        def one(numbered: tuple[int, int]) -> Ran:
            return ran(chosen[numbered[0]], root, f"out{numbered[1]}")

        for result in pool.map(one, [(n, n) for n in range(len(chosen))]):
            wrong += not result.right
            print(f"{'ok   ' if result.right else 'WRONG'} {result.seconds:6.1f} s  {result}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} end as they must")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
