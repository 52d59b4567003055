"""The script a user writes today: export at torch's defaults, convert, compare once.

    python benchmarks/user_script.py FILE.py:FACTORY INPUT_NAME DIRECTORY [--dynamic]

:mod:`benchmarks.prepare` measures it beside ``mnnprep prepare``.  It does what tutorials show:
torch.onnx.export at its defaults (with --dynamic: a dynamic batch), MNN's converter, and one comparison
with MNN at the example's shape.  Prints the largest difference, relative to the largest output.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch


def main(source: str, input_name: str, directory: str, dynamic: str = "") -> None:
    path, _, factory = source.rpartition(":")
    spec = importlib.util.spec_from_file_location("models", path)
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    model, example = getattr(models, factory)()
    model.eval()
    pixels = example[input_name] if dynamic else example[input_name][:1]
    onnx_file, mnn_file = Path(directory) / "model.onnx", Path(directory) / "model.mnn"

    torch.onnx.export(
        model,
        (pixels,),
        onnx_file,
        input_names=[input_name],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic else None,
        external_data=False,
        verbose=False,
    )

    import _tools  # MNN's converter, as its `mnnconvert` script calls it

    _tools.mnnconvert(
        [
            "mnnconvert",
            "-f",
            "ONNX",
            "--modelFile",
            str(onnx_file),
            "--MNNModel",
            str(mnn_file),
            "--bizCode",
            "MNN",
        ]
    )

    import MNN

    net = MNN.nn.load_module_from_file(str(mnn_file), [input_name], ["logits"])
    fed = MNN.expr.const(pixels.numpy(), list(pixels.shape), MNN.expr.NCHW)
    output = net.forward([fed])[0]
    got = np.array(output.read()).reshape(output.shape)
    with torch.no_grad():
        result = model(pixels)
        want = getattr(result, "logits", result).numpy()
    error = float(np.abs(got - want).max() / np.abs(want).max())
    print(f"largest difference: {error:.2e} of the largest output")
    if not error < 1e-2:
        sys.exit("the results differ")


if __name__ == "__main__":
    main(*sys.argv[1:])
