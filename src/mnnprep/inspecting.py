"""What a file is, really: read from the file alone, with no framework and no part of it executed."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mnnprep import deps
from mnnprep.core.damage import reading
from mnnprep.core.printable import textual
from mnnprep.core.request import Limits
from mnnprep.errors import RefusedError
from mnnprep.formats.sniff import identify, require_there
from mnnprep.formats.table import WEIGHTS_ONLY, format_of
from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.pipeline.reading import SECONDS, PathJob, read_aside
from mnnprep.text import listed


class Ports(msgspec.Struct, frozen=True):
    """The inputs and outputs, as far as the file states them."""

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`inspect_file` finds.

    ``size`` is in bytes (of all files, for a directory); ``prepared`` tells whether this version prepares the
    kind. ``ops`` counts operators as written in the file (``domain::Type`` outside ONNX's own domain);
    ``parameters`` the elements of all stored tensors (with buffers and constants), None where the file was
    not read so far; ``leftovers`` name what would behave as in training; ``warnings`` what will stand in the
    way; ``details`` hold what only this format has.
    """

    kind: str
    title: str
    framework: str
    path: str
    size: int
    prepared: bool
    signature: Ports = Ports()
    ops: dict[str, int] = msgspec.field(default_factory=dict)
    parameters: int | None = None
    opset: int | None = None
    leftovers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = msgspec.field(default_factory=dict)


STEP = "mnnprep.inspecting:read"


def inspect_file(path: str | Path, *, limits: Limits | None = None) -> Inspection:
    """Say what the file or directory at *path* is and holds, without loading it; ``details`` are plain data.

    It is read in a worker, within *limits* (a minute, and three quarters of the free memory).

    Raises:
        UsageError: there is nothing at *path*.
        RefusedError: it is no model, or a damaged one (see `formats.sniff.identify`), or takes more than
        *limits*.
    """
    require_there(path)
    absolute = Path(os.path.abspath(path))
    found = read_aside(STEP, PathJob.of(absolute), Inspection, absolute, limits or Limits(timeout=SECONDS))
    return msgspec.structs.replace(found, path=str(path))


def read(job: PathJob) -> Inspection:
    """The step of :func:`inspect_file`."""
    return msgspec.convert(textual(msgspec.to_builtins(read_file(Path(job.path)))), Inspection)


def read_file(path: str | Path) -> Inspection:
    """:func:`inspect_file` in this process, without limits; ``details`` hold what the readers gave."""
    path = Path(path)
    kind = identify(path)
    row = format_of(kind)
    with reading(path, row.title):
        found = _READERS[kind](path) if kind in _READERS else {}
        size = _size(path)
    warnings = list(found.pop("warnings", ()))
    if kind in WEIGHTS_ONLY:
        warnings.append(
            "these are weights without a model: give a factory (file.py:callable) and this file with"
            " --weights"
        )
    elif not row.prepared:
        warnings.append(f"{row.title}: recognised, and not prepared by this version")
    return Inspection(
        kind=kind,
        title=row.title,
        framework=row.framework,
        path=str(path),
        size=size,
        prepared=row.prepared,
        warnings=tuple(warnings),
        **found,
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _read_onnx(path: Path) -> dict[str, Any]:
    from mnnprep.formats.onnx.scan import scan_model
    from mnnprep.formats.onnx.summary import require_loadable

    summary = scan_model(path)
    warnings = list(summary.problems)
    try:
        require_loadable(summary, path.stat().st_size)
    except RefusedError as error:
        warnings.append(f"{error.what} ({error.seen}): {error.next}")
    if summary.int32_data:
        warnings.append(
            f"values of less than 32 bits are kept in int32_data: {listed(summary.int32_data, 8)}"
        )
    return {
        "signature": Ports(summary.inputs, summary.outputs),
        "ops": {f"{op.domain}::{op.op_type}" if op.domain else op.op_type: op.count for op in summary.ops},
        "parameters": summary.initializers.total.elements + summary.constants.total.elements,
        "opset": summary.opset,
        "leftovers": tuple(
            f"{leftover.op_type} {leftover.node}: {leftover.reason}".strip() for leftover in summary.leftovers
        ),
        "warnings": warnings,
        "details": {
            "ir_version": summary.ir_version,
            "producer": summary.producer,
            "opsets": summary.opsets,
            "defaulted_inputs": summary.defaulted_inputs,
            "initializers": summary.initializers,
            "constants": summary.constants,
            "external": summary.external,
            "int32_data": summary.int32_data,
            "functions": summary.functions,
            "metadata": summary.metadata,
        },
    }


def _read_tflite(path: Path) -> dict[str, Any]:
    from mnnprep.formats.tflite.scan import scan_model

    summary = scan_model(path)
    warnings = []
    if summary.state:
        warnings.append(
            f"it keeps state or looks things up in tables ({listed(summary.state, 8)}), which MNN does not"
        )
    if summary.custom:
        warnings.append(f"operators that TFLite does not define: {listed(summary.custom, 8)}")
    return {
        "signature": Ports(summary.inputs, summary.outputs),
        "ops": summary.ops,
        "parameters": summary.parameters,
        "warnings": warnings,
        "details": {
            "quantization": [
                f"{q.tensor}: {q.dtype}, {q.kind}" + (f", axis {q.axis}" if len(q.scale) > 1 else "")
                for q in summary.quantized
            ],
            "quantization_parameters": [msgspec.to_builtins(q) for q in summary.quantized],
            "sparse": summary.sparse,
            "subgraphs": summary.subgraphs,
            "signatures": summary.signatures,
            "description": summary.description,
        },
    }


def _read_graph(path: Path) -> dict[str, Any]:
    from mnnprep.formats.tensorflow import scan

    kind = identify(path)
    found = {"savedmodel": scan.scan_saved_model, "tf-checkpoint": scan.scan_meta_graph}.get(
        kind, scan.scan_graph
    )(path)
    default = "serving_default" if "serving_default" in found.signatures else next(iter(found.signatures), "")
    warnings = []
    if kind == "frozen-graph" and found.variables:
        warnings.append(f"it is not frozen: {listed(found.variables, 8)}")
    if kind == "savedmodel" and not found.signatures:
        warnings.append("it has no signature: save it with one")
    if found.tables:
        warnings.append(f"it looks things up in tables ({listed(found.tables, 8)}), which MNN does not")
    if found.effects:
        warnings.append(
            f"operators that may do more than compute ({listed(found.effects, 8)}): they run with --trust"
            " alone"
        )
    return {
        "signature": Ports(*found.signatures.get(default, ((), ()))),
        "ops": found.ops,
        "parameters": found.parameters,
        "leftovers": found.leftovers,
        "warnings": warnings,
        "details": {
            "signatures": {n: f"{_names(i)} -> {_names(o)}" for n, (i, o) in found.signatures.items() if n}
        },
    }


def _names(tensors: tuple[TensorInfo, ...]) -> str:
    return listed([t.name for t in tensors], 8)


def _read_keras(path: Path) -> dict[str, Any]:
    from mnnprep.formats.tensorflow.keras_scan import scan_keras

    found = scan_keras(path, identify(path))
    foreign = (
        f"loading it would call code ({listed(found.foreign, 8)}): prepare it with --trust, or give a factory"
        " and weights"
    )
    return {
        "signature": Ports(found.inputs, found.outputs),
        "ops": found.layers,
        "parameters": found.parameters,
        "warnings": [foreign] if found.foreign else [],
        "details": {"keras_version": found.version, "compiled": found.compiled},
    }


def _read_safetensors(path: Path) -> dict[str, Any]:
    from mnnprep.weights.files import LocalFile
    from mnnprep.weights.safetensors import read_header

    header = read_header(LocalFile(path, path.name))
    tensors = tuple(TensorInfo(name, entry.dtype, entry.shape) for name, entry in header.tensors.items())
    parameters = sum(element_count(entry.shape) for entry in header.tensors.values())
    return {"parameters": parameters, "details": {"tensors": tensors, "metadata": header.metadata}}


def _read_pickle(path: Path) -> dict[str, Any]:
    from mnnprep.formats.torch_files import model_scan, model_state

    state = model_state(path)
    details = {"tensors": state.tensors, "modules": state.modules, "globals": model_scan(path).globals}
    return {"parameters": state.elements, "details": details, "leftovers": _in_training(state.training)}


def _read_module(path: Path) -> dict[str, Any]:
    found = _read_pickle(path)
    imports = listed(found["details"]["globals"], 8)
    found["warnings"] = [
        f"loading it imports and calls what it names ({imports}): prepare it with --trust, or save a state"
        " dict and give a factory"
    ]
    return found


# One call in TorchScript's serialized code: `torch.conv2d(`, `ops.quantized.linear(`.
_CALL = re.compile(rb"\b(torch|ops\.\w+)\.(\w+)\(")
_CLASS = re.compile(r"^class (\w+)\(Module\)", re.MULTILINE)
_FORWARD = re.compile(r"^  def forward\((.*?)\) -> (.*?):$", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"(\w+): ((?:[^,\[]|\[[^\]]*\])+)")


def _read_torchscript(path: Path) -> dict[str, Any]:
    from mnnprep.formats.torch_files import model_record, model_scan, model_state, read_record, record_names

    names = record_names(path)
    sources = {name: read_record(path, name) for name in names if re.search(r"(^|/)code/.*\.py$", name)}
    ops: Counter[str] = Counter()
    for source in sources.values():
        ops.update((b"%s.%s" % match).decode() for match in _CALL.findall(source))
    classes = sorted(
        {found for source in sources.values() for found in _CLASS.findall(source.decode(errors="replace"))}
    )
    result: dict[str, Any] = {"ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0])))}
    details: dict[str, Any] = {"classes": classes, "records": len(names)}
    if model_record(names):
        state = model_state(path)
        root = model_scan(path).root
        details |= {"root": root, "tensors": state.tensors, "modules": state.modules}
        result |= {
            "parameters": state.elements,
            "leftovers": _in_training(state.training),
            "signature": _forward_ports(root, sources),
        }
    return result | {"details": details, "warnings": _side_effects(path, "torchscript")}


def _side_effects(path: Path, kind: str) -> list[str]:
    """What a program does beside computing, as far as its file says."""
    from mnnprep.formats.torch.stateless import require_stateless

    try:
        require_stateless(path, kind)
    except RefusedError as error:
        return [f"{error.what} ({error.seen}): {error.next}"]
    return []


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


# torch/_export/serde/schema.py: ScalarType
_SCALAR_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
}


def _read_exported_program(path: Path) -> dict[str, Any]:
    from mnnprep.formats.torch_files import read_record, record_names

    names = record_names(path)
    record = next(
        name for name in names if re.search(r"(^|/)(models/[^/]+|serialized_exported_program)\.json$", name)
    )
    try:
        program = json.loads(read_record(path, record))
        return _describe_program(program, len(names)) | {"warnings": _side_effects(path, "exported-program")}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        warning = (
            "its program can't be read as the schema of torch.export that this version knows"
            f" ({type(error).__name__}: {error})"
        )
        return {"details": {"records": len(names)}, "warnings": [warning]}


def _describe_program(program: dict[str, Any], records: int) -> dict[str, Any]:
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    values = graph["tensor_values"]
    stored = []
    inputs = []
    for spec in signature["input_specs"]:
        kind, content = next(iter(spec.items()))
        if kind in ("parameter", "buffer"):
            stored.append(_program_tensor(content[f"{kind}_name"], values[content["arg"]["name"]]))
        elif kind == "user_input" and "as_tensor" in content["arg"]:
            name = content["arg"]["as_tensor"]["name"]
            inputs.append(_program_tensor(name, values[name]))
    outputs = []
    for spec in signature["output_specs"]:
        argument = spec.get("user_output", {}).get("arg", {})
        if "as_tensor" in argument:
            name = argument["as_tensor"]["name"]
            outputs.append(_program_tensor(name, values[name]))
    ops = Counter(node["target"].removeprefix("torch.ops.") for node in graph["nodes"])
    sizes = [
        element_count(tuple(extent for extent in tensor.shape or () if isinstance(extent, int)))
        for tensor in stored
    ]
    return {
        "signature": Ports(tuple(inputs), tuple(outputs)),
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        "parameters": sum(sizes),
        "leftovers": tuple(_program_leftovers(graph["nodes"])),
        "details": {
            "torch_version": program.get("torch_version", ""),
            "range_constraints": program.get("range_constraints", {}),
            "tensors": stored,
            "records": records,
        },
    }


def _program_tensor(name: str, meta: dict[str, Any]) -> TensorInfo:
    shape = tuple(size["as_int"] if "as_int" in size else _symbol(size["as_expr"]) for size in meta["sizes"])
    return TensorInfo(name, _SCALAR_TYPES.get(meta["dtype"], f"type {meta['dtype']}"), shape)


def _symbol(expression: dict[str, Any]) -> str:
    """``Symbol('s77', positive=True, integer=True)`` is s77."""
    text = str(expression["expr_str"])
    match = re.fullmatch(r"Symbol\('(\w+)'.*\)", text)
    return match[1] if match else text


def _program_leftovers(nodes: list[dict[str, Any]]) -> list[str]:
    """The nodes that have their argument `train` or `training` set (dropout, batch_norm, rrelu, ...)."""
    return [
        f"{node['target'].removeprefix('torch.ops.')} {node.get('name') or ''}".strip()
        + f": {argument['name']} is true"
        for node in nodes
        for argument in node["inputs"]
        if argument.get("name") in ("train", "training") and argument["arg"].get("as_bool")
    ]


def _read_prototxt(path: Path) -> dict[str, Any]:
    from mnnprep.formats.caffe.summary import read_prototxt

    found = read_prototxt(path)
    details = {"version": f"V{found.version}", "name": found.name, "rules": found.rules}
    return {
        "signature": Ports(found.inputs, found.outputs),
        "ops": found.layers,
        "leftovers": found.training,
        "details": details,
    }


def _read_caffemodel(path: Path) -> dict[str, Any]:
    from mnnprep.formats.caffe.summary import read_caffemodel

    found = read_caffemodel(path)
    leftovers = [f"{name}: a layer of training" for name in found.training]
    if found.gradient_bytes:
        leftovers.append(f"{found.gradient_bytes} bytes of gradients (diff)")
    details = {"version": f"V{found.version}", "name": found.name, "tensors": found.blobs}
    return {
        "ops": found.layers,
        "parameters": found.parameters,
        "leftovers": tuple(leftovers),
        "details": details,
    }


def _read_mnn(path: Path) -> dict[str, Any]:
    from mnnprep.formats.mnn_file.summary import read_summary

    found = read_summary(path)
    return {
        "signature": Ports(found.inputs, found.outputs),
        "ops": found.ops,
        "parameters": found.parameters,
        "leftovers": ("it was made for training (usage TRAIN)",) if found.usage == "TRAIN" else (),
        "warnings": _version_warnings(found.version),
        "details": {
            "version": found.version or "not stated: from before 1.2",
            "source": found.source,
            "usage": found.usage,
            "layouts": found.layouts,
            "weights": found.weights,
            "subgraphs": found.subgraphs,
            "uuid": found.uuid,
        },
    }


def _version_warnings(version: str) -> list[str]:
    """Whether the file is from a newer MNN than the one that is installed."""
    here = deps.version("MNN")
    if here and version and _release(version) > _release(here):
        return [
            f"it was written by MNN {version}, newer than the {here} that is installed: operators may be"
            " unknown; pip install -U MNN"
        ]
    return []


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _in_training(modules: tuple[str, ...]) -> tuple[str, ...]:
    if not modules:
        return ()
    return (
        (
            f"{len(modules)} modules were saved in training mode:"
            f" {listed([name or '(the whole model)' for name in modules], 8)}"
        ),
    )


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "onnx": _read_onnx,
    "torchscript": _read_torchscript,
    "exported-program": _read_exported_program,
    "torch-module": _read_module,
    "torch-weights": _read_pickle,
    "safetensors": _read_safetensors,
    "tflite": _read_tflite,
    "savedmodel": _read_graph,
    "frozen-graph": _read_graph,
    "tf-checkpoint": _read_graph,
    "keras": _read_keras,
    "keras-h5": _read_keras,
    "caffe-prototxt": _read_prototxt,
    "caffemodel": _read_caffemodel,
    "mnn": _read_mnn,
}
