"""What `mnnprep inspect` costs on an ONNX file of 2 GB, inline and with external data, beyond `mnnprep
--help`.

    python -m benchmarks.inspect_large [--size BYTES] [--runs N] [--sparse]

The two commands run in turn, so that a loaded machine slows both; the medians are compared with the limits.
Exit status 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

TIME_LIMIT = 1.0  # seconds more than --help
MEMORY_LIMIT = 150.0  # MiB of peak resident memory more than --help
TENSOR = 1 << 26  # bytes of one weight
CHUNK = 1 << 20


class Cost(NamedTuple):
    seconds: float
    mebibytes: float


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int, following: int = 0) -> bytes:
    """A protobuf field: a number, or bytes of which *following* more are written behind."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content) + following) + content


def port(name: str) -> bytes:
    """A ValueInfoProto: float32[n, 1024]."""
    shape = field(1, field(2, b"n")) + field(1, field(1, 1024))
    return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, shape)))


def node(index: int) -> bytes:
    inputs = field(1, f"h{index}".encode()) + field(1, f"w{index}".encode())
    return field(
        1,
        inputs
        + field(2, f"h{index + 1}".encode())
        + field(3, f"matmul_{index}".encode())
        + field(4, b"MatMul"),
    )


def external_entry(location: str, offset: int, length: int) -> bytes:
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return b"".join(
        field(13, field(1, key.encode()) + field(2, value.encode())) for key, value in entries.items()
    ) + field(14, 1)


def write_model(path: Path, size: int, *, external: bool, sparse: bool) -> None:
    """Write a chain of MatMuls with *size* bytes of float32 weights, streamed; onnx/onnx.proto has the field
    numbers.
    """
    count = max(1, size // TENSOR)
    data = path.name + ".data"
    heads = []
    for index in range(count):
        tensor = field(1, TENSOR // 4096) + field(1, 1024) + field(2, 1) + field(8, f"w{index}".encode())
        if external:
            heads.append(field(5, tensor + external_entry(data, index * TENSOR, TENSOR)))
        else:
            tensor += varint(9 << 3 | 2) + varint(TENSOR)
            heads.append(field(5, tensor, TENSOR))
    before = b"".join(node(index) for index in range(count)) + field(2, b"large")
    after = field(11, port("h0")) + field(12, port(f"h{count}"))
    inline = 0 if external else count * TENSOR
    with path.open("wb") as file:
        file.write(field(1, 8) + field(2, b"benchmark"))
        file.write(
            varint(7 << 3 | 2) + varint(len(before) + sum(map(len, heads)) + len(after) + inline) + before
        )
        for head in heads:
            file.write(head)
            if not external:
                write_weights(file, TENSOR, sparse)
        file.write(after + field(8, field(2, 17)))
    if external:
        with path.with_name(data).open("wb") as file:
            write_weights(file, count * TENSOR, sparse)


def write_weights(file: BinaryIO, size: int, sparse: bool) -> None:
    if sparse:
        file.seek(size - 1, os.SEEK_CUR)
        file.write(b"\0")
        return
    chunk = os.urandom(CHUNK)
    for _ in range(size // CHUNK):
        file.write(chunk)


def run(arguments: Sequence[str]) -> tuple[Cost, bytes]:
    """Run `python -m mnnprep` once; its peak memory is the kernel's ru_maxrss of exactly that process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mnnprep", *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"mnnprep {' '.join(arguments)} ended with exit status {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Cost(time.perf_counter() - started, usage.ru_maxrss * unit / 2**20), output


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, default=(1 << 31) - TENSOR, help="bytes of weights (default: just below 2 GiB)"
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--sparse", action="store_true", help="leave the weights as holes: no disk space, no page cache"
    )
    options = parser.parse_args()
    exceeded = False
    with tempfile.TemporaryDirectory() as directory:
        for external in (False, True):
            path = Path(directory) / f"{'external' if external else 'inline'}.onnx"
            write_model(path, options.size, external=external, sparse=options.sparse)
            _, output = run(["inspect", str(path), "--json"])  # also warms the file cache for both commands
            if str(options.size // TENSOR * TENSOR // 4) not in output.decode() or not isinstance(
                json.loads(output), dict
            ):
                raise SystemExit(f"inspect did not find the parameters of {path.name}")
            baseline, inspections = [], []
            for _ in range(options.runs):
                baseline.append(run(["--help"])[0])
                inspections.append(run(["inspect", str(path), "--json"])[0])
            help_cost, inspect_cost = median(baseline), median(inspections)
            more = Cost(
                inspect_cost.seconds - help_cost.seconds, inspect_cost.mebibytes - help_cost.mebibytes
            )
            within = more.seconds <= TIME_LIMIT and more.mebibytes <= MEMORY_LIMIT
            exceeded |= not within
            print(f"{path.stem:9} {options.size / 2**30:.2f} GiB of weights, medians of {options.runs} runs")
            print(f"  --help   {help_cost.seconds:6.3f} s {help_cost.mebibytes:7.1f} MiB")
            print(f"  inspect  {inspect_cost.seconds:6.3f} s {inspect_cost.mebibytes:7.1f} MiB")
            print(f"  more     {more.seconds:6.3f} s {more.mebibytes:7.1f} MiB")
            print(
                f"  limits   {TIME_LIMIT:6.3f} s {MEMORY_LIMIT:7.1f} MiB   {'kept' if within else 'EXCEEDED'}"
            )
            for file in Path(directory).iterdir():
                file.unlink()
    return int(exceeded)


if __name__ == "__main__":
    raise SystemExit(main())
