"""Drawing a sample's inputs and computing its outputs, in a process of its own: it may crash or never end."""

from __future__ import annotations

import contextlib
import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS = 60.0
FOR_PROOF = 3  # as many cases as `prepare` needs to do without synthesized ones
FRESH = 2
NUDGES = 3  # times that the inputs are put off by less than float32 can say, to see what that does
EPSILON = 2.0**-23  # float32's last place, relative
TRIED = 12  # seeds, until there are so many of the same shapes

_context = get_context("forkserver")
_context.set_forkserver_preload(["evaluation.opinfo.samples"])


class Drawn(NamedTuple):
    """``samples`` is a directory of the inputs for the proof; ``fresh`` are files for the oracle.

    ``skipped`` says why the sample is no model.
    """

    samples: Path
    fresh: list[Path]
    skipped: str = ""


def draw(name: str, directory: Path) -> Drawn:
    """Draw the sample *name* into *directory*."""
    samples, fresh = directory / "samples", directory / "fresh"
    samples.mkdir()
    fresh.mkdir()
    process = _context.Process(target=_draw, args=(name, str(directory)))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return Drawn(samples, [], f"torch took longer than {SECONDS:g} s")
    said = directory / "said.json"
    if not said.exists():
        return Drawn(samples, [], f"torch ended with {process.exitcode}")
    return Drawn(samples, sorted(fresh.iterdir()), json.loads(said.read_text()))


def _draw(name: str, directory: str) -> None:
    import torch

    from evaluation.opinfo.samples import NotAModel, drawn

    torch.set_num_threads(1)
    root, skipped, found = Path(directory), "", 0
    for seed in range(TRIED):
        try:
            module, tensors = drawn(name, seed)
            inputs = {f"x{n}": t.numpy() for n, t in enumerate(tensors)}
            if found < FOR_PROOF:
                if not seed:
                    _outputs(module, tensors)
                np.savez(root / "samples" / f"{found}.npz", **inputs)
            else:
                arrays = {f"inputs/{name}": array for name, array in inputs.items()}
                np.savez(root / "fresh" / f"{found}.npz", **arrays, **_results(module, tensors))
        except NotAModel as reason:
            skipped = str(reason)
        except Exception as error:  # whatever an operator raises
            skipped = f"torch raises {type(error).__name__}: {error}"[:200]
        else:
            found += 1
        if found == FOR_PROOF + FRESH or (skipped and not found):
            break
    (root / "said.json").write_text(json.dumps("" if found else skipped))


def _outputs(module: Any, tensors: list[Any]) -> list[Any]:
    """What *module* gives for *tensors*, flat.

    Raises:
        NotAModel: it gives something that is no dense tensor of real numbers.
    """
    import torch
    from torch.utils._pytree import tree_flatten

    from evaluation.opinfo.samples import NotAModel

    with torch.no_grad():
        leaves = [leaf for leaf in tree_flatten(module(*(t.clone() for t in tensors)))[0] if leaf is not None]
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
            raise NotAModel(f"it gives {type(leaf).__name__} {getattr(leaf, 'layout', '')}")
        if leaf.is_complex() or leaf.dtype in (torch.bfloat16, torch.complex32):
            raise NotAModel(f"it gives {leaf.dtype}")
    if not leaves:
        raise NotAModel("it gives nothing")
    return leaves


def _results(module: Any, tensors: list[Any]) -> dict[str, Any]:
    """The outputs, and the rounding that the numbers themselves bring into them."""
    import torch

    outputs = _outputs(module, tensors)
    found = {f"outputs/{n}": o.detach().resolve_conj().resolve_neg().numpy() for n, o in enumerate(outputs)}
    with contextlib.suppress(Exception):  # it takes no float64: nothing is known of its rounding
        wide = [t.double() if t.dtype is torch.float32 else t for t in tensors]
        exact = _outputs(module.double(), wide)
        others = [outputs, *(_outputs(module, _nudged(wide)) for _ in range(NUDGES))]
        for n, one in enumerate(exact):
            if outputs[n].is_floating_point():
                found[f"noise/{n}"] = sum(
                    (other[n].double() - one.double()).abs() for other in others
                ).numpy()
    return found


def _nudged(tensors: list[Any]) -> list[Any]:
    """The same numbers, each off by up to half of float32's last place."""
    import torch

    return [t * (1 + (torch.rand_like(t) - 0.5) * EPSILON) if t.is_floating_point() else t for t in tensors]
