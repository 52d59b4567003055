"""The content of a torch.export program, read without PyTorch."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.formats.torch.inspect import most_first, side_effects
from mnnprep.formats.torch_files import read_record, record_names

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


def inspect_program(path: Path, kind: str) -> Findings:
    """Read a torch.export program.

    Raises:
        RefusedError: the archive is damaged.
    """
    names = record_names(path)
    record = next(
        name for name in names if re.search(r"(^|/)(models/[^/]+|serialized_exported_program)\.json$", name)
    )
    try:
        program = json.loads(read_record(path, record))
        found = _describe_program(program, len(names))
        return msgspec.structs.replace(found, warnings=side_effects(path, kind))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        warning = (
            "its program can't be read as the schema of torch.export that this version knows"
            f" ({type(error).__name__}: {error})"
        )
        return Findings(details={"records": len(names)}, warnings=(warning,))


def _describe_program(program: dict[str, Any], records: int) -> Findings:
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
    return Findings(
        signature=Ports(tuple(inputs), tuple(outputs)),
        ops=most_first(ops),
        parameters=sum(sizes),
        leftovers=tuple(_program_leftovers(graph["nodes"])),
        details={
            "torch_version": program.get("torch_version", ""),
            "range_constraints": program.get("range_constraints", {}),
            "tensors": stored,
            "records": records,
        },
    )


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
