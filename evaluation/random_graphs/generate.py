"""A random graph of NNSmith as an ONNX file, with inputs and what onnxruntime gives for them.

In a process of its own, which may crash or never end.
"""

from __future__ import annotations

import io
import json
import random
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from nnsmith.materialize.torch.symbolnet import SymbolNet

SECONDS = 60.0
NODES = (3, 10)  # operators of a graph, at least and at most
ELEMENTS = 4096  # of a tensor, at most
GENERATION_MS = 4000  # for the search of a graph
DTYPES = ("float32", "int64", "int32", "bool")
OPSET = 17
EPSILON = 2.0**-23  # float32's last place, relative
FOR_PROOF, FRESH = 3, 2
# Where floats are drawn from, in this order, until every value inside is finite: what an operator gives
# beyond its domain, and what a Cast or an ArgMax makes of NaN, is not defined.
RANGES = ((-3.0, 3.0), (0.1, 0.9), (1.0, 2.0), (-0.9, -0.1))
WHOLE = 5  # integers are drawn from -WHOLE to WHOLE
PLATFORM = ["CPUExecutionProvider"]

Arrays = dict[str, Any]

_context = get_context("forkserver")
_context.set_forkserver_preload(
    ["numpy", "torch", "torch.onnx", "onnxruntime", "nnsmith.graph_gen", "nnsmith.materialize.torch"]
)


class Generated(NamedTuple):
    """``model`` is an ONNX file, ``samples`` a directory of inputs, ``fresh`` files for the oracle.

    ``skipped`` says why there is none.
    """

    model: Path
    samples: Path
    fresh: list[Path]
    skipped: str = ""


def generate(seed: int, directory: Path) -> Generated:
    """Make the graph of *seed* in *directory*: the same whenever it is asked for."""
    model, samples, fresh = directory / "model.onnx", directory / "samples", directory / "fresh"
    samples.mkdir()
    fresh.mkdir()
    process = _context.Process(target=_generate, args=(seed, str(directory)))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return Generated(model, samples, [], f"it takes longer than {SECONDS:g} s")
    said = directory / "said.json"
    if not said.exists():
        return Generated(model, samples, [], f"generating ended with {process.exitcode}")
    return Generated(model, samples, sorted(fresh.iterdir()), json.loads(said.read_text()))


def _generate(seed: int, directory: str) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    root = Path(directory)
    try:
        net = _net(seed)
        _export(net, root / "model.onnx")
    except Exception as error:  # whatever NNSmith's search, its operators or the exporter raise
        said = f"{type(error).__name__}: {error}"[:200]
    else:
        said = _cases(net, root, np.random.default_rng(seed))
    (root / "said.json").write_text(json.dumps(said))


def _net(seed: int) -> SymbolNet:
    import torch
    from nnsmith.graph_gen import model_gen
    from nnsmith.materialize.torch import TorchModelCPU
    from nnsmith.util import set_seed

    set_seed(seed)
    torch.manual_seed(seed)
    found = model_gen(
        opset=TorchModelCPU.operators(),
        method="symbolic-cinit",
        seed=seed,
        max_elem_per_tensor=ELEMENTS,
        max_nodes=random.Random(seed).randint(*NODES),
        timeout_ms=GENERATION_MS,
        dtype_choices=list(DTYPES),
    )
    net = TorchModelCPU.from_gir(found.make_concrete()).torch_model
    return net.eval()


def _export(net: SymbolNet, path: Path) -> None:
    """Write *net* as its own graph says, with nothing folded: the operators are what is to be tested."""
    import torch

    file = io.BytesIO()
    torch.onnx.export(
        net,
        tuple(net.get_random_inps().values()),
        file,
        input_names=list(net.input_like),
        output_names=list(net.output_like),
        opset_version=OPSET,
        dynamo=False,
        do_constant_folding=False,
    )
    path.write_bytes(file.getvalue())


def _cases(net: SymbolNet, root: Path, rng: np.random.Generator) -> str:
    """Write the inputs of the proof and of the oracle; why there are none, if so."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(root / "model.onnx"), options, providers=PLATFORM)
        taken = session.get_inputs()
        if not taken:
            return "it takes no input"
        for low, high in RANGES:
            cases = [{i.name: _array(i, low, high, rng) for i in taken} for _ in range(FOR_PROOF + FRESH)]
            if all(_defined(net, case) for case in cases):
                break
        else:
            return "no inputs give finite values"
        outputs = [session.run(None, case) for case in cases]
    except Exception as error:  # of onnxruntime: no kernel for a type, a shape that does not fit
        return f"onnxruntime: {error}"[:200]
    for number, (inputs, results) in enumerate(zip(cases, outputs, strict=True)):
        if number < FOR_PROOF:
            np.savez(root / "samples" / f"{number}.npz", **inputs)
        else:
            arrays = {f"inputs/{name}": array for name, array in inputs.items()}
            arrays |= {f"outputs/{place}": array for place, array in enumerate(results)}
            np.savez(root / "fresh" / f"{number}.npz", **arrays, **_noise(net, inputs, results))
    return ""


def _defined(net: SymbolNet, inputs: Arrays) -> bool:
    """Whether every value that *net* computes of *inputs* is finite."""
    import torch

    net.check_intermediate_numeric = True
    with torch.no_grad():
        net(*(torch.from_numpy(array) for array in inputs.values()))
    net.check_intermediate_numeric = False
    return not net.invalid_found_last


def _array(taken: Any, low: float, high: float, rng: np.random.Generator) -> Any:
    shape = tuple(taken.shape)
    if taken.type == "tensor(bool)":
        return rng.integers(0, 2, shape).astype(bool)
    if taken.type in ("tensor(int64)", "tensor(int32)"):
        return rng.integers(-WHOLE, WHOLE + 1, shape).astype(taken.type[7:-1])
    return rng.uniform(low, high, shape).astype(
        taken.type.replace("float", "float32").removeprefix("tensor(")[:-1]
    )


def _noise(net: SymbolNet, inputs: Arrays, results: list[Any]) -> Arrays:
    """The rounding in the outputs: how far torch's float64 is from them, moved by its last place."""
    import copy

    import torch

    wide = [
        torch.from_numpy(a).double() if a.dtype == np.float32 else torch.from_numpy(a)
        for a in inputs.values()
    ]
    nudged = [t * (1 + (torch.rand_like(t) - 0.5) * EPSILON) if t.is_floating_point() else t for t in wide]
    try:
        with torch.no_grad():
            double = copy.deepcopy(net).double()
            exact, other = double(*wide), double(*nudged)
    except Exception:  # an operator casts: nothing is known of the rounding
        return {}
    return {
        f"noise/{n}": np.abs(one.astype(np.float64) - e.double().numpy()) + (e - o).abs().double().numpy()
        for n, (one, e, o) in enumerate(zip(results, exact, other, strict=True))
        if one.dtype == np.float32 and one.shape == tuple(e.shape)
    }
