"""The zoo and the real files on a phone's arithmetic and on older engines; docs/phone.md is made of it.

    python -m evaluation.on_targets ROWS.jsonl [--only TEXT] [--page]

Every net is prepared with ``--target phone``; its bundle is then verified on every engine that is here, on
this machine and on ARM64 (`mnnprep target add arm64`, and `host,engine=3.2.0`, `arm64,engine=3.2.0` and so
on). ROWS.jsonl keeps a line a net: a net that is in it is not run again. ``--page`` writes the page. About a
minute a net on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from evaluation import same_sources, zoo
from evaluation.places import ROOT, environment
from mnnprep import deps
from mnnprep.model.target import version_key
from mnnprep.targets.places import environments

PAGE = ROOT / "docs" / "phone.md"
PHONE = ("arm64:high", "arm64:low", "arm64:low,cpu=cortex-a53")
ARCHES = ("host", "arm64")
SECONDS = 900


class OnTarget(msgspec.Struct, frozen=True):
    """A target's status, and the least SQNR of an output there in dB; None: it did not run."""

    status: str
    sqnr_db: float | None
    reason: str = ""


class Net(msgspec.Struct, frozen=True):
    """A net: what it is prepared from, its verdict, the rules applied, and each target."""

    name: str
    verdict: str
    reason: str
    repairs: list[str]
    targets: dict[str, OnTarget]


def nets() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The name, source and options of each net; a real file is downloaded."""
    for collection in zoo.COLLECTIONS:
        for entry in collection.entries:
            options = zoo.command(collection, entry, Path("x"), "")[5:-3]
            yield f"{collection.framework}/{entry.name}", f"{collection.file}:{entry.name}", tuple(options)
    for real in same_sources.entries():
        if real.name.startswith("real/"):
            yield real.name, "", real.options


def located(name: str) -> str:
    """The path of a real file."""
    return next(entry.locate() for entry in same_sources.entries() if entry.name == name)


def engine_targets() -> list[str]:
    """Every engine that is here, on this machine and on ARM64, the oldest first."""
    there = {(r.arch, r.engine) for _, r in environments() if r.engine}
    versions = sorted({version for _, version in there}, key=version_key)
    mine = deps.version("MNN")
    return [f"{arch}:high,engine={v}" for arch in ARCHES for v in versions if (arch, v) != ("host", mine)]


def measure(name: str, source: str, options: tuple[str, ...]) -> Net:
    """Prepare the net, and verify its bundle on the engines."""
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory) / "bundle"
        phone = [word for target in PHONE for word in ("--target", target)]
        document = answer("prepare", source or located(name), *options, *phone, "-o", str(bundle))
        verdict = str(document.get("verdict", "refused"))
        found = targets_of(document)
        if (bundle / "manifest.json").is_file() and document.get("mnn"):
            engines = [word for target in engine_targets() for word in ("--target", target)]
            found |= targets_of(answer("verify", str(bundle), *engines))
        repairs = [r["rule"] for r in document.get("artifact", {}).get("repairs", [])]
        why = "" if verdict == "proven" else zoo.reason(document)
        return Net(name, verdict, why, sorted(set(repairs)), found)


def answer(*words: str) -> dict[str, Any]:
    """What ``mnnprep`` prints with ``--json``; an error's document if it was stopped."""
    command = [sys.executable, "-m", "mnnprep", *words, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment())
        return dict(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        return {"error": {"what": f"no answer: {type(error).__name__}"}}


def targets_of(document: dict[str, Any]) -> dict[str, OnTarget]:
    """The targets of a bundle's or a verification's document."""
    found = {}
    for check in document.get("evidence", []):
        if check["check"].startswith("target:"):
            judged = [value for key, value in check.get("numbers", {}).items() if key.startswith("sqnr_db:")]
            errors = [e["sqnr_db"] for e in check.get("outputs", []) if e.get("sqnr_db") is not None]
            ratios = judged or errors
            name = check["check"].removeprefix("target:")
            found[name] = OnTarget(check["status"], min(ratios, default=None), check.get("reason", ""))
    return found


def read(path: Path) -> dict[str, Net]:
    """The nets that are in the file already."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return {net.name: net for net in (msgspec.json.decode(line, type=Net) for line in lines)}


def cell(found: OnTarget | None) -> str:
    """A target's cell: the SQNR, in bold if it is wrong."""
    if found is None:
        return ""
    if found.sqnr_db is None:
        return {"passed": "exact", "failed": "**fails**", "not_run": "not run"}[found.status]
    number = f"{found.sqnr_db:.0f}"
    return number if found.status == "passed" else f"**{number}**"


def page(found: list[Net]) -> str:
    """docs/phone.md: the same rows give the same text."""
    engines = sorted(
        {name for net in found for name in net.targets if "engine=" in name},
        key=lambda name: (name.split(":")[0] != "host", version_key(name.rpartition("=")[2])),
    )
    right = [net for net in found if net.verdict == "proven"]
    low = [net for net in found if "arm64:low" in net.targets]
    kept = sum(net.targets["arm64:low"].status == "passed" for net in low)
    lines = [
        "# What a phone computes, net by net",
        "",
        "Nets of many architectures with seeded weights (`torch/`, `keras/`) and trained files (`real/`),",
        f"prepared with `--target phone` by MNN {deps.version('MNN')}: {len(right)} of {len(found)} are"
        " proven on this",
        "machine and on all three targets;"
        f" of the {len(low)} that reach the targets, {kept} are right at precision `low` on a CPU with",
        "float16. Each cell is the least SQNR of an output over the cases, in dB; bold: wrong there. Made by",
        "`python -m evaluation.on_targets rows.jsonl --page`.",
        "",
        "| net | verdict | arm64 high | arm64 low | cortex-a53 low | rules applied |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for net in found:
        cells = [cell(net.targets.get(target)) for target in PHONE]
        lines.append(f"| {net.name} | {net.verdict} | {' | '.join(cells)} | {', '.join(net.repairs)} |")
    names = [name.replace(":high,engine=", " ") for name in engines]
    lines += [
        "",
        "## Older engines",
        "",
        "The same converted models, at precision high, in the engines that apps may still ship. Right is what"
        " keeps float32's",
        "tolerance.",
        "",
        f"| net | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
    ]
    for net in found:
        if any(name in net.targets for name in engines):
            lines.append(f"| {net.name} | {' | '.join(cell(net.targets.get(name)) for name in engines)} |")
    broken = [line for net in found for line in wrong(net)]
    return "\n".join([*lines, "", "## What is wrong where", "", *(broken or ["Nothing."]), ""])


def wrong(net: Net) -> list[str]:
    """Where the net is wrong and how, in a line; a second if it is not proven for another reason."""
    failed = {name: on for name, on in net.targets.items() if on.status == "failed"}
    lines = []
    if net.verdict != "proven" and not any(name in failed for name in PHONE):
        lines.append(f"- `{net.name}` ends {net.verdict} on this machine: {brief(net.reason)}")
    if failed:
        where = ", ".join(name.replace(":high,engine=", " ") for name in failed)
        lines.append(f"- `{net.name}` on {where}: {brief(next(iter(failed.values())).reason)}")
    return lines


def brief(reason: str) -> str:
    """The first thing that *reason* says, in one line."""
    return " ".join(reason.split("; ", maxsplit=1)[0].split())[:160]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("--only", default="", help="nets whose name has this in it")
    parser.add_argument("--page", action="store_true", help="write docs/phone.md")
    options = parser.parse_args()
    done = read(options.rows)
    for name, source, given in nets():
        if options.only in name and name not in done:
            done[name] = measure(name, source, given)
            with options.rows.open("ab") as file:
                file.write(msgspec.json.encode(done[name]) + b"\n")
            cells = {t: cell(on) for t, on in done[name].targets.items()}
            print(name, done[name].verdict, *cells.values(), flush=True)
    if options.page:
        order = [name for name, _, _ in nets() if name in done]
        PAGE.write_text(page([done[name] for name in order]))
        print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
