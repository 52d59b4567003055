"""The content of an ONNX file, read past its tensors: a file of 2 GB costs a fraction of a second.

Format facts: onnx/onnx.proto, docs/IR.md (names, opset imports, initializers as inputs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.expansion import MAIN, Endless, Name, expanded_nodes
from mnnprep.formats.onnx.fields import Attribute, Function, Graph, Model, Node, OpsetId, SparseTensor
from mnnprep.formats.onnx.scan_tensors import Tallies, TensorLedger, read_entry, read_tensor
from mnnprep.formats.onnx.scan_training import ScannedNode, TrainingScope
from mnnprep.formats.onnx.scan_types import MAX_NESTING, read_value
from mnnprep.formats.onnx.summary import Leftover, OnnxSummary, OpCount, external_file
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields, signed, text

Extent = tuple[int, int]


def operators_in(path: Path) -> frozenset[str]:
    """The operator types of the ONNX file at *path*, subgraphs and functions included.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    return frozenset(op.op_type for op in scan_model(path).ops)


def scan_model(path: Path) -> OnnxSummary:
    """Scan an ONNX file (a ModelProto) without reading its tensors.

    Raises:
        RefusedError: truncated or malformed, with the byte where; no graph, no IR version or no opset import.
    """
    if path.stat().st_size == 0:
        raise RefusedError(
            "the ONNX file is empty", seen=f"{path.name}, 0 bytes", next="export or download it again"
        )
    with mapped(path) as data:
        try:
            return _Scan(data, path.parent).summary()
        except WireError as error:
            what = "truncated" if error.cut else "malformed"
            raise RefusedError(
                f"the ONNX file is {what} at byte {error.offset}",
                seen=f"{path.name}, {len(data)} bytes: {error.reason}",
                next="export or download it again, and compare its size or checksum with the original's",
            ) from error


@dataclass
class _Head:
    """The fields of a ModelProto; graphs and functions by where they are."""

    ir_version: int = 0
    producer: dict[int, str] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    graphs: list[Extent] = field(default_factory=list)
    functions: list[Extent] = field(default_factory=list)
    trains: bool = False


@dataclass(frozen=True)
class _Scope:
    """A graph with its subgraphs, or a local function: its operators, counted, and what is training in it."""

    calls: Counter[Name]
    training: TrainingScope


class _Scan:
    """One scan of one ModelProto."""

    def __init__(self, data: Buffer, directory: Path) -> None:
        self.data = data
        self.directory = directory
        self.inputs: list[TensorInfo] = []
        self.outputs: list[TensorInfo] = []
        self.initializer_names: set[str] = set()
        self.initializers = Tallies()
        self.constants = Tallies()
        self.ledger = TensorLedger()
        self.calls: dict[Name, Counter[Name]] = {}
        self.leftovers: list[Leftover] = []

    def summary(self) -> OnnxSummary:
        head = self._head()
        if head.trains:
            self.leftovers.append(Leftover("", "training_info", "the file holds a training algorithm"))
        scope = self._scope(MAIN, head.opsets)
        for first, last in head.graphs:
            self._graph(first, last, scope, "", 0)
        scope.training.close()
        functions = tuple(self._function(first, last) for first, last in head.functions)
        ops: Counter[Name] = sum(self.calls.values(), Counter())
        external = self.ledger.external
        return OnnxSummary(
            ir_version=head.ir_version,
            producer=" ".join(text for _, text in sorted(head.producer.items()) if text),
            opsets=dict(sorted(head.opsets.items())),
            inputs=tuple(spec for spec in self.inputs if spec.name not in self.initializer_names),
            outputs=tuple(self.outputs),
            defaulted_inputs=tuple(spec.name for spec in self.inputs if spec.name in self.initializer_names),
            initializers=self.initializers.result(),
            constants=self.constants.result(),
            external=tuple(external_file(self.directory, at, *external[at]) for at in sorted(external)),
            int32_data=tuple(self.ledger.int32_data),
            nodes=self._expanded(),
            ops=tuple(
                OpCount(*key, count)
                for key, count in sorted(ops.items(), key=lambda item: (-item[1], item[0]))
            ),
            functions=functions,
            leftovers=tuple(self.leftovers),
            metadata=head.metadata,
            problems=tuple(self.ledger.problems),
        )

    def _head(self) -> _Head:
        """The model's own fields.

        Raises:
            WireError: a field that every model has is missing.
        """
        data, head = self.data, _Head()
        for number, kind, first, last in fields(data, 0, len(data)):
            match number, kind:
                case Model.IR_VERSION, 0:
                    head.ir_version = signed(first)
                case ((Model.PRODUCER_NAME | Model.PRODUCER_VERSION), 2):
                    head.producer[number] = text(data, first, last)
                case Model.GRAPH, 2:
                    head.graphs.append((first, last))
                case Model.OPSET_IMPORT, 2:
                    head.opsets.update([self._opset(first, last)])
                case Model.METADATA_PROPS, 2:
                    head.metadata.update([read_entry(data, first, last)])
                case Model.TRAINING_INFO, 2:
                    head.trains = True
                case Model.FUNCTIONS, 2:
                    head.functions.append((first, last))
        required = {
            "ir_version": head.ir_version > 0,
            "graph": bool(head.graphs),
            "opset_import": bool(head.opsets) or head.ir_version < 3,
        }
        missing = [name for name, found in required.items() if not found]
        if missing:
            raise WireError(len(data), f"the file ends without {', '.join(missing)}", cut=True)
        return head

    def _scope(self, name: Name, opsets: Mapping[str, int]) -> _Scope:
        """Return the scope of the main graph or of a function.

        If two functions have one name, their operators are counted together.
        """
        return _Scope(self.calls.setdefault(name, Counter()), TrainingScope(opsets, self.leftovers))

    def _expanded(self) -> int:
        try:
            return expanded_nodes(self.calls)
        except Endless as error:
            raise WireError(0, f"the function {error} calls itself") from error

    def _opset(self, start: int, end: int) -> tuple[str, int]:
        domain, version = "", 0
        for number, kind, first, last in fields(self.data, start, end):
            if (number, kind) == (OpsetId.DOMAIN, LENGTH):
                domain = _own(text(self.data, first, last))
            elif (number, kind) == (OpsetId.VERSION, VARINT):
                version = signed(first)
        return domain, version

    def _function(self, start: int, end: int) -> str:
        name = domain = ""
        opsets: dict[str, int] = {}
        nodes: list[Extent] = []
        inputs: set[str] = set()
        for number, kind, first, last in fields(self.data, start, end):
            match number, kind:
                case Function.NAME, 2:
                    name = text(self.data, first, last)
                case Function.INPUT, 2:
                    inputs.add(text(self.data, first, last))
                case Function.NODE, 2:
                    nodes.append((first, last))
                case Function.OPSET_IMPORT, 2:
                    opsets.update([self._opset(first, last)])
                case Function.DOMAIN, 2:
                    domain = text(self.data, first, last)
        full = f"{domain}::{name}" if domain else name
        scope = self._scope((_own(domain), name), opsets)
        scope.training.inputs |= inputs
        for first, last in nodes:
            self._node(first, last, scope, f"{full}/", 0)
        scope.training.close()
        return full

    def _graph(self, start: int, end: int, scope: _Scope, prefix: str, depth: int) -> None:
        if depth > MAX_NESTING:
            raise WireError(start, f"graphs nested more than {MAX_NESTING} deep")
        data = self.data
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case Graph.NODE, 2:
                    self._node(first, last, scope, prefix, depth)
                case Graph.INITIALIZER, 2:
                    self._initializer(first, last, scope, depth)
                case Graph.INPUT, 2:
                    spec = read_value(data, first, last)
                    scope.training.inputs.add(spec.name)
                    if depth == 0:
                        self.inputs.append(spec)
                case Graph.OUTPUT, 2 if depth == 0:
                    self.outputs.append(read_value(data, first, last))
                case Graph.SPARSE_INITIALIZER, 2:
                    for part, part_kind, part_first, part_last in fields(data, first, last):
                        if (part, part_kind) == (SparseTensor.VALUES, LENGTH):
                            self._initializer(part_first, part_last, scope, depth)

    def _initializer(self, start: int, end: int, scope: _Scope, depth: int) -> None:
        name, boolean = self._tensor(start, end, self.initializers, "")
        scope.training.stored.add(name)
        if depth == 0:
            self.initializer_names.add(name)
        if boolean is not None:
            scope.training.booleans[name] = boolean

    def _node(self, start: int, end: int, scope: _Scope, prefix: str, depth: int) -> None:
        data, node = self.data, ScannedNode()
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case Node.INPUT, 2:
                    node.inputs.append(text(data, first, last))
                case Node.OUTPUT, 2:
                    node.outputs.append(text(data, first, last))
                case Node.NAME, 2:
                    node.name = text(data, first, last)
                case Node.OP_TYPE, 2:
                    node.op_type = text(data, first, last)
                case Node.ATTRIBUTE, 2:
                    node.attributes.append((first, last))
                case Node.DOMAIN, 2:
                    node.domain = _own(text(data, first, last))
        scope.calls[node.domain, node.op_type] += 1
        made = node.outputs[0] if node.outputs else "nothing"
        node.place = prefix + (node.name or f"{node.op_type} that makes {made}")
        for first, last in node.attributes:
            self._attribute(first, last, scope, node, depth)
        scope.training.note(node)

    def _attribute(self, start: int, end: int, scope: _Scope, node: ScannedNode, depth: int) -> None:
        data = self.data
        name = ""
        parts: list[tuple[int, int, int]] = []
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case Attribute.NAME, 2:
                    name = text(data, first, last)
                case Attribute.INTEGER, 0:  # the name precedes its value: protobuf writes by field number
                    node.integers[name] = signed(first)
                case _ if kind == LENGTH and number in _ATTRIBUTE_PARTS:
                    parts.append((number, first, last))
        place = f"{node.place}/{name}"
        for number, first, last in parts:
            if number in (Attribute.GRAPH, Attribute.GRAPHS):
                self._graph(first, last, scope, f"{place}/", depth + 1)
            elif number in (Attribute.TENSOR, Attribute.TENSORS):
                _, boolean = self._tensor(first, last, self.constants, place)
                if boolean is not None and number == Attribute.TENSOR and node.outputs:
                    scope.training.booleans[node.outputs[0]] = boolean
            else:
                for part, kind, part_first, part_last in fields(data, first, last):
                    if (part, kind) == (SparseTensor.VALUES, LENGTH):
                        self._tensor(part_first, part_last, self.constants, place)

    def _tensor(self, start: int, end: int, tallies: Tallies, place: str) -> tuple[str, bool | None]:
        """Count one TensorProto; gives its name, and its value when it is a single boolean."""
        tensor = read_tensor(self.data, start, end)
        return tensor.name, self.ledger.note(self.data, tensor, tallies, place)


_ATTRIBUTE_PARTS = frozenset(
    {
        Attribute.TENSOR,
        Attribute.GRAPH,
        Attribute.TENSORS,
        Attribute.GRAPHS,
        Attribute.SPARSE_TENSOR,
        Attribute.SPARSE_TENSORS,
    }
)


def _own(domain: str) -> str:
    """ONNX's own domain has two spellings (docs/IR.md)."""
    return "" if domain == "ai.onnx" else domain
