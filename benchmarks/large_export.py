"""What `mnnprep prepare` takes for a factory whose weights are larger than the memory limit.

    python -m benchmarks.large_export [--size 6GB] [--memory 2GB] [--proof-memory 1GB] [--directory DIR]
                                      [--json FILE]

A transformer's encoder of the size asked for is made here, as safetensors shards, and prepared: the graph is
exported without the weights, which are then streamed from the checkpoint.  Told are the wall time of each
stage, the processor time, the largest resident memory of any one process and of all together (mapped pages
count), the verdict and the reason of what was not run. With --proof-memory large enough the net is proven as
well. Exit status 1 when a process went over --memory (with a larger --proof-memory: over that), or when the
verdict is not the expected one.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from mnnprep.model.request import parse_size

WIDTH = 2048
LAYER = 12 * WIDTH * WIDTH * 4  # bytes of a layer's matrices
SHARDS = 4
NET = """
import torch
from torch import nn

class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.feed = nn.LayerNorm(width)
        self.out, self.up = nn.Linear(width, width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.heads = width // 64

    def forward(self, x):
        parts = self.attend(self.norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, 64)).transpose(1, 2) for part in parts)
        weights = torch.softmax(q @ k.transpose(-2, -1) / 8, -1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(self.feed(x))))

class Encoder(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.table = nn.Embedding(1000, width)
        self.layers = nn.ModuleList([Layer(width) for _ in range(depth)])
        self.head = nn.Linear(width, 10)
        places = torch.randn(64, width, generator=torch.Generator().manual_seed(0)) / 10
        self.register_buffer("places", places, persistent=False)

    def forward(self, ids):
        x = self.table(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

def encoder(width=2048, depth=2):
    return Encoder(width, depth)
"""
MAKE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from safetensors.torch import save_file
import large_net
directory, width, depth, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(0)
with torch.device("meta"):
    shapes = {n: t.shape for n, t in large_net.encoder(width, depth).state_dict().items()}
names, weight_map = sorted(shapes), {}
for shard in range(shards):
    file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
    mine = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
    part = {
        n: torch.randn(shapes[n]) * (shapes[n][-1] ** -0.5) + float("norm" in n or "feed" in n) for n in mine
    }
    save_file(part, f"{directory}/shards/{file}")
    weight_map |= dict.fromkeys(part, file)
with open(f"{directory}/shards/model.safetensors.index.json", "w") as file:
    json.dump({"metadata": {}, "weight_map": weight_map}, file)
"""


class Watcher(threading.Thread):
    """The largest resident memory of any one of a process's descendants and itself, and of all together."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.one = self.all = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            try:
                whole = psutil.Process(self.pid)
                sizes = [p.memory_info().rss for p in [whole, *whole.children(recursive=True)]]
            except psutil.Error:
                continue
            self.one, self.all = max(self.one, *sizes), max(self.all, sum(sizes))


def measure(command: list[str]) -> tuple[int, dict[str, float], Watcher, str, str]:
    """Run *command*: exit code, seconds by stage, memory, stdout, stderr."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watcher = Watcher(process.pid)
    watcher.start()
    started = time.monotonic()
    out, err = process.communicate()
    ended = time.monotonic() - started
    watcher.ended.set()
    watcher.join()
    found = [(m[2], float(m[1])) for m in re.finditer(r"^ *([\d.]+) s  (.*)$", err, re.M)]
    stages = {
        name: round(end - begin, 1)
        for (name, begin), end in zip(found, [*(t for _, t in found[1:]), ended], strict=True)
    }
    return process.returncode, stages, watcher, out, err


def processor_seconds() -> float:
    """What the children that ended have taken of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="6GB", help="bytes of the weights")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--proof-memory", default="1GB")
    parser.add_argument("--directory", type=Path, help="where to work (default: the temporary directory)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    size, memory, proof = (parse_size(text) for text in (options.size, options.memory, options.proof_memory))
    proves = proof > size
    free = shutil.disk_usage(options.directory or tempfile.gettempdir()).free
    if free < (needed := (6 if proves else 4) * size):
        raise SystemExit(f"{needed >> 30} GiB of free disk are needed")
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="large-export-") as scratch:
        directory = Path(scratch)
        (directory / "large_net.py").write_text(NET)
        (directory / "shards").mkdir()
        depth = max(1, round(size / LAYER))
        subprocess.run(
            [sys.executable, "-c", MAKE, str(directory), str(WIDTH), str(depth), str(SHARDS)], check=True
        )
        weights = sum(f.stat().st_size for f in (directory / "shards").glob("*.safetensors"))
        command = [
            sys.executable,
            "-m",
            "mnnprep",
            "prepare",
            f"{directory}/large_net.py:encoder",
            "--factory-arg",
            f"width={WIDTH}",
            "--factory-arg",
            f"depth={depth}",
            "--weights",
            f"{directory}/shards",
            "--input",
            "ids=int64[batch,16]",
            "--memory",
            options.memory,
            "--proof-memory",
            options.proof_memory,
            "-o",
            f"{directory}/out",
            "--json",
        ]
        before = processor_seconds()
        code, stages, watcher, out, err = measure(command)
        processor = processor_seconds() - before
        try:
            manifest = json.loads(out)
            verdict = manifest["verdict"]
        except (ValueError, KeyError):
            raise SystemExit(f"no manifest, exit status {code}:\n{err[-3000:]}") from None
        files = {f["path"]: f["size"] for f in manifest["artifact"]["files"]}
    reasons = sorted(
        {c["reason"] for c in manifest["evidence"] if c["status"] != "passed" and c.get("required", True)}
    )
    figures = {
        "weights_gb": round(weights / 1e9, 2),
        "memory": options.memory,
        "proof_memory": options.proof_memory,
        "verdict": verdict,
        "seconds": round(sum(stages.values()), 1),
        "processor_seconds": round(processor, 1),
        "stages": stages,
        "peak_of_one_process_mib": watcher.one >> 20,
        "peak_of_all_mib": watcher.all >> 20,
        "artifact": files,
        "reasons": reasons,
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    sys.exit(not (watcher.one <= max(memory, proof) and verdict == ("proven" if proves else "unproven")))


if __name__ == "__main__":
    main()
