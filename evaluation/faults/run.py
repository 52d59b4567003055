"""Faults planted on purpose, and right models, through mnnprep's command line: what is missed, and what is
refused without a reason.

    python -m evaluation.faults [--work DIR] [--resume] [--group fault|clean|baked]... [--kind KIND]...
                                [--models NAME]... [--only ID]... [--limit N] [--every N]

Three groups of trials.  A *fault* sits between the source and what ends in the bundle (in the code while it
is exported, in a file, in the converter, in the bundle itself); it counts when it moves an output by three
tolerances on inputs that were searched for, judged without mnnprep (``judge``), and must end as
anything but ``proven``, by a check that compares.  One weight off by 1 % counts always where the artifact's
weights are compared.  A *clean* model must be proven at every size swept of every dimension; one that is not
counts as a false alarm only if MNN's own numbers, run here again, are right.  A *baked* model is right at the
shape it was exported with, and must be caught with the frozen dimension named.

Results are written line by line to DIR/results.jsonl, so that ``--resume`` goes on where it stopped.
Exit code: 0 when no fault was missed, at most one false alarm was raised, and every baked dimension was
named; else 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.faults.judge import LEAST
from evaluation.places import environment

ENVIRONMENT = environment(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
FRAMEWORKS = ("torch", "onnx", "caffe", "tensorflow")
TIME_LIMIT = 300
BY_VALUE = "weight_1_percent"
Row = dict[str, Any]


# --- the plan
# -------------------------------------------------------------------------------------------------


def plan(work: Path, frameworks: list[str]) -> list[Row]:
    """The trials, made once in *work*."""
    rows: list[Row] = []
    for framework in frameworks:
        path = work / f"{framework}.jsonl"
        if not path.exists():
            print(f"making the models and faults of {framework}", file=sys.stderr, flush=True)
            done = subprocess.run(
                [sys.executable, "-m", "evaluation.faults.plan", framework, str(work)],
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                errors="replace",
            )
            if done.returncode:
                sys.exit(f"the models of {framework} could not be made:\n{done.stderr[-3000:]}")
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def counts(row: Row) -> bool:
    """Whether a planted fault is one: it moves an output, or is of a kind that needs no such judgement."""
    by_value = row["kind"] == BY_VALUE and row["format"] == "torch" and row["how"] == "prepare"
    return row["moved"] is None or row["moved"] >= LEAST or by_value


def _turn(row: Row) -> float:
    """The order of the trials: mixed, the cheap ones rather earlier, so that a run that is stopped has seen
    many, and some of everything.
    """
    cost = {"onnx": 1.0, "mnn": 1.0, "caffe": 1.0, "torch": 2.5}.get(row["format"], 3.0) * (
        0.6 if row["group"] == "baked" else 1.0
    )
    return cost * int.from_bytes(hashlib.sha256(row["id"].encode()).digest()[:4])


# --- running
# ------------------------------------------------------------------------------------------------------


def mnnprep(*arguments: str) -> tuple[int, Any, str]:
    """Exit code, the JSON document (or None), the end of stderr."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mnnprep", *arguments, "--json"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return -1, None, f"stopped after {TIME_LIMIT} s"
    try:
        return done.returncode, json.loads(done.stdout), done.stderr[-600:]
    except json.JSONDecodeError:
        return done.returncode, None, done.stderr[-600:]


def convert(model: Path, target: Path) -> None:
    """MNN's converter on an ONNX file, in a process of its own."""
    code = (
        "import sys, _tools; _tools.mnnconvert(['MNNConvert', '-f', 'ONNX', '--modelFile', sys.argv[1],"
        " '--MNNModel', sys.argv[2], '--bizCode', 'x'])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(model), str(target)],
        cwd=target.parent,
        capture_output=True,
        timeout=TIME_LIMIT,
    )


def spoil(bundle: Path, action: str, file: str) -> str:
    """Change a bundle as a mistake (or a forger who mends the hashes) would; what could not be done, or
    empty.
    """
    manifest = json.loads((bundle / "manifest.json").read_text())
    if action == "mnn":
        convert(Path(file), bundle / "other.mnn")
        if not (bundle / "other.mnn").is_file():
            return "MNN does not convert the spoiled model"
        (bundle / "other.mnn").replace(bundle / manifest["mnn"]["path"])
        _rehash(manifest["mnn"], bundle)
    elif action == "artifact":
        shutil.copyfile(file, bundle / manifest["artifact"]["files"][0]["path"])
        _rehash(manifest["artifact"]["files"][0], bundle)
    else:
        paths = [bundle / case["path"] for case in manifest["cases"]]
        kept = [dict(np.load(path)) for path in paths]
        for number, (path, arrays) in enumerate(zip(paths, kept, strict=True)):
            same = [
                k for k in kept if k is not arrays and all(k[n].shape == a.shape for n, a in arrays.items())
            ]
            for name in [n for n in arrays if n.startswith("outputs/")]:
                if action == "zeroed-references":
                    arrays[name] = np.zeros_like(arrays[name])
                elif number == 0:
                    arrays[name] = same[0][name]
            np.savez(path, **arrays)
        for case in manifest["cases"]:
            _rehash(case, bundle)
    for entry in manifest["files"]:
        _rehash(entry, bundle)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    mnnprep("report", str(bundle))
    return ""


def _rehash(entry: dict[str, Any], bundle: Path) -> None:
    data = (bundle / entry["path"]).read_bytes()
    entry["sha256"], entry["size"] = hashlib.sha256(data).hexdigest(), len(data)


def bundle_of(row: Row, work: Path) -> Path | None:
    """The proven bundle of a model, made once."""
    target = work / "bundles" / f"{row['format']}-{row['model']}"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        code, _, _ = mnnprep("prepare", *row["command"], "-o", str(target))
        if code != 0:
            shutil.rmtree(target, ignore_errors=True)
    return target if target.exists() else None


def run(row: Row, work: Path) -> Row:
    """The trial's outcome: exit code, verdict, and the checks behind it."""
    started = time.perf_counter()
    result: Row = {"id": row["id"], "note": ""}
    with tempfile.TemporaryDirectory(prefix="faults-", dir=work) as scratch:
        target = Path(scratch) / "bundle"
        if row["how"] == "compare":
            code, document, noise = mnnprep("compare", *row["command"])
        elif row["how"] == "prepare":
            code, document, noise = mnnprep("prepare", *row["command"], "-o", str(target))
        else:
            base = bundle_of(row, work)
            if base is None:
                return result | {
                    "outcome": "discarded",
                    "note": "the right model has no proven bundle to spoil",
                    "seconds": 0.0,
                }
            if row["action"] == "compare-mnn":
                other = Path(scratch) / "other.mnn"
                convert(Path(row["file"]), other)
                if not other.is_file():
                    return result | {
                        "outcome": "discarded",
                        "note": "MNN does not convert the spoiled model",
                        "seconds": 0.0,
                    }
                code, document, noise = mnnprep("compare", row["command"][0], str(other), *row["command"][1:])
            else:
                shutil.copytree(base, target)
                if problem := spoil(target, row["action"], row["file"]):
                    return result | {"outcome": "discarded", "note": problem, "seconds": 0.0}
                code, document, noise = mnnprep("verify", str(target))
        result |= read(code, document, noise)
        if row["group"] == "clean":
            result["outcome"] = clean_outcome(row, result, document, target)
        elif row["group"] == "baked":
            result["outcome"] = baked_outcome(row, result)
        else:
            result["outcome"] = fault_outcome(row, result)
            if result["outcome"] == "missed" and row["reference"] and target.exists():
                answer = recheck(row, target)
                if answer.startswith("right"):  # a converter that reads the spoiled file as the right one
                    result |= {
                        "outcome": "discarded",
                        "note": f"the fault is not in the converted model: {answer}",
                    }
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def read(code: int, document: Any, noise: str) -> Row:
    """What the command said, in short."""
    document = document if isinstance(document, dict) else {}
    evidence = document.get("evidence", [])
    failed = [c for c in evidence if c.get("required", True) and c["status"] == "failed"]
    waiting = [c for c in evidence if c.get("required", True) and c["status"] == "not_run"]
    error = document.get("error") or {}
    dims = (document.get("signature") or {}).get("dims") or {}
    return {
        "code": code,
        "verdict": document.get("verdict", ""),
        "failed": [[c["check"], c.get("reason", "")[:300]] for c in failed],
        "not_run": [[c["check"], c.get("reason", "")[:300]] for c in waiting],
        "dims": dims,
        "said": (
            f"{error.get('what', '')}: {error.get('seen', '')}"[:400]
            if error
            else ("" if document else noise[-300:])
        ),
        "attempts": [
            [a["method"], a.get("verdict", ""), a.get("reason", "")[:200]]
            for a in (document.get("artifact") or {}).get("attempts", [])
        ],
    }


CRASHES = ("crashed", "SIG", "ended with exit status", "took longer")
VERDICTS = ("unproven", "differs", "refused")


def fault_outcome(row: Row, result: Row) -> str:
    """``caught``: a verdict with a failed check that compares (of a crash, any but ``proven``); ``stopped``
    without one; ``missed``.
    """
    if result["code"] == 0:
        return "missed"
    if row["kind"] == "crash":
        return "caught" if result["verdict"] in VERDICTS else "stopped"
    compared = [
        c for c, why in result["failed"] if c != "mnn_convert" and not any(word in why for word in CRASHES)
    ]
    return "caught" if result["verdict"] in VERDICTS and compared else "stopped"


def baked_outcome(row: Row, result: Row) -> str:
    """``caught`` with the frozen dimension, and no other, named; ``unnamed`` where it was caught
    otherwise.
    """
    if result["code"] == 0:
        return "missed"
    named = {
        c.partition(":")[2] for c, _ in [*result["failed"], *result["not_run"]] if c.startswith("dimension:")
    }
    return "caught" if row["axis"] in named else "unnamed"


def clean_outcome(row: Row, result: Row, document: Any, bundle: Path) -> str:
    if result["code"] == 0 and result["verdict"] == "proven":
        short = [
            n
            for n, d in result["dims"].items()
            if d["min"] is not None and not {d["min"], d["max"]} <= set(d["proven"])
        ]
        result["note"] = f"not over the whole range of {', '.join(short)}" if short else ""
        return "short" if short else "proven"
    if not (bundle / "unproven.mnn").is_file() or not result["attempts"]:
        result["note"] = "nothing was converted"
        return "refused"
    result["note"] = recheck(row, bundle)
    return "false alarm" if result["note"].startswith("right") else "refused"


def recheck(row: Row, bundle: Path) -> str:
    """What the benchmark's own run of the bundle's converted model says: ``right ...`` or why not."""
    how = json.dumps(row["reference"])
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.faults.recheck", str(bundle), how],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIME_LIMIT,
    )
    return (done.stdout.strip().splitlines() or [f"MNN ended with {done.returncode}"])[-1]


# --- the report
# -----------------------------------------------------------------------------------------------------


def report(rows: list[Row], results: dict[str, Row]) -> bool:
    """Print the figures of what was run; whether the goal is reached for it."""
    planted = [r for r in rows if r["group"] == "fault" and (r["id"] in results or not counts(r))]
    still = [r for r in planted if not counts(r)]
    ran = [(r, results[r["id"]]) for r in planted if counts(r) and r["id"] in results]
    dropped = [(r, x) for r, x in ran if x["outcome"] == "discarded"]
    real = [(r, x | {"outcome": fault_outcome(r, x)}) for r, x in ran if x["outcome"] != "discarded"]
    outcome = Counter(x["outcome"] for _, x in real)
    print(
        f"\nfaults: {len(planted)} planted; {len(still)} discarded, for they move no output by {LEAST:g}"
        f" tolerances; {len(dropped)} could not be made"
    )
    for r, x in dropped:
        print(f"  not made   {r['id']}: {x['note']}")
    print(
        f"        {len(real)} over {len({r['model'] for r, _ in real})} models: {outcome['caught']} caught,"
        f" {len(real) - outcome['caught']} missed"
    )
    for name, key in (("format", "format"), ("kind", "kind"), ("way", "how")):
        table = Counter(r[key] for r, _ in real)
        print(f"  by {name}: " + ", ".join(f"{k} {n}" for k, n in sorted(table.items(), key=lambda i: -i[1])))
    for r, x in real:
        if x["outcome"] != "caught":
            print(
                f"  {x['outcome']:10} {r['id']} (moved {r['moved']}): exit {x['code']}, {x['verdict']}"
                f" {x['failed'] or x['said']}"
            )
    clean = [(r, results[r["id"]]) for r in rows if r["group"] == "clean" and r["id"] in results]
    found = Counter(x["outcome"] for _, x in clean)
    print(
        f"clean: {len(clean)} models: {found['proven']} proven over the whole range; {found['false alarm']}"
        " false alarms;",
        end=" ",
    )
    print(f"{found['refused']} that MNN gets wrong, {found['short']} not proven over the whole range")
    for r, x in clean:
        if x["outcome"] != "proven":
            why = x["failed"] or x["not_run"] or x["said"]
            said = f"{x['note']}; exit {x['code']}, {x['verdict']} {why}"
            print(f"  {x['outcome']:11} {r['id']}: {said}"[:500])
    frozen = [(r, results[r["id"]]) for r in rows if r["group"] == "baked" and r["id"] in results]
    valid = [(r, x) for r, x in frozen if r["moved"] >= LEAST]
    named = sum(x["outcome"] == "caught" for _, x in valid)
    print(
        f"baked: {len(valid)} models with a frozen dimension ({len(frozen) - len(valid)} discarded: nothing"
        f" is frozen): {named} caught with it named"
    )
    for r, x in valid:
        if x["outcome"] != "caught":
            said = f"exit {x['code']}, {x['verdict']} {x['failed'] or x['said']}"
            print(f"  {x['outcome']:10} {r['id']} ({r['axis']}): {said}"[:500])
    return (
        outcome["caught"] == len(real) and found["false alarm"] + found["short"] <= 1 and named == len(valid)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/faults"),
        help="where models, bundles and results are kept (default build/faults)",
    )
    parser.add_argument("--resume", action="store_true", help="keep the results that are there, run the rest")
    parser.add_argument(
        "--framework",
        action="append",
        default=[],
        choices=FRAMEWORKS,
        help="the trials of this one only (repeatable)",
    )
    parser.add_argument("--group", action="append", default=[], choices=("fault", "clean", "baked"))
    for name in ("kind", "models", "only"):
        parser.add_argument(f"--{name}", action="append", default=[], help="these trials only (repeatable)")
    parser.add_argument("--limit", type=int, default=0, help="at most so many trials")
    parser.add_argument("--every", type=int, default=1, help="every Nth trial only")
    parser.add_argument(
        "--report", action="store_true", help="run nothing: the figures of the results that are there"
    )
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    rows = plan(work, options.framework or list(FRAMEWORKS))
    chosen = [
        r
        for r in rows
        if all(
            not wanted or value in wanted
            for wanted, value in (
                (options.group, r["group"]),
                (options.kind, r["kind"]),
                (options.models, r["model"]),
                (options.only, r["id"]),
            )
        )
    ][:: options.every]
    log = work / "results.jsonl"
    results = (
        {x["id"]: x for x in map(json.loads, log.read_text().splitlines())}
        if log.exists() and (options.resume or options.report)
        else {}
    )
    if not options.report:
        waiting = [
            r
            for r in chosen
            if r["id"] not in results
            and (r["group"] != "fault" or counts(r))
            and (r["group"] != "baked" or r["moved"] >= LEAST)
        ]
        waiting.sort(key=_turn)
        waiting = waiting[: options.limit or None]
        with log.open("a" if options.resume else "w") as file:
            for number, row in enumerate(waiting, start=1):
                results[row["id"]] = result = run(row, work)
                file.write(json.dumps(result) + "\n")
                file.flush()
                print(
                    f"{number}/{len(waiting)} {result['seconds']:6} s  {result['outcome']:11} {row['id']}",
                    flush=True,
                )
    return 0 if report(chosen, results) else 1
