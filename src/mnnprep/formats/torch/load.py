"""Loading a PyTorch source: a factory, a TorchScript file, an exported program, a pickled module."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import Code, MnnprepError, RefusedError, UsageError
from mnnprep.formats.factory import arguments_for, find_factory, place_of
from mnnprep.formats.torch.calling import forward_parameters, in_order, takes_more, unwrapped
from mnnprep.formats.torch.lazy import initialize
from mnnprep.formats.torch.stateless import require_stateless
from mnnprep.formats.torch.structure import name_examples
from mnnprep.model.messages import Source
from mnnprep.model.signature import DTYPES, Dim, TensorSpec
from mnnprep.safety.error_text import cause, message

if TYPE_CHECKING:
    from types import ModuleType
    from typing import SupportsInt

    import torch
    from torch import Tensor, nn

NO_BOUND = 2**31  # sizes from here on are no sizes: torch writes infinity as such
LIVE: dict[str, tuple[Any, Any]] = {}  # live modules by name: the one exception to the process boundary


@dataclass
class Loaded:
    """A source in memory, in inference mode.

    ``example`` maps input names to arrays, if it gave any; ``dynamic`` gives the shapes that the source
    itself says are dynamic, by input, ``dims`` their ranges.
    """

    module: nn.Module
    parameters: list[str]
    example: dict[str, np.ndarray[Any, Any]]
    dynamic: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    dims: tuple[Dim, ...] = ()
    program: torch.export.ExportedProgram | None = None
    notes: list[str] = field(default_factory=list)


_kept: dict[str, Loaded] = {}


def keep(source: Source) -> None:
    """Load *source* and keep it for :func:`load` in the processes forked from this one."""
    _kept[repr(source)] = load(source)


def load(source: Source) -> Loaded:
    """Load *source*, put every submodule in inference mode.

    Raises UsageError or RefusedError; what the user's own code raises is told with its place.
    """
    if repr(source) in _kept:
        return _kept[repr(source)]
    torch = require("torch")
    torch.set_num_threads(1)
    _make_importable(source)
    loaders = {
        "torch-factory": _factory,
        "torchscript": _script,
        "exported-program": _program,
        "torch-module": _pickled,
        "live": _live,
    }
    with without_weights() if source.lean else nullcontext():
        loaded = loaders[source.kind](source)
    if source.weights:
        from mnnprep.weights.apply import load_into

        loaded.notes += load_into(loaded.module, Path(source.weights))
    meta = [n for n, t in [*loaded.module.named_parameters(), *loaded.module.named_buffers()] if t.is_meta]
    if meta:
        raise RefusedError(
            "the model has tensors without values (on the meta device)",
            seen=", ".join(meta[:5]),
            next="give the weights with --weights, or build the model on the CPU",
        )
    if loaded.program is None:
        to_inference(loaded.module)
    if not source.lean:
        initialize(loaded.module, loaded.example)
    return loaded


def load_factory(source: Source) -> Loaded:
    """The factory's model as it comes, without weights.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    _make_importable(source)
    return _factory(source)


@contextmanager
def without_weights() -> Iterator[None]:
    """Send each parameter to the meta device as soon as a module takes it, within the block.

    Weights are neither initialized nor kept. Buffers stay real.
    """
    torch = require("torch")
    module = torch.nn.Module
    register = module.register_parameter

    def register_empty(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(self, name, parameter)
        if parameter is not None and not parameter.is_meta and not torch.nn.parameter.is_lazy(parameter):
            empty = torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
            empty.__dict__.update(parameter.__dict__)
            self._parameters[name] = empty

    module.register_parameter = register_empty
    try:
        yield
    finally:
        module.register_parameter = register


def _make_importable(source: Source) -> None:
    for entry in reversed(source.search_path):
        if entry not in sys.path:
            sys.path.insert(0, entry)


def to_inference(module: nn.Module) -> None:
    """Every submodule in eval, also those that override ``train`` or ``eval``."""
    module.eval()
    for submodule in module.modules():
        if submodule.training:
            submodule.training = False


def _factory(source: Source) -> Loaded:
    function = find_factory(source.path)
    arguments = arguments_for(function, source.factory_args)
    torch = require("torch")
    torch.manual_seed(0)
    np.random.seed(0)
    try:
        made = function(**arguments)
    except MnnprepError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the factory raised {type(error).__name__}",
            seen=f"{message(error)} (at {place_of(error)})",
            next="run it on its own and fix it",
            code=Code.FACTORY_RAISED,
        ) from error
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            "the factory did not return a torch.nn.Module",
            seen=type(module).__name__,
            next="return the model, or (model, example_inputs)",
        )
    module = unwrapped(module)  # no exporter takes what torch.compile returns
    parameters = forward_parameters(module)
    return Loaded(module, parameters, _arrays(name_examples(example, module) if example is not None else {}))


def _script(source: Source) -> Loaded:
    torch = require("torch")
    if not source.trust:
        require_stateless(Path(source.path), source.kind, _registered(torch))
    try:
        module = torch.jit.load(source.path, map_location="cpu")
    except Exception as error:
        raise RefusedError(
            "torch can't load this TorchScript file",
            seen=message(error),
            next="save it again with torch.jit.save",
        ) from error
    return Loaded(module, forward_parameters(module), {})


def _registered(torch: ModuleType) -> frozenset[str]:
    """The names of all operators that TorchScript takes as methods in this PyTorch."""
    names = (schema.name.partition("::") for schema in torch._C._jit_get_all_schemas())
    return frozenset(name for namespace, _, name in names if namespace in ("aten", "prim"))


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Meanwhile torch unpickles nothing but tensors.

    It reads a program's example inputs as any pickle if they can't be read as tensors, but for this variable
    (torch/serialization.py).
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _program(source: Source) -> Loaded:
    torch = require("torch")
    if not source.trust:
        require_stateless(Path(source.path), source.kind)
    try:
        with nullcontext() if source.trust else _tensors_alone():
            program = torch.export.load(source.path)
    except Exception as error:
        raise RefusedError(
            "torch can't load this exported program",
            seen=message(error),
            next="save it again with torch.export.save, with this version of torch",
        ) from error
    leaves = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    user = [leaf.name for leaf in leaves if not hasattr(leaf, "value")]
    examples = require("torch.utils._pytree").tree_leaves(program.example_inputs or ((), {}))
    values = dict(zip((leaf.name for leaf in leaves), examples, strict=False))
    tensors = {name: value for name in user if isinstance(value := values.get(name), torch.Tensor)}
    shapes = {
        n.name: n.meta["val"].shape
        for n in program.graph.nodes
        if n.op == "placeholder" and n.name in user and hasattr(n.meta.get("val"), "shape")
    }
    dynamic = {
        n: tuple(int(s) if isinstance(s, int) or str(s).isdigit() else str(s) for s in shape)
        for n, shape in shapes.items()
    }
    odd = [leaf for leaf in leaves if not hasattr(leaf, "value") and type(leaf).__name__ != "TensorArgument"]
    if odd:
        raise RefusedError(
            "this exported program takes inputs that are not tensors",
            seen=", ".join(f"{leaf.name} ({type(leaf).__name__})" for leaf in odd),
            next="export it with tensor inputs; a number or None that is given at export is kept as it was",
        )
    dims = tuple(
        Dim(str(symbol), _bound(limits.lower), _bound(limits.upper))
        for symbol, limits in program.range_constraints.items()
    )
    return Loaded(_called_by_place(program, leaves), user, _arrays(tensors), dynamic, dims, program)


def _bound(limit: SupportsInt) -> int | None:
    """A bound of a program's dimension; None for what stands for no bound."""
    return int(limit) if str(limit).isdigit() and int(limit) < NO_BOUND else None


def _called_by_place(program: torch.export.ExportedProgram, leaves: Sequence[Any]) -> nn.Module:
    """Return the program's module as one whose forward takes the tensors among *leaves* in their order.

    They are put in their places in the arguments, nested as the program was exported to be called, beside the
    constants (None, numbers) that it was exported with.
    """
    torch = require("torch")
    unflattened, structure = require("torch.utils._pytree").tree_unflatten, program.call_spec.in_spec
    constants = [(hasattr(leaf, "value"), getattr(leaf, "value", None)) for leaf in leaves]
    names = [leaf.name for leaf in leaves if not hasattr(leaf, "value")]

    class Program(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()
            for module in (
                self.modules()
            ):  # an exported graph has no mode to put it in: what it does, its operators say
                module.training = False

        def forward(self, *tensors: Tensor) -> object:
            given = iter(tensors)
            values = [value if constant else next(given) for constant, value in constants]
            arguments, keywords = unflattened(values, structure)
            return self.program(*arguments, **keywords)

    taken = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    Program.forward.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return Program()


def _pickled(source: Source) -> Loaded:
    torch = require("torch")
    if not source.trust:  # the caller refuses first, with what it would execute
        raise RefusedError(
            "a pickled module executes code when it is loaded",
            seen=Path(source.path).name,
            next="pass --trust if you trust it",
        )
    try:
        module = torch.load(source.path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise RefusedError(
            "the pickled module could not be loaded",
            seen=cause(error),
            next="run where its classes can be imported, or give a factory and --weights",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise RefusedError(
            "the file does not contain a torch.nn.Module",
            seen=type(module).__name__,
            next="give a factory, and this file with --weights",
        )
    module = unwrapped(module)
    return Loaded(module, forward_parameters(module), {})


def _live(source: Source) -> Loaded:
    module, example = LIVE[source.path]
    parameters = forward_parameters(module)
    return Loaded(module, parameters, _arrays(name_examples(example, module) if example is not None else {}))


def _arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors as arrays.

    Raises:
        UsageError: NumPy has no dtype for a tensor (bfloat16 and smaller).
    """
    arrays = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.detach().cpu().numpy().copy()
        except TypeError as error:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UsageError(
                f"the example input {name} has a dtype that MNN does not take",
                seen=dtype,
                next="use one of " + ", ".join(DTYPES),
            ) from error
    return arrays


def input_specs(loaded: Loaded, declared: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The inputs: as declared, else as the source's own example or program gives them.

    Raises:
        UsageError: neither says, or a name is not a parameter of the forward.
    """
    names = loaded.parameters
    more = takes_more(loaded.module)
    for spec in declared:
        if spec.name not in names and not more:
            raise UsageError(
                f"--input names {spec.name!r}, which forward does not take",
                seen=spec.name,
                next="its parameters: " + (", ".join(names) or "none"),
            )
    if declared:
        order = in_order(loaded.module, [s.name for s in declared])
        return tuple(sorted(declared, key=lambda s: order.index(s.name)))
    if not loaded.example:
        raise UsageError(
            "the inputs of this model are not known",
            seen=f"forward({', '.join(names)})",
            next=(
                "give each with --input, for example --input"
                f" '{(names or ['x'])[0]}=float32[batch,3,224,224]', or let the factory return (model,"
                " example_inputs)"
            ),
        )
    specs = []
    for name in in_order(loaded.module, list(loaded.example)):
        array = loaded.example[name]
        if array.dtype.name not in DTYPES:
            raise UsageError(
                f"the example input {name} has a dtype that MNN does not take",
                seen=array.dtype.name,
                next="use one of " + ", ".join(DTYPES),
            )
        specs.append(TensorSpec(name, array.dtype.name, loaded.dynamic.get(name, array.shape)))
    return tuple(specs)
