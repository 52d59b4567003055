"""`mnnprep bisect` on planted faults: does it name the node, at what cost, and how does MNN's own way
compare?

    python -m evaluation.bisect [--faults 100] [--seed 0] [--own 5] [--net NAME]... [--json FILE]

Faults: a converter that changes one node (planting.py) makes the bundle's MNN model, and the pieces that are
converted during the search; the artifact stays the reference.  A fault that does not move an output beyond
the tolerance, or that the converter does not take, is printed as discarded and replaced by another.  Hazards:
what MNN computes wrongly by itself, in the middle of a net (bisect_nets.py), prepared and bisected with the
package's own converter.

A hit is the node by its exact name, alone (also where it is wrong only among its neighbours), or, counted
apart, a group with it that MNN fused.  Conversions are counted by the planted converter itself; memory is the
largest worker's, against the largest worker of running artifact and MNN model without values inside. MNN's
own way, on the first --own faults: halving over the nodes; for each node tested, a model with its output is
converted, run in onnxruntime, written as text, and compared by the converter's --testdir; the same planted
converter does its work.
Exit code: 0 when the goals are met (95 % named, conversions within 2 log2 N + 10, memory within twice), else
1.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

import mnnprep
from evaluation.bisect import planting
from evaluation.nets import bisect_nets
from evaluation.nets.real_models import fetch
from mnnprep.model.files import file_ref, load_arrays

GOAL, MOST_MEMORY = 0.95, 2.0
TRIES = 30  # faults tried for each one that counts


def bundles(names: list[str], directory: Path) -> dict[str, Path]:
    """A clean, proven bundle of every net."""
    made = {}
    for name in names:
        if name in bisect_nets.NETS:
            source = bisect_nets.export(name, directory / f"{name}.onnx")
        else:
            source = fetch(name)
        manifest = mnnprep.prepare(
            source, directory / name, dims={"N": (1, 2)} if name.startswith("mtcnn") else None
        )
        assert manifest is not None
        print(
            f"{name}: {manifest.verdict.value}, {len(onnx.load(source, load_external_data=False).graph.node)}"
            " nodes",
            flush=True,
        )
        if manifest.verdict.value == "proven":
            made[name] = directory / name
    return made


def faulty(clean: Path, target: Path, converter: Path, fault: dict[str, Any]) -> str:
    """*clean* as the planted converter would have made it, at *target*; why the fault does not count, else
    empty.
    """
    model = onnx.load(clean / "model.onnx")
    if not planting.planted(model, fault):
        return "no such node"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(clean, target)
    (target / "model.mnn").unlink()
    out = target / "unproven.mnn"
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            [
                converter,
                "-f",
                "ONNX",
                "--modelFile",
                target / "model.onnx",
                "--MNNModel",
                out,
                "--bizCode",
                "planted",
            ],
            cwd=place,
            capture_output=True,
        )
    if not out.exists():
        return "the converter does not take it"
    record = json.loads((target / "manifest.json").read_text())
    ref = file_ref(out)
    record["mnn"] = {"path": out.name, "sha256": ref.sha256, "size": ref.size}
    record["files"] = [f for f in record["files"] if f["path"] != "model.mnn"] + [record["mnn"]]
    record["verdict"] = "differs"
    (target / "manifest.json").write_text(json.dumps(record))
    return ""


def moves_nothing(bundle: Path, found: mnnprep.api.Bisection) -> bool:
    """Whether no output of the faulty bundle is off: asked of `verify` where `bisect` found nothing."""
    if found.outcome != "agrees":
        return False
    compared = next(c for c in mnnprep.verify(bundle).evidence if c.check == "mnn_compare")
    return compared.status.value == "passed"


def own_way(bundle: Path, converter: Path, directory: Path) -> tuple[float, int, str]:
    """MNN's way: seconds, conversions, and the node it ends at."""
    import onnxruntime as ort

    started = time.perf_counter()
    record = json.loads((bundle / "manifest.json").read_text())
    inputs = {
        n.removeprefix("inputs/"): a
        for n, a in load_arrays(bundle / record["cases"][0]["path"]).items()
        if n.startswith("inputs/")
    }
    model = onnx.load(bundle / "model.onnx")
    nodes = [n for n in model.graph.node if n.op_type != "Constant"]
    low, high, conversions = -1, len(nodes) - 1, 0
    while high - low > 1:
        middle = (low + high) // 2
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        cut.graph.output.append(onnx.ValueInfoProto(name=nodes[middle].output[0]))
        place = directory / f"own-{middle}"
        (place / "test").mkdir(parents=True)
        onnx.save(cut, place / "cut.onnx")
        session = ort.InferenceSession(str(place / "cut.onnx"))
        reference = session.run(None, inputs)[0]
        for name, array in [*inputs.items(), (cut.graph.output[0].name, reference)]:
            path = place / "test" / f"{name.lstrip('/')}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{v}\n" for v in np.asarray(array).reshape(-1).tolist()))
        described = {
            "inputs": [{"name": n, "shape": list(a.shape)} for n, a in inputs.items()],
            "outputs": [cut.graph.output[0].name],
        }
        (place / "test" / "input.json").write_text(json.dumps(described))
        done = subprocess.run(
            [
                converter,
                "-f",
                "ONNX",
                "--modelFile",
                place / "cut.onnx",
                "--MNNModel",
                place / "o.mnn",
                "--bizCode",
                "own",
                "--testdir",
                "test",
            ],
            cwd=place,
            capture_output=True,
            text=True,
            errors="replace",
        )
        conversions += 1
        if "TEST_SUCCESS" in done.stdout:
            low = middle
        else:
            high = middle
        shutil.rmtree(place)
    return (
        time.perf_counter() - started,
        conversions,
        f"{nodes[high].op_type} {nodes[high].name or nodes[high].output[0]}",
    )


class Score:
    """Counts what was named, and what it cost."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, net: str, what: str, label: str, found: mnnprep.api.Bisection, counted: int, seconds: float
    ) -> None:
        exact = found.outcome in ("node", "context") and found.nodes == [label]
        fused = found.outcome == "fused" and label in found.nodes
        bound = 2 * math.log2(max(2, found.model_nodes)) + 10
        row = {
            "net": net,
            "fault": what,
            "node": label,
            "hit": "exact" if exact else "fused" if fused else "",
            "outcome": found.outcome,
            "named": found.nodes,
            "where": found.where,
            "conversions": counted,
            "bound": bound,
            "runs": found.runs,
            "memory": found.memory_ratio,
            "seconds": round(seconds, 2),
            "message": found.message,
        }
        self.rows.append(row)
        mark = row["hit"] or "MISS"
        print(
            f"{mark:5} {net:16} {what:34} {label:40.40} {counted} conversions {seconds:5.1f} s memory"
            f" {found.memory_ratio or 0:.2f}",
            flush=True,
        )
        if not row["hit"]:
            print(f"      {found.outcome} {found.nodes} {found.message}", flush=True)

    def met(self, title: str) -> bool:
        hits = [r for r in self.rows if r["hit"]]
        exact = sum(r["hit"] == "exact" for r in hits)
        conversions = [r["conversions"] for r in self.rows]
        memory = [r["memory"] for r in self.rows if r["memory"]]
        within = all(r["conversions"] <= r["bound"] for r in self.rows)
        print(
            f"\n{title}: {len(hits)} of {len(self.rows)} named ({exact} exactly, {len(hits) - exact} as MNN's"
            f" fused group); conversions median {median(conversions)}, most {max(conversions)},"
            f" {'all' if within else 'NOT all'} within 2 log2 N + 10; memory median"
            f" {median(memory or [0]):.2f}, most {max(memory or [0]):.2f} times a plain run; seconds median"
            f" {median(r['seconds'] for r in self.rows):.1f}"
        )
        return len(hits) >= GOAL * len(self.rows) and within and max(memory or [0]) <= MOST_MEMORY


def plant(options: argparse.Namespace, directory: Path) -> Score:
    clean = bundles(options.net or [*bisect_nets.NETS, *bisect_nets.REAL], directory)
    rng, score, discarded, seen = random.Random(options.seed), Score(), 0, set()
    names = list(clean)
    for number in range(options.faults):
        name = names[number % len(names)]
        model = onnx.load(clean[name] / "model.onnx")
        for _ in range(TRIES):
            fault, label = planting.choose(model, rng)
            what = fault["kind"] + " " + str(fault.get("to") or fault.get("name") or fault.get("by") or "")
            if (name, str(fault)) in seen:
                continue
            seen.add((name, str(fault)))
            log = directory / "log"
            converter = planting.write_converter(directory / "converter", fault, log)
            why = faulty(clean[name], directory / "faulty", converter, fault)
            if not why:
                log.write_text("")
                started = time.perf_counter()
                found = mnnprep.bisect(directory / "faulty", mnnconvert=converter)
                seconds = time.perf_counter() - started
                if not moves_nothing(directory / "faulty", found):
                    break
                why = "it moves no output"
            discarded += 1
            print(f"      discarded: {name} {what} {label}: {why}", flush=True)
        else:
            continue
        score.add(name, what, label, found, len(log.read_text().splitlines()), seconds)
        if number < options.own:
            theirs, conversions, ended = own_way(directory / "faulty", converter, directory)
            right = "named it" if ended == label else f"ended at {ended}"
            score.rows[-1]["own"] = {"seconds": theirs, "conversions": conversions, "ended": ended}
            print(
                f"      MNN's own way: {theirs:.1f} s, {conversions} conversions, {right}; ours {seconds:.1f}"
                f" s: {theirs / seconds:.1f} times faster"
            )
    print(f"{discarded} faults discarded")
    return score


def hazards(directory: Path) -> Score:
    score = Score()
    for what, (write, label) in bisect_nets.HAZARDS.items():
        source = write(directory / "hazard.onnx")
        # without the rules: what they repair is MNN's fault as well
        manifest = mnnprep.prepare(source, directory / "hazard", force=True, repairs=())
        assert manifest is not None
        if manifest.verdict.value == "proven":
            print(f"      {what}: MNN computes it right: no hazard", flush=True)
            continue
        node = next(n for n in onnx.load(source).graph.node if n.name == label)
        started = time.perf_counter()
        found = mnnprep.bisect(directory / "hazard")
        score.add(
            "hazard", what, f"{node.op_type} {label}", found, found.conversions, time.perf_counter() - started
        )
    return score


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.bisect", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--own", type=int, default=5, help="faults on which MNN's own way is run beside (default 5)"
    )
    parser.add_argument("--net", action="append", default=[], choices=[*bisect_nets.NETS, *bisect_nets.REAL])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bisect-") as name:
        own = hazards(Path(name))
        score = plant(options, Path(name))
    if options.json:
        options.json.write_text(json.dumps({"faults": score.rows, "hazards": own.rows}, indent=1) + "\n")
    return 0 if all([own.met("hazards"), score.met("planted faults")]) else 1
