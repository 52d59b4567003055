"""The steps that write and check ONNX's own test cases.

Those that it generates for its operators, and the small models that it ships.

Sources: ``onnx.backend.test.case.node`` (generated: the package has no files of them) and the directories
``simple``, ``pytorch-operator`` and ``pytorch-converted`` of ``onnx/backend/test/data``, each case a
``model.onnx`` with ``test_data_set_0/input_N.pb`` and ``output_N.pb``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnnprep.conformance.messages import Checked, ChecksJob, Collected, CollectJob, ConformanceCase, Variant
from mnnprep.deps import require
from mnnprep.model.files import Arrays, save_arrays
from mnnprep.repair.steps import CheckJob, check

SHIPPED = ("simple", "pytorch-operator", "pytorch-converted")
EXPANDED = re.compile(r"_expanded(_ver\d+)?$")
INITIALIZERS_APART = 4  # the IR version from which an initializer need not be an input


class _Raw:
    """A case as ONNX has it: the values are arrays, TensorProtos, lists of them, or None."""

    def __init__(self, name: str, model: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.name, self.model, self.inputs, self.outputs = name, model, inputs, outputs


def collect(job: CollectJob) -> Collected:
    """Write every case of the variant; the same onnx gives the same cases."""
    raws = [*_generated(), *_shipped()]
    operators = {raw.name: raw.model.graph.node[0].op_type for raw in raws if len(raw.model.graph.node) == 1}
    directory = Path(job.directory)
    cases = []
    for raw in raws:
        fed = _fed_inputs(raw.model)
        if job.variant == "frozen" and len(fed) < 2:
            continue
        model, names = (
            _frozen(raw, fed) if job.variant == "frozen" else (raw.model, [value.name for value in fed])
        )
        values = dict(zip([value.name for value in fed], raw.inputs, strict=False))
        cases.append(
            _write(raw, model, {name: values.get(name) for name in names}, operators, directory, job.variant)
        )
    return Collected(cases=cases)


def check_all(job: ChecksJob) -> Checked:
    """Run the hazard rules on each model, in one process: nothing of a model runs."""
    found = (check(CheckJob(model=model, supported=job.supported)).findings for model in job.models)
    mild = ("low", "narrowed")  # the cases are run at precision high, on ordinary values
    return Checked([sorted({f.rule for f in findings if f.severity not in mild}) for findings in found])


def _generated() -> Iterator[_Raw]:
    np.random.seed(0)  # the generators draw from the global state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = require("onnx.backend.test.case.node").collect_testcases(None)
    for case in found:
        yield _Raw(case.name, case.model, *case.data_sets[0])


def _shipped() -> Iterator[_Raw]:
    onnx = require("onnx")
    root = Path(str(require("onnx.backend.test").__file__)).parent / "data"
    for directory in (path for kind in SHIPPED for path in sorted((root / kind).iterdir())):
        model = onnx.load(directory / "model.onnx")
        values: dict[str, list[Any]] = {"input": [], "output": []}
        for kind, found in values.items():
            places = [*_fed_inputs(model)] if kind == "input" else [*model.graph.output]
            for number, place in enumerate(places):
                path = directory / "test_data_set_0" / f"{kind}_{number}.pb"
                if not path.exists():
                    break
                proto = onnx.TensorProto() if place.type.HasField("tensor_type") else onnx.SequenceProto()
                proto.ParseFromString(path.read_bytes())
                found.append(proto)
        yield _Raw(directory.name, model, values["input"], values["output"])


def _fed_inputs(model: Any) -> list[Any]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initialized]


def _frozen(raw: _Raw, fed: list[Any]) -> tuple[Any, list[str]]:
    """Return the model with every input but the first as an initializer, and the inputs left.

    A sequence can't be an initializer.
    """
    model = type(raw.model)()
    model.CopyFrom(raw.model)
    model.ir_version = max(model.ir_version, INITIALIZERS_APART)
    kept = [fed[0].name]
    for value, content in zip(fed[1:], raw.inputs[1:], strict=False):
        proto = _proto(content)
        if proto is None or not value.type.HasField("tensor_type"):
            kept.append(value.name)
            continue
        proto.name = value.name
        model.graph.initializer.append(proto)
        model.graph.input.remove(next(i for i in model.graph.input if i.name == value.name))
    return model, kept


def _proto(content: Any) -> Any:
    proto_type = require("onnx").TensorProto
    if isinstance(content, proto_type):
        proto = proto_type()
        proto.CopyFrom(content)
        return proto
    if isinstance(content, (np.ndarray, np.generic)):
        return require("onnx.numpy_helper").from_array(np.asarray(content))
    return None


def _write(
    raw: _Raw,
    model: Any,
    inputs: dict[str, Any],
    operators: dict[str, str],
    directory: Path,
    variant: Variant,
) -> ConformanceCase:
    stem = raw.name
    path = directory / f"{stem}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    outputs = dict(zip([value.name for value in model.graph.output], raw.outputs, strict=False))
    arrays: Arrays = {}
    unfed = ""
    for kind, values in (("inputs", inputs), ("outputs", outputs)):
        for name, content in values.items():
            array, problem = _array(content)
            unfed = unfed or (f"{kind[:-1]} {name} is {problem}" if problem else "")
            if array is not None:
                arrays[f"{kind}/{name}"] = array
    data = directory / f"{stem}.npz"
    if not unfed:
        save_arrays(data, arrays)
    types = {value.name: _dtype(value) for value in (*model.graph.input, *model.graph.output)}
    base = EXPANDED.sub("", raw.name)
    return ConformanceCase(
        name=raw.name,
        variant=variant,
        operator=operators.get(base, ""),
        expanded=base != raw.name,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        dtype=next(iter(types[name] for name in inputs), ""),
        model=str(path),
        data=str(data),
        inputs={name: types[name] for name in inputs},
        outputs={name: types[name] for name in outputs},
        unfed=unfed,
    )


def _array(content: Any) -> tuple[Any, str]:
    """*content* as an array that an npz can hold, or why there is none."""
    if isinstance(content, require("onnx").TensorProto):
        content = require("onnx.numpy_helper").to_array(content)
    if not isinstance(content, (np.ndarray, np.generic)):
        return None, "a sequence, or nothing"
    array = np.asarray(content)
    if array.dtype.kind in "OSU":
        return None, "of the dtype string"
    if (
        array.dtype.isbuiltin != 1
    ):  # those that NumPy does not have (bfloat16, float8, int4): in one that holds them exactly
        array = array.astype(
            np.int32 if "int" in str(array.dtype) else np.complex64 if array.dtype.kind == "c" else np.float32
        )
    return (array, "") if array.dtype.kind in "biuf" else (None, f"of the dtype {array.dtype}")


def _dtype(value: Any) -> str:
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value")).removesuffix("_type")
    name: str = require("onnx").TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)
