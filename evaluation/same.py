"""Whether mnnprep still behaves as it did: prepare some hundred sources of all formats, write down the
outcome, compare two such records.

    python -m evaluation.same record before.json     # about 15 minutes on two cores; --only PATTERN: a part
    python -m evaluation.same record after.json
    python -m evaluation.same compare before.json after.json

A record holds, for each source, the exit code, the verdict, the sha256 of the artifact's and the MNN model's
files, and every check with its status and its numbers; texts are left out, so that a message may be worded
anew. The comparison exits with 1 if any of that differs, and prints each difference.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evaluation.places import environment
from evaluation.same_sources import Entry, entries

TIME_LIMIT = 900  # seconds, for one source
ENVIRONMENT = environment()


def record(entry: Entry) -> dict[str, Any]:
    """Prepare one source and return its outcome as plain data."""
    source = entry.locate()
    with tempfile.TemporaryDirectory(prefix="same-") as directory:
        command = [
            sys.executable,
            "-m",
            "mnnprep",
            "prepare",
            source,
            *entry.options,
            "-o",
            f"{directory}/bundle",
            "--json",
        ]
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIME_LIMIT,
            )
        except subprocess.TimeoutExpired:
            return {"exit_code": None}
        found: dict[str, Any] = {"exit_code": done.returncode}
        manifest = Path(directory, "bundle", "manifest.json")
        if manifest.is_file():
            found |= outcome(json.loads(manifest.read_bytes()))
        return found


def outcome(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says, without its texts."""
    artifact = manifest["artifact"]
    return {
        "verdict": manifest["verdict"],
        "method": artifact["method"],
        "opset": artifact["opset"],
        "repairs": [repair["rule"] for repair in artifact["repairs"]],
        "artifact": {file["path"]: file["sha256"] for file in artifact["files"]},
        "mnn": manifest["mnn"] and manifest["mnn"]["sha256"],
        "checks": checks(manifest["evidence"]),
        "proven": {name: dim["proven"] for name, dim in manifest["signature"]["dims"].items()},
    }


def checks(evidence: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The checks by name, each with its status and numbers; of a comparison the worst error of each
    output.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for check in evidence:
        worst: dict[str, float] = {}
        for error in check.get("outputs", ()):
            worst[error["output"]] = max(worst.get(error["output"], 0.0), error.get("excess") or 0.0)
        numbers = {
            name: value for name, value in check.get("numbers", {}).items() if isinstance(value, int | float)
        }
        row = {
            "status": check["status"],
            "required": check.get("required", True),
            "numbers": numbers,
            "excess": worst,
        }
        rows.setdefault(check["check"], []).append(row)
    return rows


def differences(before: dict[str, Any], after: dict[str, Any], place: str = "") -> list[str]:
    """Each place at which two records differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = dict.fromkeys((*before, *after))
        return [
            line
            for name in names
            for line in differences(before.get(name), after.get(name), f"{place} {name}".strip())
        ]
    return [] if before == after else [f"{place}: {before} -> {after}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument(
        "--only", default="*", help="sources whose name matches this pattern, for example 'torch/*'"
    )
    recording.add_argument("--jobs", type=int, default=2)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        found = differences(json.loads(arguments.before.read_text()), json.loads(arguments.after.read_text()))
        print("\n".join(found) or "no difference")
        return int(bool(found))
    chosen = [entry for entry in entries() if fnmatch.fnmatch(entry.name, arguments.only)]
    rows: dict[str, Any] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for entry, row in zip(chosen, pool.map(record, chosen), strict=True):
            rows[entry.name] = row
            print(f"{entry.name}: {row['exit_code']} {row.get('verdict', '')}", flush=True)
    arguments.file.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    print(f"{len(rows)} sources in {arguments.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
