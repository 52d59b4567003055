"""Samples of torch's own databases of operators and modules, as modules that take tensors.

A sample's name is ``DATABASE/NAME/DTYPE/NUMBER``. Its tensors are the module's inputs, whatever else it
is given are constants. Another seed gives the same sample with other numbers.
"""

from __future__ import annotations

import inspect
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_flatten, tree_unflatten

from mnnprep.model.signature import DTYPES

SAMPLED = (torch.float32, torch.int64)


class NotAModel(Exception):
    """Why a sample is no model: it takes or gives something other than tensors."""


class Sample(NamedTuple):
    """``function`` of ``arguments`` and ``keywords``, some of which are tensors."""

    function: Callable[..., object]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class Called(torch.nn.Module):
    """A sample's function as a module that takes its tensors."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.function = sample.function
        leaves, self._structure = tree_flatten((sample.arguments, sample.keywords))
        self._leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> object:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        arguments, keywords = tree_unflatten(leaves, self._structure)
        return self.function(*arguments, **keywords)


def names(database: str, samples: int) -> list[str]:
    """The names of the first *samples* samples of each entry of *database* (``ops`` or ``modules``)."""
    return [
        f"{database}/{entry}/{str(dtype).removeprefix('torch.')}/{number}"
        for entry, dtypes in _entries(database)
        for dtype in SAMPLED
        if dtype in dtypes
        for number in range(samples)
    ]


def _entries(database: str) -> Iterator[tuple[str, tuple[torch.dtype, ...]]]:
    if database == "ops":
        for op in op_db:
            yield op.full_name, tuple(op.supported_dtypes("cpu"))
    else:
        for info in module_db:
            yield info.name, (torch.float32,)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _drawn(name: str, seed: int) -> Sample:
    """The sample *name* with the numbers that *seed* gives.

    Raises:
        NotAModel: there is no sample of that number.
    """
    database, entry, dtype, number = name.split("/")
    _seed(seed)
    typed = getattr(torch, dtype)
    found = _of_op(entry, typed) if database == "ops" else _of_module(entry, typed)
    sample = next(itertools.islice(found, int(number), None), None)
    if sample is None:
        raise NotAModel("there are not so many samples")
    return sample


def _of_op(entry: str, dtype: torch.dtype) -> Iterator[Sample]:
    op = next(op for op in op_db if op.full_name == entry)
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False, set_seed=False):
        yield Sample(op.op, (sample.input, *sample.args), sample.kwargs)


def _of_module(entry: str, dtype: torch.dtype) -> Iterator[Sample]:
    info = next(info for info in module_db if info.name == entry)
    given = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False)
    for each in given:
        made, forward = each.constructor_input, each.forward_input
        if forward is None:
            continue
        module = info.module_cls(*made.args, **made.kwargs).to(dtype).eval()
        yield Sample(module, forward.args, forward.kwargs)


def drawn(name: str, seed: int) -> tuple[Called, list[torch.Tensor]]:
    """The module of the sample *name*, the same for every seed, and its tensors with the numbers of *seed*.

    Raises:
        NotAModel: it takes no tensor, or one that no model file holds; or the seed gives another shape.
    """
    warnings.simplefilter("ignore")
    first = _drawn(name, 0)
    module, tensors = Called(first), _tensors(first)
    if not tensors:
        raise NotAModel("it takes no tensor")
    for tensor in tensors:
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in DTYPES or tensor.layout is not torch.strided:
            raise NotAModel(f"it takes a tensor of {kind}, {tensor.layout}")
    module.eval()
    if seed and any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        with torch.no_grad():  # as the first call decides its parameters wherever it is loaded
            module(*(t.clone() for t in tensors))
    parameters = [f"x{n}" for n in range(len(tensors))]
    if seed:
        others = _tensors(_drawn(name, seed))
        if [(t.shape, t.dtype) for t in others] != [(t.shape, t.dtype) for t in tensors]:
            raise NotAModel("another seed gives other shapes")
        tensors = others
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = type("Called", (Called,), {"forward": _with_names(parameters, kind)})
    module.__class__ = own
    return module, [t.detach().clone() for t in tensors]


def _with_names(parameters: list[str], kind: Any) -> Callable[..., object]:
    """A forward of these parameters."""

    def forward(self: Called, *tensors: torch.Tensor) -> object:
        return Called.forward(self, *tensors)

    taken = [inspect.Parameter(name, kind) for name in ("self", *parameters)]
    forward.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return forward


def _tensors(sample: Sample) -> list[torch.Tensor]:
    leaves, _ = tree_flatten((sample.arguments, sample.keywords))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def model(name: str) -> tuple[Called, dict[str, torch.Tensor]]:
    """The factory that `prepare` calls."""
    module, tensors = drawn(name, 0)
    return module, {f"x{n}": tensor for n, tensor in enumerate(tensors)}
