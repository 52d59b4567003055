"""An ONNX model with its numbers rounded to half precision: the price of the type alone.

Each initializer and each result of an operator goes through a pair of Casts, to the type and back, those in
the bodies of control flow too.  onnxruntime keeps the pairs where its graph optimizations are disabled, and
computes as before in between, in float32.

Left as they are: what only moves values that are rounded already, what the graph computes of sizes alone on
its way to a size (a factor of 4/3 would give another size), and the scales of quantized integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.constant_growth import require_bounded
from mnnprep.formats.onnx.element_types import ElementTypes, Types, element_type
from mnnprep.formats.onnx.fields import Tensor
from mnnprep.formats.onnx.net import ORT_DTYPES, OnnxNet, open_session
from mnnprep.formats.onnx.opset_convert import at_opset
from mnnprep.formats.onnx.outline import taken
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
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

FILE_NAME = "half.onnx"
DATA_TYPES = {"float16": 10, "bfloat16": 16}  # TensorProto.DataType
ELEMENTS = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16, "int64": 7, "int32": 6, "bool": 9}
FLOATING = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16
# The first opset whose Cast takes a number for the type, and the first whose Cast knows bfloat16.
LEAST_OPSET = {"float16": 6, "bfloat16": 13}
# Their results are values of their operands, or bounded by them without a rounding of their own.
MOVES = frozenset(
    {
        "Abs",
        "Compress",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
# Operands that say a size, or a place in a tensor: operator -> their places among the inputs.
SIZES: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "NonMaxSuppression": (2,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
RESIZE_10 = (1,)  # Resize of opset 10: X and scales
# The scales of integers: operator -> their places.
SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}


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
    model = skeleton(source, whole_nodes=True)
    require_names(model, source.name)
    require_bounded(model, source.name)
    _refer(model, source)
    if model.functions:
        model = require("onnx.inliner").inline_local_functions(model)
    if graphs.opset_of(model) < LEAST_OPSET[rounding]:
        model = at_opset(model, LEAST_OPSET[rounding])
    target = directory / FILE_NAME
    Rounding(model, rounding, lambda names: _asked(model, names, target, source.parent)).apply()
    target.write_bytes(model.SerializeToString())
    return target


def _asked(model: ModelProto, names: list[str], path: Path, data: Path) -> Types:
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


class Rounding:
    """Puts the Casts into a model.

    ``ask`` gives the types of values of the main graph whose operators ONNX does not know.
    """

    def __init__(self, model: ModelProto, rounding: HalfType, ask: Callable[[list[str]], Types]) -> None:
        self._model = model
        self._ask = ask
        self._foreign: Types | None = None
        self._type = DATA_TYPES[rounding]
        self._types = ElementTypes(model)
        self._exact = exact_values(model)
        self._suffix = _unused_suffix(model, "/exact")
        self._helper = require("onnx.helper")

    def apply(self) -> None:
        """Round every floating initializer and result of the model, in place.

        Raises:
            RefusedError: the type of a result can't be told.
        """
        self._graph(self._model.graph, self._types.entering(self._model.graph))

    def _graph(self, graph: GraphProto, known: Types) -> None:
        nodes: list[NodeProto] = []
        for tensor in graph.initializer:
            if tensor.data_type in FLOATING and tensor.name not in self._exact:
                nodes += self._pair(tensor.name, tensor.data_type)
                tensor.name += self._suffix
        held = {t.name.removesuffix(self._suffix) for t in graph.initializer}
        given = [i for i in graph.input if i.name not in held]
        del graph.input[:]
        graph.input.extend(given)  # an initializer may stand among the inputs, to be overridden
        for node in graph.node:
            found = self._types.leaving(node, known)
            unknown = [name for name in node.output if name and name not in found]
            if unknown:
                found |= self._unknown(node, unknown)
            for body in graphs.subgraphs(node):
                self._graph(body, self._types.within(node, body, known))
            known |= found
            nodes.append(node)
            nodes += self._results(node, found)
        made = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(made)

    def _results(self, node: NodeProto, types: Types) -> Iterator[NodeProto]:
        """The Casts after *node*, whose results get other names."""
        if node.op_type in MOVES and node.domain in graphs.STANDARD_DOMAINS and not self._moves_exact(node):
            return
        for place, name in enumerate(node.output):
            element = element_type(types.get(name))
            if name and element in FLOATING and name not in self._exact:
                node.output[place] = name + self._suffix
                yield from self._pair(name, element)

    def _moves_exact(self, node: NodeProto) -> bool:
        """Whether *node* moves a value that was not rounded."""
        return any(name in self._exact for name in node.input)

    def _pair(self, name: str, element: int) -> Iterator[NodeProto]:
        exact, half = name + self._suffix, f"{name}{self._suffix}/half"
        yield self._helper.make_node("Cast", [exact], [half], half, to=self._type)
        yield self._helper.make_node("Cast", [half], [name], name + self._suffix, to=element)

    def _unknown(self, node: NodeProto, names: list[str]) -> Types:
        """The types of the results *names* of a *node* that ONNX does not know.

        Raises:
            RefusedError: onnxruntime does not know them either, or they are in a body of control flow.
        """
        if self._foreign is None:
            nodes = [n for n in self._model.graph.node if n.domain not in graphs.STANDARD_DOMAINS]
            asked = dict.fromkeys(o for n in (*nodes, node) for o in n.output if o)
            own = {o for n in self._model.graph.node for o in n.output}
            self._foreign = self._ask([name for name in asked if name in own])
        found = {name: kind for name, kind in self._foreign.items() if name in names}
        if len(found) < len(names):
            raise RefusedError(
                "this model can't be rounded to half precision: the type of a value is unknown",
                seen=graphs.label(node),
                next="export the model with standard operators",
            )
        return found


def _unused_suffix(model: ModelProto, suffix: str) -> str:
    """Return *suffix*, longer where a name in the model ends in it already."""
    names = {o for node in graphs.all_nodes(model.graph) for o in node.output}
    names |= {i.name for i in (*model.graph.input, *model.graph.initializer)}
    while any(name.endswith(suffix) for name in names):
        suffix += "_"
    return suffix


def exact_values(model: ModelProto) -> frozenset[str]:
    """The values that rounding would turn into another graph: sizes on their way, and scales of integers.

    Only those that no input's values reach.
    """
    free = _sized(model)
    wanted: set[str] = set()
    for node in reversed(list(graphs.all_nodes(model.graph))):
        sizes = SIZES.get(node.op_type, ())
        if node.op_type == "Resize" and len(node.input) == 2:
            sizes = RESIZE_10
        for place in (*sizes, *SCALES.get(node.op_type, ())):
            if place < len(node.input) and node.input[place]:
                wanted.add(node.input[place])
        if wanted.intersection(node.output) and free.issuperset(o for o in node.output if o):
            wanted.update(name for name in taken(node) if name)
    return frozenset(wanted & free)


def _sized(model: ModelProto) -> set[str]:
    """The values that follow from constants and from the shapes of values alone."""
    graph = model.graph
    free = {t.name for t in graph.initializer}

    def visit(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            for body in graphs.subgraphs(node):
                free.update(t.name for t in body.initializer)
                visit(body.node)
            if node.op_type in graphs.SHAPE_ONLY or all(name in free for name in taken(node) if name):
                free.update(o for o in node.output if o)

    visit(graph.node)
    return free
