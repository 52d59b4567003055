"""Prepare the digits net with the command line, as a user would, then count right answers in PyTorch and in
MNN.

Exit status 0 only when the bundle's verdict is ``proven`` and both are right equally often.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import digits
from safetensors.torch import load_file

import data
import mnnprep

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = Path("build/digits")
BATCH = 8
COMMAND = [
    "prepare",
    "examples/digits/model.py:digits",
    "--weights",
    "examples/digits/digits.safetensors",
    "--input",
    "image=float32[batch,1,8,8]",
    "--dim",
    f"batch=1:{BATCH}",
    "--range",
    "image=0:1",
    "-o",
    str(BUNDLE),
    "--force",
]


def in_torch(images: np.ndarray) -> np.ndarray:
    """The logits of *images* in PyTorch, from the training's own weights."""
    model, _ = digits()
    model.load_state_dict(load_file(Path(__file__).with_name("digits.safetensors")))
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images)).numpy()


def in_mnn(images: np.ndarray, manifest: dict[str, Any]) -> np.ndarray:
    """The logits of *images* from the bundle's model.mnn, in batches of 8 and a last one of what is left."""
    import MNN.expr as F
    import MNN.nn

    image, logits = manifest["signature"]["inputs"][0], manifest["signature"]["outputs"][0]
    net = MNN.nn.load_module_from_file(
        str(ROOT / BUNDLE / "model.mnn"), [image["mnn_name"]], [logits["mnn_name"]]
    )
    outputs = []
    for start in range(0, len(images), BATCH):
        batch = np.ascontiguousarray(images[start : start + BATCH])
        var = F.const(batch, list(batch.shape), getattr(F, image["layout"]))
        result = net.forward([var])[0]
        outputs.append(np.array(result.read()))  # a copy: read() is a view that ends with its variable
    return np.concatenate(outputs)


def on_target(images: np.ndarray, target: str) -> np.ndarray:
    """The logits of *images* from the bundle's model.mnn on a target, such as arm64:low."""
    batches = [{"image": images[start : start + BATCH]} for start in range(0, len(images), BATCH)]
    return np.concatenate([outputs["output"] for outputs in mnnprep.run(ROOT / BUNDLE, batches, target)])


def main() -> int:
    command = [*COMMAND, *sys.argv[1:]]
    print("$ mnnprep " + " ".join(f"'{word}'" if "[" in word else word for word in command), flush=True)
    status = subprocess.run([sys.executable, "-m", "mnnprep", *command], cwd=ROOT).returncode
    path = ROOT / BUNDLE / "manifest.json"
    if status or not path.is_file():
        print(f"mnnprep prepare exited with {status}", file=sys.stderr)
        return status or 1
    manifest = json.loads(path.read_text())
    _, held_out = data.load()
    logits = {"PyTorch": in_torch(held_out.images), "MNN": in_mnn(held_out.images, manifest)}
    logits |= {
        record["target"]: on_target(held_out.images, record["target"]) for record in manifest["targets"]
    }
    right = {name: int((values.argmax(1) == held_out.labels).sum()) for name, values in logits.items()}
    total = len(held_out.labels)
    print(f"\nverdict: {manifest['verdict']}")
    width = max(map(len, right)) + 2
    for name, count in right.items():
        print(f"{name + ':':{width}}{count} of {total} held-out images right, accuracy {count / total:.4f}")
    print(f"largest difference of a logit: {np.abs(logits['PyTorch'] - logits['MNN']).max():.2e}")
    if manifest["verdict"] != "proven" or right["PyTorch"] != right["MNN"]:
        print("the demo failed: the verdict must be proven and the accuracies equal", file=sys.stderr)
        return 1
    print(f"the bundle is in {BUNDLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
