"""Many models, on a few threads, each row kept as it comes: the command line that the evaluations share."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from evaluation.proved.row import Row, failed, kept, reasons, summary
from evaluation.proved.run import Judge
from mnnprep.model.request import DEFAULT_TIME_BUDGET
from tests.support import templates

EVERY = 25  # rows between two lines of progress

One = Callable[[str, Judge], Row]


def common_options(parser: argparse.ArgumentParser) -> None:
    """The options of every evaluation of this kind."""
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="models whose name holds this text"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only one of N, spread over all")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep rows here, and run what it lacks")
    parser.add_argument(
        "--again", action="store_true", help="run what is in the file and not proven once more"
    )
    parser.add_argument("--keep", default="", metavar="DIR", help="leave the last model's bundle there")
    parser.add_argument(
        "--time-budget",
        type=float,
        default=DEFAULT_TIME_BUDGET,
        metavar="SECONDS",
        help="as of `prepare`, for each model",
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="list every reason, not only the most common")


def run_all(
    names: list[str], one: One, options: argparse.Namespace, imported: Iterable[str] = ()
) -> list[Row]:
    """The rows of *names* that the options choose.

    *imported* are modules that a worker with torch has before it is given a model.
    """
    wanted = [n for n in names if chosen(n, options.only)][:: options.every]
    done = kept(options.resume)
    left = [n for n in wanted if n not in done or (options.again and unsettled(done[n]))]
    templates.TOO["PyTorch"] = tuple(imported)
    with templates.shared_imports():
        done |= _run(left, one, options)
    return [done[n] for n in wanted if n in done]


def chosen(name: str, only: list[str]) -> bool:
    """Whether *name* holds one of these texts; any name if there are none."""
    return not only or any(text in name for text in only)


def unsettled(row: Row) -> bool:
    """Whether another run may say something else of it."""
    return row.silently_wrong or row.verdict not in ("proven", "skipped")


def _run(left: list[str], one: One, options: argparse.Namespace) -> dict[str, Row]:
    local, lock, judges = threading.local(), threading.Lock(), list[Judge]()
    found: dict[str, Row] = {}
    started = time.monotonic()

    def run(name: str) -> Row:
        if not hasattr(local, "judge"):
            local.judge = Judge(options.keep, options.time_budget)
            with lock:
                judges.append(local.judge)
        return one(name, local.judge)

    file = options.resume.open("ab") if options.resume else None
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            for number, future in enumerate(as_completed([pool.submit(run, n) for n in left]), 1):
                row = future.result()
                found[row.name] = row
                if file:
                    file.write(msgspec.json.encode(row) + b"\n")
                    file.flush()
                if number % EVERY == 0 or len(left) < EVERY:
                    told = f"{number} of {len(left)} in {time.monotonic() - started:.0f} s"
                    print(f"{told}; {row.name}: {row.verdict}, {row.seconds:g} s", file=sys.stderr)
    finally:
        for judge in judges:
            judge.close()
        if file:
            file.close()
    return found


def report(groups: dict[str, list[Row]], options: argparse.Namespace) -> int:
    """Print the figures of each group; 1 if a row is one that must not be."""
    bad = [row for rows in groups.values() for row in failed(rows)]
    for title, rows in groups.items():
        print(summary(title, rows))
        for line in reasons(rows, None) if options.show else reasons(rows):
            print(f"  {line}")
    for row in bad:
        print(f"  {row.name}: {row.verdict}, oracle {row.oracle or '-'}: {row.detail or row.reason}")
    return int(bool(bad))
