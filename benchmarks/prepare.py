"""`mnnprep prepare`, proof included, against the script a user writes today, side by side.

    python -m benchmarks.prepare [--only MODEL]... [--rounds 3] [--dynamic] [--json FILE]

A is the whole command ``mnnprep prepare`` on a net of ``plain_models.py`` or ``image_models.py``; B is
``user_script.py`` on the
same net: torch.onnx.export at its defaults (a fixed shape), MNN's converter, one comparison.  With
``--dynamic`` both declare the batch dynamic; A then proves it at 1, 2, 3 and 4, B compares once.
They run in turn (A B A B ...), so that what else the machine does meets both alike; the number of a net
is the median of its rounds' ratios A / B.  The goal is at most 0.6 on every net that the script gets through;
a net on which the script fails is shown, and not counted.
Exit code: 0 when the goal is met and every net proven, else 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from evaluation.nets import image_models
from evaluation.places import NETS, environment

HERE = Path(__file__).resolve().parent
PLAIN = (
    "plain_resnet18",
    "plain_mobilenet",
    "plain_unet",
    "plain_vit",
    "plain_densenet",
)  # importing these needs torch alone
MODELS = (*PLAIN, *image_models.MODELS)
ENVIRONMENT = environment()
GOAL = 0.6


def factory(model: str) -> str:
    return f"{NETS / ('plain_models.py' if model in PLAIN else 'image_models.py')}:{model}"


class Run(NamedTuple):
    seconds: float
    outcome: str  # "proven", "exit 3", "exit 0", ...


def timed(arguments: list[str], directory: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=directory,
        env=ENVIRONMENT,
    )
    return time.perf_counter() - started, done


def mnnprep(model: str, *, dynamic: bool) -> Run:
    with tempfile.TemporaryDirectory(prefix="prepare-a-") as directory:
        shape = (
            ["--input", image_models.DYNAMIC_INPUT, "--dim", image_models.DYNAMIC_DIM]
            if dynamic
            else ["--input", image_models.INPUT]
        )
        options = [*shape, "-o", "bundle", "--json"]
        seconds, done = timed(["-m", "mnnprep", "prepare", factory(model), *options], Path(directory))
    try:
        outcome = str(json.loads(done.stdout).get("verdict", f"exit {done.returncode}"))
    except (json.JSONDecodeError, AttributeError):
        outcome = f"exit {done.returncode}"
    return Run(seconds, outcome)


def script(model: str, *, dynamic: bool) -> Run:
    with tempfile.TemporaryDirectory(prefix="prepare-b-") as directory:
        name = image_models.INPUT.partition("=")[0]
        flags = ["--dynamic"] if dynamic else []
        seconds, done = timed(
            [str(HERE / "user_script.py"), factory(model), name, directory, *flags], Path(directory)
        )
    last = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return Run(
        seconds, "ran" if done.returncode == 0 else f"exit {done.returncode}: {last[-1] if last else ''}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=MODELS,
        metavar="MODEL",
        help="this net only (repeatable)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs a net (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to this file, too")
    parser.add_argument("--dynamic", action="store_true", help="declare the batch dynamic, in both")
    options = parser.parse_args()
    models = options.only or MODELS
    line = "{:15} {:>12} {:>12} {:>7}  {}"
    print(line.format("model", "mnnprep [s]", "script [s]", "ratio", "outcome"))
    measured: dict[str, dict[str, object]] = {}
    ratios: list[float] = []
    totals = [0.0, 0.0]
    proven = True
    for model in models:
        pairs = [
            (mnnprep(model, dynamic=options.dynamic), script(model, dynamic=options.dynamic))
            for _ in range(max(1, options.rounds))
        ]
        ours, theirs = median(a.seconds for a, _ in pairs), median(b.seconds for _, b in pairs)
        ratio = median(a.seconds / b.seconds for a, b in pairs)
        outcomes = sorted({a.outcome for a, _ in pairs}), sorted({b.outcome for _, b in pairs})
        proven &= outcomes[0] == ["proven"]
        if outcomes[1] == ["ran"]:
            ratios.append(ratio)
            totals = [totals[0] + ours, totals[1] + theirs]
        measured[model] = {"pairs": [[a._asdict(), b._asdict()] for a, b in pairs], "ratio": ratio}
        print(
            line.format(
                model,
                f"{ours:.1f}",
                f"{theirs:.1f}",
                f"{ratio:.2f}",
                "; script: ".join(", ".join(o) for o in outcomes),
            ),
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"goal": GOAL, "models": measured}, indent=1) + "\n")
    if not ratios:
        sys.exit("the script got through none of these nets: nothing to compare")
    ours, theirs = totals
    print(
        f"\n{len(ratios)} of {len(measured)} nets compared, together {ours:.1f} s against {theirs:.1f} s,"
        f" {ours / theirs:.2f};",
        end=" ",
    )
    print(f"median ratio {median(ratios):.2f}, worst {max(ratios):.2f} (goal: at most {GOAL})")
    return 0 if proven and max(ratios) <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
