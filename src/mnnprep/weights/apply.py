"""Loading weights into a torch module: all of them or none, and every reason in one error."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep import deps
from mnnprep.errors import UsageError
from mnnprep.text import listed
from mnnprep.weights.entries import Expected
from mnnprep.weights.read import State, read_state

if TYPE_CHECKING:
    import torch

Tensors = dict[str, Any]  # of torch.Tensor, by name

_SHOWN = 10


@dataclass
class _Misfit:
    """Why a state dict does not fit: each list holds names, or a name with what is wrong."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    mistyped: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.missing, self.unexpected, self.misshapen, self.mistyped, self.untied))


def load_into(module: torch.nn.Module, path: Path) -> list[str]:
    """Load the checkpoint at *path* into *module*, in place; what a user should know of it is returned.

    Every parameter and persistent buffer must be there with its shape.  Tolerated and noted are a missing or
    superfluous ``num_batches_tracked`` (it plays no part in inference), an entry for a buffer that the model
    does not persist, and another floating dtype.  Of tied weights one name is enough.  Everything is checked
    before anything is changed; a module on the meta device is given the tensors in place of copies.

    Raises:
        UsageError: the keys don't fit: missing, unexpected, misshapen and mistyped ones in one message; or
        several
            places of the checkpoint fit equally well; or a tensor would remain on the meta device.
        RefusedError: as :func:`mnnprep.weights.read.read_state`.
    """
    torch = deps.require("torch")
    expected, wanted = expected_of(module)
    state = read_state(path, expected)
    notes = list(state.origin)
    tensors = dict(state.tensors)
    superfluous = [name for name in tensors if name not in wanted and expected.tolerates(name)]
    for name in superfluous:
        del tensors[name]

    misfit = _compare(expected, wanted, tensors)
    if misfit:
        if misfit.mistyped or misfit.untied or not _fits_after_hooks(module, expected, wanted, tensors):
            raise _error(misfit, state)
        notes.append("keys renamed by the model's own loading hooks")
    if state.rivals:
        raise UsageError(
            "several state dicts of the checkpoint fit the model equally well and differ",
            seen=", ".join(state.rivals[:_SHOWN]),
            next="save the one you mean on its own with torch.save",
        )
    notes += _tolerated(expected, wanted, tensors, superfluous)
    tensors = {
        name: tensor.to(wanted[name].dtype) if name in wanted else tensor for name, tensor in tensors.items()
    }
    on_meta = any(value.is_meta for value in wanted.values())
    if on_meta:
        _complete(expected, wanted, tensors)
        _refuse_remaining_meta(module, tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.nn.Module.load_state_dict(module, tensors, strict=False, assign=on_meta)
        except RuntimeError as error:
            raise UsageError(
                "the model refused the weights",
                seen=str(error)[:2000],
                next="check that they are this model's",
            ) from error
    return notes


def expected_of(module: torch.nn.Module) -> tuple[Expected, Tensors]:
    """Return what a checkpoint must hold for *module*, and the tensors of its state dict by name."""
    torch = deps.require("torch")
    model = torch.nn.Module.state_dict(module, keep_vars=True)
    wanted: Tensors = {name: value for name, value in model.items() if isinstance(value, torch.Tensor)}
    transient = {name for name, _ in module.named_buffers(remove_duplicate=False)} - wanted.keys()
    return _expected(wanted, transient), wanted


def _expected(wanted: Mapping[str, torch.Tensor], transient: set[str]) -> Expected:
    torch = deps.require("torch")
    is_lazy = torch.nn.parameter.is_lazy
    counters = {name for name in wanted if name.rpartition(".")[2] == "num_batches_tracked"}
    groups: dict[Any, set[str]] = defaultdict(set)
    for name, value in wanted.items():
        if is_lazy(value):
            continue
        if value.is_meta or not value.numel() or value.layout != torch.strided:
            groups[id(value)].add(name)
        else:
            groups[value.data_ptr(), value.dtype, tuple(value.shape), value.stride()].add(name)
    return Expected(
        {name: None if is_lazy(value) else tuple(value.shape) for name, value in wanted.items()},
        frozenset(counters | transient),
        tuple(frozenset(group) for group in groups.values() if len(group) > 1),
    )


def _compare(
    expected: Expected, wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> _Misfit:
    """Everything about *tensors* that keeps them from being loaded as they are."""
    misfit = _Misfit(
        missing=expected.missing(tensors), unexpected=[name for name in tensors if name not in wanted]
    )
    for name, tensor in tensors.items():
        if name not in wanted:
            continue
        if not expected.fits(name, tensor):
            misfit.misshapen.append(
                f"{name}: checkpoint {list(tensor.shape)} vs model {list(wanted[name].shape)}"
            )
        elif reason := _conversion_problem(tensor, wanted[name].dtype):
            misfit.mistyped.append(f"{name}: {reason}")
    for group in expected.tied:
        present = [name for name in sorted(group) if name in tensors]
        misfit.untied += [
            f"{present[0]} and {name}"
            for name in present[1:]
            if not _same(tensors[present[0]], tensors[name])
        ]
    return misfit


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.dtype == other.dtype and bool(deps.require("torch").equal(one, other)))


def _conversion_problem(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    """Why *tensor* can't be converted to *dtype* without changing what it says; empty when it can.

    A floating number may be rounded to another floating type that holds its magnitude.  Whole numbers and
    truth values must come out equal.  Numbers of different kinds (quantized weights for floating ones) are
    never converted.
    """
    torch = deps.require("torch")
    if tensor.dtype == dtype:
        return ""
    names = f"checkpoint {_name(tensor.dtype)} vs model {_name(dtype)}"
    if (
        tensor.dtype.is_floating_point != dtype.is_floating_point
        or tensor.dtype.is_complex != dtype.is_complex
    ):
        return names
    if dtype.is_complex or (
        dtype.is_floating_point and torch.finfo(dtype).max >= torch.finfo(tensor.dtype).max
    ):
        return ""
    converted = tensor.to(dtype)
    if dtype.is_floating_point:
        overflows = torch.isfinite(tensor.double()) & ~torch.isfinite(converted.double())
        return f"{names}: values too large for it" if bool(overflows.any()) else ""
    return "" if torch.equal(converted.to(tensor.dtype), tensor) else f"{names}: values that it can't hold"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fits_after_hooks(
    module: torch.nn.Module,
    expected: Expected,
    wanted: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
) -> bool:
    """Whether the module's own loading code makes the keys fit.

    That is pre-hooks, as weight_norm has, and overridden methods.

    Tried on a copy of the module without storage, so that nothing is changed.
    """
    torch = deps.require("torch")
    held = {
        id(t): t
        for t in [*module.parameters(), *module.buffers(), *wanted.values()]
        if not torch.nn.parameter.is_lazy(t)
    }
    try:
        skeleton = copy.deepcopy(module, {key: _on_meta(value) for key, value in held.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = torch.nn.Module.load_state_dict(skeleton, dict(tensors), strict=False)
    except Exception:  # what a user's module does when copied or loaded is open; then the keys just don't fit
        return False
    absent = set(result.missing_keys)
    return not expected.missing(name for name in wanted if name not in absent) and not result.unexpected_keys


def _on_meta(value: torch.Tensor) -> torch.Tensor:
    torch = deps.require("torch")
    empty = value.detach().to("meta")
    return (
        torch.nn.Parameter(empty, requires_grad=value.requires_grad)
        if isinstance(value, torch.nn.Parameter)
        else empty
    )


def _error(misfit: _Misfit, state: State) -> UsageError:
    lines = []
    for title, names in (
        ("missing from the checkpoint", misfit.missing),
        ("unexpected in the checkpoint", misfit.unexpected),
        ("misshapen", misfit.misshapen),
        ("of another type", misfit.mistyped),
        ("one tensor in the model, different values in the checkpoint", misfit.untied),
    ):
        if names:
            lines.append(f"{title} ({len(names)}): {listed(names, _SHOWN)}")
    if state.origin:
        lines.append(f"the checkpoint: {'; '.join(state.origin)}")
    return UsageError("the weights don't fit the model", seen="\n        ".join(lines), next=_advice(misfit))


def _advice(misfit: _Misfit) -> str:
    near = []
    for name in misfit.missing[:200]:
        match = difflib.get_close_matches(name, misfit.unexpected[:200], n=1, cutoff=0.6)
        if match:
            near.append(f"the model's {name!r} looks like the checkpoint's {match[0]!r}")
        if len(near) == 3:
            break
    if misfit.mistyped and not (misfit.missing or misfit.unexpected or misfit.misshapen):
        return "give the weights as they were trained, before any quantization"
    advice = "make the factory build the model with the options it was trained with, or rename the keys"
    return f"{advice}; {'; '.join(near)}" if near else advice


def _tolerated(
    expected: Expected,
    wanted: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    superfluous: Sequence[str],
) -> list[str]:
    """Notes on what was tolerated."""
    notes = []
    counters = [name for name in expected.dispensable if name in wanted and name not in tensors]
    if counters:
        notes.append(
            f"{len(counters)} num_batches_tracked missing from the checkpoint; they play no part in inference"
        )
    if superfluous:
        notes.append(
            f"ignored {len(superfluous)} entries that the model does not persist:"
            f" {listed(superfluous, _SHOWN)}"
        )
    aliases = sorted(
        name
        for group in expected.tied
        if group & tensors.keys()
        for name in group - tensors.keys() - expected.dispensable
    )
    if aliases:
        notes.append(f"tied weights, given under another name: {listed(aliases, _SHOWN)}")
    conversions: dict[tuple[str, str], int] = defaultdict(int)
    for name, tensor in tensors.items():
        if name in wanted and tensor.dtype != wanted[name].dtype:
            conversions[_name(tensor.dtype), _name(wanted[name].dtype)] += 1
    notes += [
        f"{count} tensors converted from {source} to {target}"
        for (source, target), count in sorted(conversions.items())
    ]
    return notes


def _complete(
    expected: Expected, wanted: Mapping[str, torch.Tensor], tensors: dict[str, torch.Tensor]
) -> None:
    """Give a model on the meta device what the checkpoint may leave out.

    It may leave out the other names of tied weights, and counters.
    """
    torch = deps.require("torch")
    for group in expected.tied:
        present = sorted(group & tensors.keys())
        if present:
            tensors.update((name, tensors[present[0]]) for name in group - tensors.keys())
    for name in expected.dispensable & wanted.keys() - tensors.keys():
        tensors[name] = torch.zeros(tuple(wanted[name].shape), dtype=wanted[name].dtype)


def _refuse_remaining_meta(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    remaining = [
        name
        for name, buffer in module.named_buffers(remove_duplicate=False)
        if buffer.is_meta and name not in tensors
    ]
    if remaining:
        raise UsageError(
            "the model has buffers on the meta device that no checkpoint holds",
            seen=listed(remaining, _SHOWN),
            next="build these buffers on the CPU: they are computed by the model, not saved with its weights",
        )
