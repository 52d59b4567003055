"""What `mnnprep consolidate` costs beside a plain copy, safetensors, torch and torch's own consolidation.

    python -m benchmarks.consolidate [--size 2GB]... [--directory DIR] [--only NAME]... [--runs N]

The checkpoints are made here: safetensors shards with an index, a zip of torch.save, a
torch.distributed.checkpoint directory of 4 ranks. For every size all ways run in turn, as processes of their
own, so that a loaded machine slows all of them; each starts with its files, and no others, in the page cache,
and ends with `sync`. Told are the median of the wall times, the peak of the resident memory, and the ratio to
the copy of the same files. Exit status 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from mnnprep.model.request import parse_size

MEMORY_LIMIT = 300 << 20
LIMITS = {"no hash": 1.3, "hash": 1.3, "dcp": 2.0}
TENSOR = 64 << 20  # bytes of the largest tensors
SHARDS = 4
SAFETENSORS_LOAD_SAVE = """
import glob, sys
from safetensors.torch import load_file, save_file
state = {}
for path in sorted(glob.glob(sys.argv[1] + "/*.safetensors")):
    state.update(load_file(path))
save_file(state, sys.argv[2])
"""
TORCH_LOAD_SAVE = (
    "import sys, torch\nfrom safetensors.torch import save_file\nsave_file(torch.load(sys.argv[1],"
    " weights_only=True), sys.argv[2])\n"
)
DCP_TO_TORCH = (
    "import sys\nfrom torch.distributed.checkpoint.format_utils import"
    " dcp_to_torch_save\ndcp_to_torch_save(sys.argv[1], sys.argv[2])\n"
)


class Cost(NamedTuple):
    seconds: float
    peak: int


MAKE = """
import json, os, sys
import torch
from safetensors.torch import save_file
directory, size, tensor, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(0)
count = max(shards, size // tensor)
extent = tensor // 4 // 4096
base = torch.randn(extent, 4096)
def values(i):
    return base * (i + 1)
names = [f"layers.{i}.weight" for i in range(count)]
small = {f"layers.{i}.norm": torch.randn(4096) for i in range(count)}
os.makedirs(f"{directory}/shards", exist_ok=True)
weight_map = {}
per = -(-count // shards)
for s in range(shards):
    part = {n: values(i) for i, n in enumerate(names) if i // per == s}
    part |= {f"layers.{i}.norm": small[f"layers.{i}.norm"] for i in range(count) if i // per == s}
    file = f"model-{s + 1:05}-of-{shards:05}.safetensors"
    save_file(part, f"{directory}/shards/{file}", metadata={"format": "pt"})
    weight_map |= dict.fromkeys(part, file)
with open(f"{directory}/shards/model.safetensors.index.json", "w") as file:
    json.dump({"metadata": {}, "weight_map": weight_map}, file)
"""
MAKE_ZIP = """
import glob, sys, torch
from safetensors.torch import load_file
state = {}
for path in sorted(glob.glob(sys.argv[1] + "/shards/*.safetensors")):
    state.update(load_file(path))
torch.save(dict(sorted(state.items(), key=lambda i: int(i[0].split(".")[1]))), sys.argv[1] + "/model.pt")
"""
MAKE_DCP = """
import os, sys
import torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
directory, rank, world, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
dist.init_process_group("gloo", rank=rank, world_size=world)
from torch.distributed.tensor import DTensor
import glob
from safetensors import safe_open
mesh = init_device_mesh("cpu", (world,))
state = {}
for path in sorted(glob.glob(directory + "/shards/*.safetensors")):
    with safe_open(path, "pt") as file:
        for name in file.keys():
            part = file.get_slice(name)
            rows = part.get_shape()[0]
            per = -(-rows // world)
            local = part[min(rows, rank * per):min(rows, rank * per + per)]
            shape = torch.Size(part.get_shape())
            stride = (shape[1], 1) if len(shape) == 2 else (1,)
            state[name] = DTensor.from_local(
                local, mesh, [Shard(0)], shape=shape, stride=stride, run_check=False
            )
dcp.save({"model": state}, checkpoint_id=directory + "/dcp")
dist.barrier()
dist.destroy_process_group()
"""


def make(directory: Path, size: int, wanted: Callable[[str], bool]) -> None:
    """The checkpoints, with the same values."""
    subprocess.run(
        [sys.executable, "-c", MAKE, str(directory), str(size), str(TENSOR), str(SHARDS)], check=True
    )
    if wanted("zip"):
        subprocess.run([sys.executable, "-c", MAKE_ZIP, str(directory)], check=True)
    if wanted("dcp"):
        port = str(29000 + os.getpid() % 5000)
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", MAKE_DCP, str(directory), str(r), str(SHARDS), port],
                stderr=subprocess.DEVNULL,
            )
            for r in range(SHARDS)
        ]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit("torch.distributed.checkpoint could not save")


def measure(command: list[str]) -> Cost:
    """Run *command*, then sync: wall seconds, and the peak of the resident memory of its processes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = [0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            try:
                whole = psutil.Process(process.pid)
                peak[0] = max(
                    peak[0], sum(p.memory_info().rss for p in [whole, *whole.children(recursive=True)])
                )
            except psutil.Error:
                pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}: {' '.join(command)[:200]}")
    os.sync()
    return Cost(time.perf_counter() - started, max(peak[0], usage.ru_maxrss * 1024))


def only_cached(directory: Path, source: str) -> None:
    """Have the files of *source* in the page cache, and nothing else: at 8 GB it does not hold all, and what
    it keeps of the way before decides.
    """
    mine = [directory / "model.pt"] if source == "zip" else sorted((directory / source).iterdir())
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                if path in mine:
                    while file.read(1 << 24):
                        pass
                else:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ways(directory: Path, wanted: Callable[[str], bool]) -> dict[str, tuple[list[str], str]]:
    """Command by name, and the name of what its time is compared with."""
    out = directory / "out.safetensors"
    ours = [sys.executable, "-m", "mnnprep", "consolidate"]
    found: dict[str, tuple[list[str], str]] = {}
    sources = {
        "shards": ("shards/*.safetensors", "shards"),
        "zip": ("model.pt", "model.pt"),
        "dcp": ("dcp/*.distcp", "dcp"),
    }
    others = {
        "shards": ("safetensors load+save", SAFETENSORS_LOAD_SAVE, "shards", "other.safetensors"),
        "zip": ("torch.load+save", TORCH_LOAD_SAVE, "model.pt", "other.safetensors"),
        "dcp": ("dcp_to_torch_save", DCP_TO_TORCH, "dcp", "other.pt"),
    }
    for name, (files, source) in sources.items():
        if not wanted(name):
            continue
        cat = f"cat {directory}/{files} > {out}"
        found[f"{name}: cat"] = (["sh", "-c", cat], "")
        found[f"{name}: cat + sha256sum"] = (
            ["sh", "-c", f"{cat} && sync && sha256sum {directory}/{files} {out}"],
            "",
        )
        found[f"{name}: consolidate --no-hash"] = (
            [*ours, str(directory / source), "-o", str(out), "--no-hash"],
            f"{name}: cat",
        )
        found[f"{name}: consolidate"] = (
            [*ours, str(directory / source), "-o", str(out)],
            f"{name}: cat + sha256sum",
        )
        title, code, given, made = others[name]
        found[f"{name}: {title}"] = (
            [sys.executable, "-c", code, str(directory / given), str(directory / made)],
            f"{name}: cat",
        )
    if wanted("shards"):
        found["shards: consolidate --dtype bfloat16 --no-hash"] = (
            [*ours, str(directory / "shards"), "-o", str(out), "--no-hash", "--dtype", "bfloat16"],
            "shards: cat",
        )
    return found


def run(size: int, parent: Path | None, runs: int, only: list[str]) -> tuple[list[dict[str, object]], bool]:
    def wanted(name: str) -> bool:
        return not only or name in only

    rows: list[dict[str, object]] = []
    fine = True
    with tempfile.TemporaryDirectory(dir=parent, prefix="consolidate-") as scratch:
        directory = Path(scratch)
        make(directory, size, wanted)
        os.sync()
        costs: dict[str, list[Cost]] = {}
        commands = ways(directory, wanted)
        for _ in range(runs):
            for name, (command, _) in commands.items():
                for left in (*directory.glob("out.safetensors*"), *directory.glob("other.*")):
                    left.unlink()
                os.sync()
                only_cached(directory, name.partition(":")[0])
                cost = measure(command)
                costs.setdefault(name, []).append(cost)
                print(f"{name}: {cost.seconds:.2f} s, {cost.peak >> 20} MiB", file=sys.stderr, flush=True)
        middle = {name: statistics.median(cost.seconds for cost in found) for name, found in costs.items()}
        for name, (command, beside) in commands.items():
            peak = max(cost.peak for cost in costs[name])
            ratio = middle[name] / middle[beside] if beside else 1.0
            ours = "mnnprep" in command
            changed = "--dtype" in command
            limit = (
                LIMITS["dcp" if name.startswith("dcp") else "no hash" if "--no-hash" in command else "hash"]
                if ours and not changed
                else 0.0
            )
            allowed = MEMORY_LIMIT + (TENSOR if changed else 0)
            ok = not ours or ((not limit or ratio <= limit) and peak <= allowed)
            fine = fine and ok
            rows.append(
                {
                    "way": name,
                    "seconds": round(middle[name], 2),
                    "peak_mib": peak >> 20,
                    "beside": beside,
                    "ratio": round(ratio, 2),
                    "limit": limit,
                    "ok": ok,
                }
            )
            print(
                f"{size / 1e9:5.1f} GB  {name:45} {middle[name]:7.2f} s  {peak / 2**20:7.0f} MiB  "
                + (f"{ratio:5.2f} x {beside}" if beside else "")
                + ("" if ok else "  OVER THE LIMIT"),
                flush=True,
            )
    return rows, fine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", action="append", help="bytes of the checkpoint (default: 2GB and 8GB)")
    parser.add_argument("--directory", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], choices=["shards", "zip", "dcp"])
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    results = {}
    fine = True
    for text in options.size or ["2GB", "8GB"]:
        size = parse_size(text)
        needed = 5 * size
        if shutil.disk_usage(options.directory or tempfile.gettempdir()).free < needed:
            raise SystemExit(f"{needed >> 30} GiB of free disk are needed")
        results[text], ok = run(size, options.directory, options.runs, options.only)
        fine = fine and ok
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
