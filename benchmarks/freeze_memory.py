"""Peak memory of a freeze: the resident size of the worker that freezes, against the weights and TensorFlow's
own start.

    python -m benchmarks.freeze_memory [--megabytes 256] [--method freeze|onnx]

A SavedModel of that many megabytes of weights is written to a temporary directory and frozen by the step that
`prepare` uses, in a worker as `prepare` starts it; so is one of a few kilobytes, whose peak is TensorFlow's
own start, loading and freezing included.
Exit code: 1 when the rest is more than LIMIT times the weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mnnprep.formats.registry import steps_of
from mnnprep.model.messages import ExportJob, InputSpecs, Source
from mnnprep.workers.host import Host

LIMIT = 2.5
WIDTH = 1024  # of a layer: 4 MB of weights each
TIMEOUT = 1200.0
BUILD = """
import sys
import numpy as np
import tensorflow as tf

width, layers, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
random = np.random.default_rng(0)

class Net(tf.Module):
    def __init__(self):
        super().__init__()
        shape, scale = (width, width), width**-0.5
        self.kernels = [
            tf.Variable(random.standard_normal(shape).astype("float32") * scale) for _ in range(layers)
        ]

    @tf.function(input_signature=[tf.TensorSpec([None, width], name="x")])
    def run(self, x):
        for kernel in self.kernels:
            x = tf.nn.relu(tf.matmul(x, kernel))
        return {"y": x}

net = Net()
tf.saved_model.save(net, target, signatures=net.run)
"""


def build(width: int, layers: int, target: Path) -> Path:
    """Write the SavedModel, in a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, "-c", BUILD, str(width), str(layers), str(target)],
        check=True,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    return target


def peak(model: Path, method: str, scratch: Path) -> int:
    """The peak resident bytes of the worker that freezes *model*."""
    steps = steps_of("savedmodel")
    with Host(steps.worker, scratch=scratch) as host:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        job = ExportJob(
            source=Source(kind="savedmodel", path=str(model)),
            wants=InputSpecs(),
            method=method,
            opset=13,
            directory=str(directory),
        )
        return host.run(steps.export, job, timeout=TIMEOUT).peak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256, help="of weights (default 256)")
    parser.add_argument("--method", default="freeze", choices=("freeze", "onnx"))
    options = parser.parse_args()
    layers = max(1, options.megabytes * 2**20 // (4 * WIDTH * WIDTH))
    weights = layers * 4 * WIDTH * WIDTH
    with tempfile.TemporaryDirectory(prefix="freeze-") as name:
        scratch = Path(name)
        start = peak(build(8, 1, scratch / "small"), options.method, scratch)
        whole = peak(build(WIDTH, layers, scratch / "large"), options.method, scratch)
    ratio = (whole - start) / weights
    mebibyte = 2**20
    print(
        f"weights {weights / mebibyte:.0f} MiB, TensorFlow's start {start / mebibyte:.0f} MiB, peak"
        f" {whole / mebibyte:.0f} MiB"
    )
    print(f"{options.method}: {ratio:.2f} times the weights beyond the start (at most {LIMIT:g})")
    return 1 if ratio > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
