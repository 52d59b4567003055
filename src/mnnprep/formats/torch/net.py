"""A PyTorch module as a net, and what it says of itself: leftovers of training, parameters in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import MnnprepError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.torch.calling import calling
from mnnprep.formats.torch.float64 import in_float64, quick_depthwise
from mnnprep.formats.torch.structure import flatten
from mnnprep.formats.torch.watch import Watch, raised_at
from mnnprep.model.files import Arrays
from mnnprep.model.net import PROGRAMMING, Case, Refused
from mnnprep.model.signature import Dim, Range, TensorSpec
from mnnprep.model.steps import Step
from mnnprep.safety.error_text import cause
from mnnprep.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import torch
    from torch import nn

BATCH_NORM_TYPES = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
# The position of the flag `train` or `training` among the arguments of the operators that behave otherwise in
# training.
TRAINING_ARGUMENT = {
    "dropout": 2,
    "dropout_": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "native_dropout": 2,
    "batch_norm": 5,
    "_native_batch_norm_legit": 5,
    "native_batch_norm": 5,
    "cudnn_batch_norm": 5,
    "rrelu": 3,
    "rrelu_with_noise": 4,
}


FUSING = ("MultiheadAttention", "TransformerEncoder", "TransformerEncoderLayer")


class TorchNet:
    """A PyTorch module as a :class:`mnnprep.model.net.Net`.

    Inputs go in by parameter name; outputs are flattened. With ``precise`` there is room for it in float64.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[TensorSpec, ...],
        example: Arrays | None = None,
        dims: tuple[Dim, ...] = (),
        *,
        precise: bool = True,
    ) -> None:
        self.precise = precise
        self.module = module
        self.inputs = inputs
        self.dims = dims
        self.example = example or {}
        self.watch = Watch(module)
        self._calling = calling(module, [s.name for s in inputs])
        self._precise: nn.Module | None = None
        self._constant: set[str] = set()  # outputs that no input reached in the last run
        self._fuses = any(type(m).__name__ in FUSING for m in module.modules())

    def _call(self, module: nn.Module, inputs: Arrays, *, double: bool = False) -> Arrays:
        return {n: _to_numpy(t) for n, t in self._tensors(module, inputs, double=double).items()}

    def _tensors(self, module: nn.Module, inputs: Arrays, *, double: bool = False) -> dict[str, torch.Tensor]:
        torch = require("torch")
        tensors = {n: torch.from_numpy(a.copy()) for n, a in inputs.items()}
        if double:
            tensors = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
        try:
            with torch.no_grad():
                return flatten(self._calling(module, tensors), tuple(inputs))
        except MnnprepError:
            raise
        except Exception as error:  # whatever the user's forward raises
            place = raised_at(error) if isinstance(error, PROGRAMMING) else ""
            raise Refused(cause(error) + (f" (at {place})" if place else "")) from error

    def run(self, inputs: Arrays) -> Arrays:
        """Call the module with the inputs by parameter name; return its outputs, flattened.

        A watched module never takes torch's fused kernels of attention, which give NaN for a row that a mask
        hides whole, where the others give numbers: what it gives unwatched counts then.
        """
        with self.watch.mode():
            tensors = self._tensors(self.module, inputs)
        self._constant = {n for n, t in tensors.items() if self.watch.is_constant(t)}
        watched = {n: _to_numpy(t) for n, t in tensors.items()}
        if not self._fuses or all(a.dtype.kind == "f" for a in inputs.values()):
            return watched
        plain = self._call(self.module, inputs)
        return plain if _has_nan(plain) and not _has_nan(watched) else watched

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """The module in float64; None when its code insists on float32 or it can't be copied."""
        if not self.precise:
            return None
        torch = require("torch")
        default = torch.get_default_dtype()
        try:
            if self._precise is None:
                self._precise = in_float64(self.module)
            torch.set_default_dtype(torch.float64)
            with quick_depthwise():
                return self._call(self._precise, inputs, double=True)
        except (Refused, RuntimeError, TypeError, NotImplementedError):
            return None
        finally:
            torch.set_default_dtype(default)

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """Index ranges, from the tables that the inputs look up in one run."""
        if not any(np.issubdtype(a.dtype, np.integer) for a in inputs.values()):
            return {}
        torch = require("torch")
        tensors = {n: torch.from_numpy(a.copy()) for n, a in inputs.items()}
        watch = Watch()
        try:
            with torch.no_grad(), watch.mode():
                self._calling(self.module, tensors)
        except Exception:
            return {}
        found = {
            n: watch.tables[t.data_ptr()]
            for n, t in tensors.items()
            if t.data_ptr() in watch.tables and not t.is_floating_point()
        }
        if not found and isinstance(self.module, torch.jit.ScriptModule):
            sizes = [
                p.shape[0] for n, p in self.module.named_parameters() if "embed" in n.lower() and p.dim() == 2
            ]
            found = {n: min(sizes) for n, t in tensors.items() if sizes and not t.is_floating_point()}
        return {n: (0.0, float(size - 1)) for n, size in found.items()}

    def steps(self, cases: Sequence[Case]) -> dict[str, Step]:
        """The steps of the floating outputs, of no scale of their own, if the net was seen to round."""
        if not self.watch.rounds:
            return {}
        return {n: Step(0.0) for n, a in cases[0].outputs.items() if a.dtype.kind == "f"}

    def insensitive(self) -> dict[str, str]:
        """Name the outputs that no input reached in the last run."""
        return dict.fromkeys(sorted(self._constant), "depends on the module and shapes alone")

    def inference_mode(self) -> Check:
        """Training that ``eval`` does not reach; call after the runs, which see functional dropout."""
        torch = require("torch")
        left = [f"functional dropout with training=True at {place}" for place in self.watch.dropouts]
        left += [
            f"{n or 'the model'} ({type(m).__name__}) is in training mode"
            for n, m in self.module.named_modules()
            if m.training
        ]
        left += [
            f"{n} ({type(m).__name__}) has no running statistics, so it normalizes by the batch at hand"
            for n, m in self.module.named_modules()
            if type(m).__name__ in BATCH_NORM_TYPES and getattr(m, "running_mean", None) is None
        ]
        if isinstance(self.module, torch.jit.ScriptModule):
            left += script_leftovers(self.module)
        for graph in (m for m in self.module.modules() if isinstance(m, torch.fx.GraphModule)):
            left += program_leftovers(graph)
        if left:
            return catalog.INFERENCE_MODE.failed(
                f"{listed(left, separator='; ')}; make it follow eval(), or leave it out of the model",
                subject=left[0],
            )
        return catalog.INFERENCE_MODE.passed(numbers={"modules": sum(1 for _ in self.module.modules())})


class OtherwiseFirst(TorchNet):
    """The same net called first with other values than it is asked for, if it takes them.

    A module may keep something of its first call (a mean, a scale). It then differs from what the reference's
    process keeps, and the comparison sees an artifact that holds it.
    """

    _ranks: dict[str, int] | None = None

    def run(self, inputs: Arrays) -> Arrays:
        """Run on other values first if the module takes them, else on *inputs* alone."""
        try:
            outputs = super().run(other_values(inputs))
        except Refused:
            outputs = super().run(inputs)
        self._ranks = {name: array.ndim for name, array in outputs.items()}
        return outputs

    def output_ranks(self, inputs: Arrays) -> dict[str, int]:
        """Return the outputs' names, in order, and their ranks.

        They are those of the last run, or of one on *inputs* if there was none.
        """
        if self._ranks is None:
            self.run(inputs)
        return self._ranks or {}


def other_values(inputs: Arrays) -> Arrays:
    """Move floating inputs halfway to their largest value, so that they stay within their range.

    The others stay as they are.
    """
    return {
        n: np.asarray((a + a.max()) / 2, a.dtype) if a.dtype.kind == "f" and a.size else a
        for n, a in inputs.items()
    }


def _has_nan(outputs: Arrays) -> bool:
    return any(a.dtype.kind == "f" and bool(np.isnan(a).any()) for a in outputs.values())


def _to_numpy(tensor: torch.Tensor) -> npt.NDArray[np.generic]:
    torch = require("torch")
    tensor = tensor.detach().cpu()
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if tensor.dtype in (torch.bfloat16,):
        raise Refused("an output is bfloat16, which MNN can't give; convert the model to float32 or float16")
    return tensor.contiguous().numpy().copy()


def script_leftovers(module: nn.Module) -> list[str]:
    """Operators of a TorchScript module's graph that are told to behave as in training."""
    import io

    torch = require("torch")
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    try:
        frozen = torch.jit.freeze(torch.jit.load(buffer).eval())
    except RuntimeError:
        return []  # what can't be frozen is reported by the methods that need it
    left = []
    for node in script_nodes(frozen.graph):
        position = TRAINING_ARGUMENT.get(node.kind().removeprefix("aten::"))
        inputs = list(node.inputs())
        if position is not None and position < len(inputs) and inputs[position].toIValue() is True:
            left.append(
                f"{node.kind()} in training mode"
                f" ({(node.sourceRange().strip().splitlines() or ['?'])[0].strip()})"
            )
    return left


def script_nodes(graph: torch.Graph | torch.Block) -> Iterator[Any]:
    """Every node of a graph or block and its nested blocks: a torch.Node, which torch's stubs misdescribe."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from script_nodes(block)


def program_leftovers(module: torch.fx.GraphModule) -> list[str]:
    """The same for the graph of an exported program."""
    left = []
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
        position = TRAINING_ARGUMENT.get(name)
        if position is not None and position < len(node.args) and node.args[position] is True:
            left.append(f"{name} in training mode at node {node.name}")
    return left


def materialize(module: nn.Module) -> None:
    """Replace parametrized weights (weight norm, spectral norm and the like) by the values they compute."""
    torch = require("torch")
    parametrize = torch.nn.utils.parametrize
    for submodule in list(module.modules()):
        if parametrize.is_parametrized(submodule):
            for name in list(cast("nn.ModuleDict", submodule.parametrizations)):
                parametrize.remove_parametrizations(submodule, name, leave_parametrized=True)
        for hook in list(getattr(submodule, "_forward_pre_hooks", {}).values()):
            remove = {
                "WeightNorm": torch.nn.utils.remove_weight_norm,
                "SpectralNorm": torch.nn.utils.remove_spectral_norm,
            }.get(type(hook).__name__)
            if remove is not None:
                remove(submodule, hook.name)


def used_tensors(module: nn.Module, cases: list[Arrays]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the parameters that reach an output in any of the cases, by autograd's graph.

    With them come the statistics of the norms that ran.

    Returns them by name, and notes.  If nothing can be followed (a forward under no_grad), all.
    """
    torch = require("torch")
    ran: set[int] = set()
    handles = (
        [m.register_forward_hook(lambda m, *_: ran.add(id(m))) for m in module.modules()]
        if not isinstance(module, torch.jit.ScriptModule)
        else []
    )
    call = calling(module, list(cases[0]) if cases else [])
    flags = {id(p): p.requires_grad for p in module.parameters()}
    notes: list[str] = []
    try:
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        reached = set()
        for inputs in cases:
            with torch.enable_grad():
                outputs = flatten(
                    call(module, {n: torch.from_numpy(a.copy()) for n, a in inputs.items()}), tuple(inputs)
                )
            reached |= _leaves([t.grad_fn for t in outputs.values() if t.grad_fn is not None])
            if len(reached) == len(flags):
                break
    except Exception as error:
        reached = set()
        notes.append(f"parameters in use could not be followed ({type(error).__name__}); all are required")
    finally:
        for handle in handles:
            handle.remove()
        for parameter in module.parameters():
            parameter.requires_grad_(flags[id(parameter)])
    used = {n: p.detach() for n, p in module.named_parameters() if not reached or id(p) in reached}
    return used | _statistics(module, lambda submodule: id(submodule) in ran), notes


def all_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what :func:`used_tensors` gives if every parameter is in use and every norm runs."""
    return {n: p.detach() for n, p in module.named_parameters()} | _statistics(module, lambda submodule: True)


def _statistics(module: nn.Module, of: Callable[[nn.Module], bool]) -> dict[str, torch.Tensor]:
    """The running statistics, by name, of the norms that are asked for."""
    found: dict[str, torch.Tensor] = {}
    if isinstance(module, require("torch").jit.ScriptModule):
        return found
    for prefix, submodule in module.named_modules():
        if "Norm" in type(submodule).__name__ and of(submodule):
            found |= {
                f"{prefix}.{n}" if prefix else n: b.detach()
                for n, b in submodule.named_buffers(recurse=False)
                if n in ("running_mean", "running_var") and b is not None
            }
    return found


def _leaves(starts: list[Any]) -> set[int]:
    """The ids of the leaf tensors behind autograd nodes."""
    seen: set[Any] = set()
    leaves: set[int] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves
