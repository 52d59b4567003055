"""Measure the table of operators that ships with mnnprep, and write the documentation's page from it.

    python -m evaluation.operator_table [--resume FILE] [--jobs 2] [--page-only]

About ten minutes on two cores. With ``--resume FILE`` (JSON lines, as evaluation/conformance.py keeps them)
what is there is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from mnnprep.commands.ops.measuring import measure_table
from mnnprep.conformance.page import page
from mnnprep.conformance.table import SHIPPED, load_table, save_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operators.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--page-only", action="store_true", help="write the page from the table that is there"
    )
    options = parser.parse_args()
    if options.page_only:
        table = load_table()
        if table is None:
            sys.exit("there is no table for this MNN: leave --page-only out")
    else:
        with tempfile.TemporaryDirectory() as directory:
            keep = options.resume or Path(directory) / "outcomes.jsonl"
            table = measure_table(
                jobs=options.jobs, tell=lambda line: print(line, file=sys.stderr), keep=keep
            )
        print(save_table(table, SHIPPED))
    PAGE.write_text(page(table))
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
