"""Running an ONNX model with its numbers rounded to half precision: the price of the type alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.constant_growth import require_bounded
from mnnprep.formats.onnx.element_types import Types
from mnnprep.formats.onnx.fields import Tensor
from mnnprep.formats.onnx.net import ORT_DTYPES, OnnxNet, open_session
from mnnprep.formats.onnx.opset_convert import at_opset
from mnnprep.formats.onnx.rounding import Rounding
from mnnprep.formats.onnx.skeleton import fetch, is_inline, skeleton
from mnnprep.formats.onnx.sound import require_names
from mnnprep.model.files import Arrays
from mnnprep.model.half import HalfType, rounded
from mnnprep.model.messages import HalfJob, RunResult
from mnnprep.model.running import case_inputs, case_outputs, run_cases
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import LENGTH, fields
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

FILE_NAME = "half.onnx"
ELEMENTS = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16, "int64": 7, "int32": 6, "bool": 9}
# The first opset whose Cast takes a number for the type, and the first whose Cast knows bfloat16.
LEAST_OPSET = {"float16": 6, "bfloat16": 13}


def run_half(job: HalfJob) -> RunResult:
    """Run an ONNX artifact with inputs, weights and results rounded to ``job.rounding``.

    Raises:
        RefusedError: onnxruntime can't load the model, it can't be brought to an opset whose Cast has the
            type, or the type of a value is unknown.
    """
    doing(f"rounding the model to {job.rounding}")
    path = write_half(Path(job.model), Path(job.directory), job.rounding)
    data = str(Path(job.model).parent.absolute())
    try:
        session = open_session(str(path), optimize=False, data_directory=data)
    finally:
        path.unlink()
    names = [o.name for o in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        given = {name: rounded(array, job.rounding) for name, array in inputs.items()}
        return dict(zip(names, OnnxNet.compute(session, given, names), strict=True))

    return run_cases(job, lambda: run)


def run_half_form(job: HalfJob, form: Path) -> RunResult:
    """:func:`run_half` of *form*, the ONNX form of an artifact of another format.

    Raises:
        RefusedError: as that; and if the form does not give the cases' references without rounding, so that
            it says nothing of the artifact.
    """
    doing("comparing the ONNX form with the references")
    net = OnnxNet(str(form))
    for case in job.cases:
        outputs = net.run(case_inputs(case.file.path))
        errors = compare_outputs(case.index, case_outputs(case.file.path), outputs, Tolerance())
        if problems := [f"{e.output} in case {e.case}: {e.problem}" for e in errors if e.problem]:
            raise RefusedError(
                "the price of half precision can't be told: this model's ONNX form computes something else",
                seen=problems[0],
                next="hold the target to an SQNR alone",
            )
    return run_half(msgspec.structs.replace(job, model=str(form)))


def write_half(source: Path, directory: Path, rounding: HalfType) -> Path:
    """Write the model *source* with its numbers rounded; weights stay in the files that hold them.

    The file is for a session whose external data lies beside *source*.
    """
    target = directory / FILE_NAME
    model = referring(source, LEAST_OPSET[rounding])
    Rounding(model, rounding, lambda names: types_asked(model, names, target, source.parent)).apply()
    target.write_bytes(model.SerializeToString())
    return target


def referring(source: Path, opset: int = 0) -> ModelProto:
    """The model *source*, at *opset* at least and without functions, its weights left in their files.

    It is for a session whose external data lies beside *source*.
    """
    model = skeleton(source, whole_nodes=True)
    require_names(model, source.name)
    require_bounded(model, source.name)
    _refer(model, source)
    if model.functions:
        model = require("onnx.inliner").inline_local_functions(model)
    return at_opset(model, opset) if graphs.opset_of(model) < opset else model


def types_asked(model: ModelProto, names: list[str], path: Path, data: Path) -> Types:
    """The types that onnxruntime finds for values of *model*; it is written to *path* for that."""
    helper = require("onnx.helper")
    stated = {o.name for o in model.graph.output}
    extra = type(model)()
    for name in names:
        if name not in stated:
            extra.graph.output.add(name=name)
    path.write_bytes(model.SerializeToString() + extra.SerializePartialToString())
    session = open_session(str(path), optimize=False, data_directory=str(data.absolute()))
    kinds = {o.name: ORT_DTYPES.get(k := o.type[7:-1], k) for o in session.get_outputs()}
    return {
        name: helper.make_tensor_type_proto(ELEMENTS[kind], None)
        for name, kind in kinds.items()
        if kind in ELEMENTS
    }


def _refer(model: ModelProto, source: Path) -> None:
    """Let the tensors that a skeleton left in *source* stand there as external data.

    Only those whose numbers are not stored as raw bytes are copied.
    """
    with mapped(source) as data:
        for tensor in model.graph.initializer:
            if not is_inline(tensor):
                continue
            extent = _raw(data, tensor)
            if extent is None:
                tensor.CopyFrom(fetch(tensor, source))
                continue
            del tensor.external_data[:]
            entries = {"location": source.name, "offset": str(extent[0]), "length": str(extent[1])}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)


def _raw(data: Buffer, tensor: TensorProto) -> tuple[int, int] | None:
    """The place in the file and the length of the raw bytes of *tensor*; None if it has none."""
    entries = {e.key: int(e.value) for e in tensor.external_data if e.key != "location"}
    start = entries["offset"]
    for number, kind, first, last in fields(data, start, start + entries["length"]):
        if (number, kind) == (Tensor.RAW_DATA, LENGTH):
            return first, last - first
    return None
