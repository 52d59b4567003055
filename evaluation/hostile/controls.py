"""The unguarded loaders of the frameworks: what each hostile file does where nobody stands in its way."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation import places
from evaluation.hostile.case import Canary, Hostile
from evaluation.hostile.watch import Call, environment, judge, snapshot

LIMIT = 60.0


def _show(values: Any) -> None:
    """Print the bytes of every array in *values*."""
    import numpy as np

    if isinstance(values, dict):
        values = list(values.values())
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, bytes):
            print(value.hex())
        elif isinstance(value, str):
            print(value)
        elif isinstance(value, list | tuple | dict):
            _show(value)
        else:
            array = np.asarray(value.detach() if hasattr(value, "detach") else value)
            sys.stdout.flush()
            sys.stdout.buffer.write(array.tobytes() + b"\n")


def _keras(name: str) -> Callable[[str], None]:
    def load(path: str) -> None:
        import numpy as np

        module = __import__(name)
        loaded = module.models.load_model(path, safe_mode=False, compile=False)
        _show(loaded(np.ones([n or 1 for n in loaded.input_shape], "f4")))

    return load


def _torch(path: str) -> None:
    import torch

    torch.load(path, weights_only=False)


def _jit(path: str) -> None:
    import torch

    _show(torch.jit.load(path)(torch.ones(1, 16)))


def _export(path: str) -> None:
    import torch

    _show(torch.export.load(path).module()(torch.ones(2, 16)))


def _graph(path: str) -> None:
    import numpy as np
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(Path(path).read_bytes())
    with tf.Graph().as_default() as made, tf.compat.v1.Session() as session:
        tf.compat.v1.import_graph_def(graph, name="")
        feeds = {"x:0": np.ones((1, 16), "f4")} if "x" in [o.name for o in made.get_operations()] else {}
        _show([session.run("y:0", feeds)])


def _savedmodel(path: str) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    _show([v.numpy() for v in loaded.signatures["serving_default"](x=tf.ones((1, 16))).values()])


def _numpy(path: str) -> None:
    import numpy as np

    with np.load(path, allow_pickle=True) as file:
        for name in file:
            file[name]


def _pickle(path: str) -> None:
    import pickle

    with open(path, "rb") as file:
        pickle.load(file)


def _onnx(path: str) -> None:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    _show(session.run(None, {"x": np.ones((1, 16), "f4")}))


def _onnx_data(path: str) -> None:
    """A reader of external data without a check of its own."""
    import onnx

    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {e.key: e.value for e in tensor.external_data}
        _show(
            Path(path).parent.joinpath(entries["location"]).read_bytes()[int(entries.get("offset", 0)) :][:64]
        )


def _hdf5(path: str) -> None:
    import h5py

    with h5py.File(path) as file:

        def show(group: Any) -> None:
            for name in group:
                show(group[name]) if isinstance(group[name], h5py.Group) else _show(group[name][...])

        show(file)


def _read(path: str) -> None:
    """Whatever a path leads to, and every path in a directory."""
    found = Path(path)
    for one in [found, *(found.rglob("*") if found.is_dir() else [])]:
        if one.is_file():
            _show(one.read_bytes())


LOADERS: dict[str, tuple[str, Callable[[str], None]]] = {
    "keras": ("keras", _keras("keras")),
    "tf_keras": ("tf_keras", _keras("tf_keras")),
    "torch": ("torch", _torch),
    "jit": ("torch", _jit),
    "export": ("torch", _export),
    "graph": ("tensorflow", _graph),
    "savedmodel": ("tensorflow", _savedmodel),
    "numpy": ("numpy", _numpy),
    "pickle": ("pickle", _pickle),
    "onnx": ("onnxruntime", _onnx),
    "onnx-data": ("onnx", _onnx_data),
    "hdf5": ("h5py", _hdf5),
    "read": ("json", _read),
}


def report(files: list[tuple[Hostile, Canary, Path]]) -> int:
    """Load each with its loader and print whether its canary fired; 1 when one did not."""
    fired = 0
    for loader in dict.fromkeys(h.control for h, _, _ in files):
        mine = [f for f in files if f[0].control == loader]
        with subprocess.Popen(
            [sys.executable, "-m", "evaluation.hostile.controls", loader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=places.environment(),
            text=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            for one, canary, path in mine:
                out = canary.root / "out" / "control"
                out.mkdir(parents=True, exist_ok=True)
                call, before = Call("control", 0), snapshot(canary.root)
                job = {
                    "path": str(path),
                    "cwd": str(canary.root / "cwd"),
                    "out": str(out),
                    "environment": environment(canary),
                }
                print(json.dumps(job), file=server.stdin, flush=True)
                server.stdout.readline()
                judge(call, canary, out, before)
                found = {k: v for k, v in call.faults.items() if k in ("executed", "written", "read")}
                fired += bool(found)
                print(
                    f"{'fires' if found else 'SILENT':7} {one.id:60} {', '.join(found) or call.said[-150:]}",
                    flush=True,
                )
    print(f"{fired} of {len(files)} controls fire")
    return int(fired < len(files))


def serve(loader: str) -> None:
    """Load what each line of the standard input names in a fork of this process, which has imported the
    framework.
    """
    package, load = LOADERS[loader]
    __import__(package)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _load(load, job)
        started = time.monotonic()
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() - started > LIMIT:
                os.kill(child, 9)
            time.sleep(0.02)
        print("done", flush=True)


def _load(load: Callable[[str], None], job: dict[str, Any]) -> None:
    """Never returns."""
    os.environ.update(job["environment"])
    os.chdir(job["cwd"])
    sys.path.insert(0, os.path.dirname(job["path"]))
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(job["out"], name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    with contextlib.suppress(BaseException):
        try:
            load(job["path"])
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
