"""One verification of an ONNX file, ours and by text files, side by side.

    python -m benchmarks.verify [--elements 10000000] [--rounds 3] [--json FILE]

Each verifies the same file on the same input: the reference in onnxruntime, the conversion, the run in MNN,
the comparison of every element of every output.  A: the steps that `mnnprep prepare` and `verify` run for a
case, in their workers, arrays passed as npz files, hashed and checked.  B: as the test script that comes with
MNN does it: input and outputs are written as text with ``numpy.savetxt``, and MNN's converter, given the
directory with --testdir, converts, reads the text, runs and compares. The model has an input or an output of
so many elements (or both).  A and B run in turn as processes of their own, imports included; CPU seconds are
those of the process and its children, and decide, since other work on the machine moves the wall clock.
Exit code: 0 when B takes at least 5 times the CPU seconds of A on every model and both agree that it is
right, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

GOAL = 5.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Run(NamedTuple):
    wall: float
    cpu: float
    right: bool


def models(elements: int, directory: Path) -> dict[str, Path]:
    """Small nets with large values: large input and output, large input, large output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    side = round((elements / 3) ** 0.5 / 2) * 2
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((3, 3, 3, 3)).astype(np.float32) * 0.3,
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    conv = helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    relu = helper.make_node("Relu", ["a"], ["b"])
    add = helper.make_node("Add", ["b", "x"], ["y"])
    pool = helper.make_node("AveragePool", ["b"], ["y"], kernel_shape=[8, 8], strides=[8, 8])
    grow = helper.make_node(
        "Resize",
        ["b", "", "scales"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    made = {}
    rows = (
        ("input and output", [conv, relu, add], side, side),
        ("input", [conv, relu, pool], side, side // 8),
        ("output", [conv, relu, grow], side // 2, side),
    )
    for name, nodes, taken, given in rows:
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, taken, taken])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, given, given])],
            [
                numpy_helper.from_array(a, n)
                for n, a in weights.items()
                if any(n in node.input for node in nodes)
            ],
        )
        made[name] = directory / f"{name.replace(' ', '-')}.onnx"
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), made[name]
        )
        np.save(made[name].with_suffix(".npy"), rng.standard_normal((1, 3, taken, taken)).astype(np.float32))
    return made


def ours(model: Path) -> bool:
    """A: whether MNN computes what onnxruntime computes."""
    from mnnprep.comparison.outputs import compare_run
    from mnnprep.comparison.tolerance import Tolerance
    from mnnprep.formats.registry import ARTIFACTS
    from mnnprep.mnn.convert import CONVERT, ConvertJob
    from mnnprep.mnn.run import NARROWED_OUTPUTS, RUN, MnnRunJob
    from mnnprep.model.files import file_ref, save_arrays
    from mnnprep.model.messages import CaseFile, RunJob
    from mnnprep.model.request import Limits
    from mnnprep.model.signature import Signature
    from mnnprep.workers.pool import Workers

    kind = ARTIFACTS["onnx"]
    with Workers(Limits()) as workers:
        workers.warm(kind.run.worker), workers.warm(RUN.worker)
        path = workers.directory("case") / "0.npz"
        save_arrays(path, {"inputs/x": np.load(model.with_suffix(".npy"))})
        case = CaseFile(index=0, origin="given", dims={}, file=file_ref(path))
        job = RunJob(
            model=str(model), cases=[case], signature=Signature(()), directory=str(workers.directory("run"))
        )
        running = workers.submit(kind.run, job)
        convert = ConvertJob(
            model=str(model), frontend="ONNX", uuid_seed="0" * 64, directory=str(workers.directory("c"))
        )
        converted = workers.run(replace(CONVERT, worker=RUN.worker), convert)
        assert converted.file is not None
        mnn_job = MnnRunJob(
            model=converted.file.path,
            cases=[case],
            input_names={"x": "x"},
            output_names={"y": "y"},
            layouts={"x": "NCHW"},
            directory=str(workers.directory("mnn")),
        )
        ran = workers.run(RUN, mnn_job)
        reference = running.result().value
        return (
            compare_run(
                "mnn_compare", [case], ran, Tolerance(), NARROWED_OUTPUTS, references=reference
            ).status.value
            == "passed"
        )


def theirs(model: Path) -> bool:
    """B: the same by text files."""
    import _tools
    import onnxruntime as ort

    x = np.load(model.with_suffix(".npy"))
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        y = ort.InferenceSession(str(model), options).run(["y"], {"x": x})[0]
        np.savetxt("x.txt", x.flatten())
        np.savetxt("y.txt", y.flatten())
        Path("input.json").write_text(
            json.dumps({"inputs": [{"name": "x", "shape": list(x.shape)}], "outputs": ["y"]})
        )
        _tools.mnnconvert(
            [
                "MNNConvert",
                "-f",
                "ONNX",
                "--modelFile",
                str(model),
                "--MNNModel",
                "o.mnn",
                "--bizCode",
                "b",
                "--testdir",
                directory,
            ]
        )
        os.chdir("/")
    return True


def timed(way: str, model: Path) -> Run:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.verify", "--only", way, str(model)],
        capture_output=True,
        text=True,
        errors="replace",
        env=ENVIRONMENT,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = "TEST_SUCCESS" if way == "theirs" else "right: True"
    if said not in done.stdout:
        print(done.stdout[-2000:] + done.stderr[-2000:])
    return Run(
        wall,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        done.returncode == 0 and said in done.stdout,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("WAY", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print("right:", {"ours": ours, "theirs": theirs}[options.only[0]](Path(options.only[1])))
        return 0
    measured, met = {}, True
    line = "{:18} {:>14} {:>14} {:>14} {:>14} {:>8} {:>8}"
    print(
        line.format(
            "large", "ours CPU [s]", "text CPU [s]", "ours wall [s]", "text wall [s]", "CPU x", "wall x"
        )
    )
    with tempfile.TemporaryDirectory(prefix="verify-") as directory:
        for name, model in models(options.elements, Path(directory)).items():
            pairs = [(timed("ours", model), timed("theirs", model)) for _ in range(max(1, options.rounds))]
            cpu, wall = median(b.cpu / a.cpu for a, b in pairs), median(b.wall / a.wall for a, b in pairs)
            figures = [
                f"{median(r[i] for r in runs):.2f}" for i in (1, 0) for runs in zip(*pairs, strict=True)
            ]
            print(line.format(name, *figures, f"{cpu:.1f}", f"{wall:.1f}"), flush=True)
            measured[name] = {
                "pairs": [[a._asdict(), b._asdict()] for a, b in pairs],
                "cpu": cpu,
                "wall": wall,
            }
            met &= cpu >= GOAL and all(a.right and b.right for a, b in pairs)
    if options.json:
        options.json.write_text(json.dumps({"goal": GOAL, "models": measured}, indent=1) + "\n")
    print(f"goal: text files take at least {GOAL:g} times as long: {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
