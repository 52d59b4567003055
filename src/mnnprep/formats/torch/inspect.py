"""The content of PyTorch's files, read without PyTorch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.formats.torch.stateless import require_stateless
from mnnprep.formats.torch_files import model_record, model_scan, model_state, read_record, record_names
from mnnprep.text import listed
from mnnprep.weights.files import LocalFile
from mnnprep.weights.safetensors import read_header


def inspect_safetensors(path: Path, _kind: str) -> Findings:
    """Read a safetensors file's header.

    Raises:
        RefusedError: the file is damaged.
    """
    header = read_header(LocalFile(path, path.name))
    tensors = tuple(TensorInfo(name, entry.dtype, entry.shape) for name, entry in header.tensors.items())
    parameters = sum(element_count(entry.shape) for entry in header.tensors.values())
    return Findings(parameters=parameters, details={"tensors": tensors, "metadata": header.metadata})


def inspect_pickle(path: Path, kind: str) -> Findings:
    """Read pickled weights, or a pickled module.

    Raises:
        RefusedError: the file is damaged.
    """
    state = model_state(path)
    names = list(model_scan(path).globals)
    warning = (
        f"loading it imports and calls what it names ({listed(names, 8)}): prepare it with --trust, or save a"
        " state dict and give a factory"
    )
    return Findings(
        parameters=state.elements,
        details={"tensors": state.tensors, "modules": state.modules, "globals": model_scan(path).globals},
        leftovers=_in_training(state.training),
        warnings=(warning,) if kind == "torch-module" else (),
    )


# One call in TorchScript's serialized code: `torch.conv2d(`, `ops.quantized.linear(`.
_CALL = re.compile(rb"\b(torch|ops\.\w+)\.(\w+)\(")
_CLASS = re.compile(r"^class (\w+)\(Module\)", re.MULTILINE)
_FORWARD = re.compile(r"^  def forward\((.*?)\) -> (.*?):$", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"(\w+): ((?:[^,\[]|\[[^\]]*\])+)")


def inspect_script(path: Path, kind: str) -> Findings:
    """Read a TorchScript archive.

    Raises:
        RefusedError: the file is damaged.
    """
    names = record_names(path)
    sources = {name: read_record(path, name) for name in names if re.search(r"(^|/)code/.*\.py$", name)}
    ops: Counter[str] = Counter()
    for source in sources.values():
        ops.update((b"%s.%s" % match).decode() for match in _CALL.findall(source))
    classes = sorted(
        {found for source in sources.values() for found in _CLASS.findall(source.decode(errors="replace"))}
    )
    details: dict[str, Any] = {"classes": classes, "records": len(names)}
    found = Findings(ops=most_first(ops), details=details, warnings=side_effects(path, kind))
    if not model_record(names):
        return found
    state = model_state(path)
    root = model_scan(path).root
    return msgspec.structs.replace(
        found,
        parameters=state.elements,
        leftovers=_in_training(state.training),
        signature=_forward_ports(root, sources),
        details=details | {"root": root, "tensors": state.tensors, "modules": state.modules},
    )


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """*counts* in falling order, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def side_effects(path: Path, kind: str) -> tuple[str, ...]:
    """Name what a program does beside computing, as far as its file says."""
    try:
        require_stateless(path, kind)
    except RefusedError as error:
        return (f"{error.what} ({error.seen}): {error.next}",)
    return ()


def _forward_ports(root: str, sources: Mapping[str, bytes]) -> Ports:
    """The arguments of the outermost class's forward; TorchScript states their type, not their shape."""
    module, _, name = root.rpartition(".")
    suffix = f"code/{module.replace('.', '/')}.py"
    source = next(
        (data.decode(errors="replace") for record, data in sources.items() if record.endswith(suffix)), ""
    )
    body = re.search(
        rf"^class {re.escape(name)}\(Module\):\n(.*?)(?=^class |\Z)", source, re.MULTILINE | re.DOTALL
    )
    forward = _FORWARD.search(body[1]) if body else None
    if forward is None:
        return Ports()
    arguments = _ARGUMENT.findall(forward[1])[1:]  # without self
    return Ports(
        tuple(TensorInfo(argument, kind.strip()) for argument, kind in arguments),
        (TensorInfo("", forward[2].strip()),),
    )


def _in_training(modules: tuple[str, ...]) -> tuple[str, ...]:
    if not modules:
        return ()
    return (
        (
            f"{len(modules)} modules were saved in training mode:"
            f" {listed([name or '(the whole model)' for name in modules], 8)}"
        ),
    )
