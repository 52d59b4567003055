"""Whether the converted model in a bundle is right, whatever mnnprep said of it; in a process of its own, for
MNN may crash.

It runs the converted model of the bundle against the source, at sizes and inputs of its own, and prints one
line: ``right`` or what is wrong.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from evaluation.faults import judge


def main(directory: str, how: str) -> None:
    bundle, reference = Path(directory), json.loads(how)
    manifest = json.loads((bundle / "manifest.json").read_text())
    signature = manifest["signature"]
    inputs = [f"{t['name']}={t['dtype']}[{','.join(map(str, t['shape']))}]" for t in signature["inputs"]]
    dims = [f"{n}={d['min']}:{d['max']}" for n, d in signature["dims"].items() if d["min"] is not None]
    ranges = [
        f"{t['name']}={t['range'][0]:g}:{t['range'][1]:g}" for t in signature["inputs"] if t.get("range")
    ]
    names = [t["mnn_name"] for t in signature["inputs"]]
    hints = {3: v for n, v in manifest["runtime"]["hints"].items() if n == "WINOGRAD_MEMORY_LEVEL"}
    outputs = [t["mnn_name"] for t in signature["outputs"]]
    layouts = [t["layout"] for t in signature["inputs"]]
    wanted = _source(reference)
    model = next(bundle / name for name in ("model.mnn", "unproven.mnn") if (bundle / name).is_file())
    worst = 0.0
    for arrays in judge.searched(inputs, dims, ranges):
        try:
            right = wanted(arrays)
        except Exception:
            continue
        fed = {mnn: arrays[t["name"]] for mnn, t in zip(names, signature["inputs"], strict=True)}
        try:
            found = judge.mnn(str(model), names, outputs, layouts, hints)(fed)
        except Exception as error:
            print(
                f"wrong: {type(error).__name__} {str(error)[:80]} at"
                f" {[list(a.shape) for a in arrays.values()]}"
            )
            return
        orders = itertools.permutations(found) if len(found) <= 4 else [found]
        gap = min(judge.distance(right, order) for order in map(list, orders))
        worst = max(worst, gap)
    print(f"right, within {worst:.2g} tolerances" if worst <= 1 else f"wrong by {worst:.3g} tolerances")


def _source(reference: dict[str, str]) -> judge.Net:
    if "onnx" in reference:
        return judge.onnx_single(reference["onnx"])
    if "caffe" in reference:
        return judge.caffe(reference["caffe"], reference["caffe"].removesuffix(".prototxt") + ".caffemodel")
    if "tflite" in reference:
        return judge.tflite(reference["tflite"])
    if "tensorflow" in reference:
        from evaluation.faults.tensorflow_plan import runner

        return runner(reference["tensorflow"])
    import torch

    from evaluation.nets import faults_nets

    module = faults_nets.clean(reference["torch"])[0].eval()

    def run(arrays: judge.Arrays) -> list[Any]:
        with torch.no_grad():
            made = module(*(torch.from_numpy(a) for a in arrays.values()))
        made = (
            list(made.values())
            if isinstance(made, dict)
            else list(made)
            if isinstance(made, (tuple, list))
            else [made]
        )
        return [t.numpy() for t in made]

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
