"""What an ONNX file holds, read past its tensors: a file of 2 GB costs a fraction of a second.

Format facts: onnx/onnx.proto (field numbers), docs/IR.md (names, opset imports, initializers as
inputs), docs/ExternalData.md (location, offset, length), docs/Changelog.md (Dropout, BatchNormalization).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.expansion import MAIN, Endless, Name, expanded_nodes
from mnnprep.formats.onnx.summary import Leftover, OnnxSummary, OpCount, Tally, Tensors, external_file
from mnnprep.formats.onnx.wire import LENGTH, VARINT, Buffer, WireError, fields, mapped, packed, signed, text
from mnnprep.formats.tensor_info import MAX_ELEMENTS, TensorInfo, byte_count, element_count

MAX_NESTING = 33  # protobuf parsers stop at 100 nested messages; a graph in a graph is three

# TensorProto.DataType
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}


def operators_in(path: Path) -> frozenset[str]:
    """The operator types of the ONNX file at *path*, subgraphs and functions included.

    Raises RefusedError.
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
            return _Model(data, path.parent).summary()
        except WireError as error:
            what = "truncated" if error.cut else "malformed"
            raise RefusedError(
                f"the ONNX file is {what} at byte {error.offset}",
                seen=f"{path.name}, {len(data)} bytes: {error.reason}",
                next="export or download it again, and compare its size or checksum with the original's",
            ) from error


class _Tallies:
    """Adds tensors up."""

    def __init__(self) -> None:
        self._by_dtype: dict[str, list[int]] = {}

    def add(self, dtype: str, elements: int, size: int) -> None:
        sums = self._by_dtype.setdefault(dtype, [0, 0, 0])
        for index, value in enumerate((1, elements, size)):
            sums[index] += value

    def result(self) -> Tensors:
        total = [sum(column) for column in zip(*self._by_dtype.values(), strict=True)] or [0, 0, 0]
        return Tensors(Tally(*total), {dtype: Tally(*sums) for dtype, sums in sorted(self._by_dtype.items())})


class _Scope:
    """A graph with its subgraphs, or a local function: what decides its Dropouts' training_mode."""

    def __init__(self, opsets: Mapping[str, int], calls: Counter[Name]) -> None:
        self.calls = calls
        self.opset = opsets.get("", 0)
        self.booleans: dict[str, bool] = {}
        self.inputs: set[str] = set()
        self.dropouts: list[tuple[str, str]] = []  # (place, name of the training_mode input)


class _Model:
    """One scan of one ModelProto."""

    def __init__(self, data: Buffer, directory: Path) -> None:
        self.data = data
        self.directory = directory
        self.inputs: list[TensorInfo] = []
        self.outputs: list[TensorInfo] = []
        self.initializer_names: set[str] = set()
        self.initializers = _Tallies()
        self.constants = _Tallies()
        self.external: dict[str, tuple[int, int]] = {}
        self.int32_data: list[str] = []
        self.calls: dict[Name, Counter[Name]] = {}
        self.leftovers: list[Leftover] = []
        self.problems: list[str] = []

    def summary(self) -> OnnxSummary:
        data = self.data
        ir_version = 0
        producer = ["", ""]
        opsets: dict[str, int] = {}
        metadata: dict[str, str] = {}
        graphs: list[tuple[int, int]] = []
        functions: list[tuple[int, int]] = []
        for number, kind, first, last in fields(data, 0, len(data)):
            match number, kind:
                case 1, 0:
                    ir_version = signed(first)
                case ((2 | 3), 2):
                    producer[number - 2] = text(data, first, last)
                case 7, 2:
                    graphs.append((first, last))
                case 8, 2:
                    opsets.update([self._opset(first, last)])
                case 14, 2:
                    metadata.update([self._pair(first, last)])
                case 20, 2:
                    self.leftovers.append(
                        Leftover("", "training_info", "the file holds a training algorithm")
                    )
                case 25, 2:
                    functions.append((first, last))
        required = {
            "ir_version": ir_version > 0,
            "graph": bool(graphs),
            "opset_import": bool(opsets) or ir_version < 3,
        }
        missing = [name for name, found in required.items() if not found]
        if missing:
            raise WireError(len(data), f"the file ends without {', '.join(missing)}", cut=True)
        scope = _Scope(opsets, self._body(MAIN))
        for first, last in graphs:
            self._graph(first, last, scope, "", 0)
        self._close(scope)
        names = [self._function(first, last) for first, last in functions]
        ops: Counter[Name] = sum(self.calls.values(), Counter())
        return OnnxSummary(
            ir_version=ir_version,
            producer=" ".join(filter(None, producer)),
            opsets=dict(sorted(opsets.items())),
            inputs=tuple(spec for spec in self.inputs if spec.name not in self.initializer_names),
            outputs=tuple(self.outputs),
            defaulted_inputs=tuple(spec.name for spec in self.inputs if spec.name in self.initializer_names),
            initializers=self.initializers.result(),
            constants=self.constants.result(),
            external=tuple(
                external_file(self.directory, location, *self.external[location])
                for location in sorted(self.external)
            ),
            int32_data=tuple(self.int32_data),
            nodes=self._expanded(),
            ops=tuple(
                OpCount(*key, count)
                for key, count in sorted(ops.items(), key=lambda item: (-item[1], item[0]))
            ),
            functions=tuple(names),
            leftovers=tuple(self.leftovers),
            metadata=metadata,
            problems=tuple(self.problems),
        )

    def _body(self, name: Name) -> Counter[Name]:
        """The operators of the main graph or of a function, to be counted; of two functions with one name
        together.
        """
        return self.calls.setdefault(name, Counter())

    def _expanded(self) -> int:
        try:
            return expanded_nodes(self.calls)
        except Endless as error:
            raise WireError(0, f"the function {error} calls itself") from error

    def _opset(self, start: int, end: int) -> tuple[str, int]:
        domain, version = "", 0
        for number, kind, first, last in fields(self.data, start, end):
            if (number, kind) == (1, LENGTH):
                domain = _own(text(self.data, first, last))
            elif (number, kind) == (2, VARINT):
                version = signed(first)
        return domain, version

    def _pair(self, start: int, end: int) -> tuple[str, str]:
        found = {1: "", 2: ""}
        for number, kind, first, last in fields(self.data, start, end):
            if number in found and kind == LENGTH:
                found[number] = text(self.data, first, last)
        return found[1], found[2]

    def _function(self, start: int, end: int) -> str:
        name = domain = ""
        opsets: dict[str, int] = {}
        nodes: list[tuple[int, int]] = []
        inputs: set[str] = set()
        for number, kind, first, last in fields(self.data, start, end):
            match number, kind:
                case 1, 2:
                    name = text(self.data, first, last)
                case 4, 2:
                    inputs.add(text(self.data, first, last))
                case 7, 2:
                    nodes.append((first, last))
                case 9, 2:
                    opsets.update([self._opset(first, last)])
                case 10, 2:
                    domain = text(self.data, first, last)
        full = f"{domain}::{name}" if domain else name
        scope = _Scope(opsets, self._body((_own(domain), name)))
        scope.inputs = inputs
        for first, last in nodes:
            self._node(first, last, scope, f"{full}/", 0)
        self._close(scope)
        return full

    def _graph(self, start: int, end: int, scope: _Scope, prefix: str, depth: int) -> None:
        if depth > MAX_NESTING:
            raise WireError(start, f"graphs nested more than {MAX_NESTING} deep")
        data = self.data
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case 1, 2:
                    self._node(first, last, scope, prefix, depth)
                case 5, 2:
                    self._initializer(first, last, scope, depth)
                case 11, 2:
                    spec = self._value(first, last)
                    scope.inputs.add(spec.name)
                    if depth == 0:
                        self.inputs.append(spec)
                case 12, 2 if depth == 0:
                    self.outputs.append(self._value(first, last))
                case 15, 2:
                    for part, part_kind, part_first, part_last in fields(data, first, last):
                        if (part, part_kind) == (1, LENGTH):
                            self._initializer(part_first, part_last, scope, depth)

    def _initializer(self, start: int, end: int, scope: _Scope, depth: int) -> None:
        name, boolean = self._tensor(start, end, self.initializers, "")
        if depth == 0:
            self.initializer_names.add(name)
        if boolean is not None:
            scope.booleans[name] = boolean

    def _node(self, start: int, end: int, scope: _Scope, prefix: str, depth: int) -> None:
        data = self.data
        inputs: list[str] = []
        outputs: list[str] = []
        name = op_type = domain = ""
        attributes: list[tuple[int, int]] = []
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case 1, 2:
                    inputs.append(text(data, first, last))
                case 2, 2:
                    outputs.append(text(data, first, last))
                case 3, 2:
                    name = text(data, first, last)
                case 4, 2:
                    op_type = text(data, first, last)
                case 5, 2:
                    attributes.append((first, last))
                case 7, 2:
                    domain = _own(text(data, first, last))
        scope.calls[domain, op_type] += 1
        place = prefix + (name or f"{op_type} that makes {outputs[0] if outputs else 'nothing'}")
        integers: dict[str, int] = {}
        for first, last in attributes:
            self._attribute(first, last, scope, place, integers, outputs, depth)
        if domain == "ai.onnx.preview.training":
            self.leftovers.append(Leftover(op_type, place, "an operator of a training algorithm"))
        elif domain == "":
            self._training(op_type, place, inputs, outputs, integers, scope)

    def _attribute(
        self,
        start: int,
        end: int,
        scope: _Scope,
        place: str,
        integers: dict[str, int],
        outputs: list[str],
        depth: int,
    ) -> None:
        data = self.data
        name = ""
        parts: list[tuple[int, int, int]] = []
        for number, kind, first, last in fields(data, start, end):
            match number, kind:
                case 1, 2:
                    name = text(data, first, last)
                case 3, 0:
                    integers[name] = signed(
                        first
                    )  # the name precedes its value: protobuf writes by field number
                case ((5 | 6 | 10 | 11 | 22 | 23), 2):
                    parts.append((number, first, last))
        for number, first, last in parts:
            if number in (6, 11):
                self._graph(first, last, scope, f"{place}/{name}/", depth + 1)
            elif number in (5, 10):
                _, boolean = self._tensor(first, last, self.constants, f"{place}/{name}")
                if boolean is not None and number == 5 and outputs:
                    scope.booleans[outputs[0]] = boolean
            else:
                for part, kind, part_first, part_last in fields(data, first, last):
                    if (part, kind) == (1, LENGTH):
                        self._tensor(part_first, part_last, self.constants, f"{place}/{name}")

    def _training(
        self,
        op_type: str,
        place: str,
        inputs: list[str],
        outputs: list[str],
        integers: Mapping[str, int],
        scope: _Scope,
    ) -> None:
        """Note a node that behaves as in training, by its operator's history in docs/Changelog.md."""
        if op_type not in ("Dropout", "BatchNormalization"):
            return
        reason = ""
        if scope.opset < 7:
            if not integers.get("is_test", 0):
                reason = f"is_test is 0, which is training in opset {scope.opset}"
        elif op_type == "Dropout":
            if scope.opset >= 12 and len(inputs) > 2 and inputs[2]:
                scope.dropouts.append((place, inputs[2]))
        elif scope.opset >= 14:
            if integers.get("training_mode", 0):
                reason = "training_mode is 1"
        elif any(outputs[1:]):
            reason = (
                f"it also gives {', '.join(filter(None, outputs[1:]))}, which is training in opset"
                f" {scope.opset}"
            )
        if reason:
            self.leftovers.append(Leftover(op_type, place, reason))

    def _close(self, scope: _Scope) -> None:
        """Decide the Dropouts of a scope, now that all its constants are known."""
        for place, name in scope.dropouts:
            value = scope.booleans.get(name)
            if value is None:
                source = "an input" if name in scope.inputs else "computed when the net runs"
                self.leftovers.append(Leftover("Dropout", place, f"its training_mode ({name}) is {source}"))
            elif value:
                self.leftovers.append(Leftover("Dropout", place, "training_mode is true"))

    def _tensor(self, start: int, end: int, tallies: _Tallies, place: str) -> tuple[str, bool | None]:
        """Count one TensorProto; gives its name, and its value when it is a single boolean."""
        data = self.data
        name = ""
        dims: list[int] = []
        code = 0
        stored: dict[int, tuple[int, int]] = {}
        external: dict[str, str] = {}
        is_external = False
        for field in fields(data, start, end):
            number, kind, first, last = field
            match number, kind:
                case 1, _:
                    dims += [signed(value) for value in packed(data, field)]
                case 2, 0:
                    code = first
                case 8, 2:
                    name = text(data, first, last)
                case ((4 | 5 | 6 | 7 | 9 | 10 | 11), _):
                    stored.setdefault(number, (last, last + 1) if kind == VARINT else (first, last))
                case 13, 2:
                    external.update([self._pair(first, last)])
                case 14, 0:
                    is_external = first == 1
        elements = element_count(tuple(dims))
        if any(size < 0 for size in dims) or elements > MAX_ELEMENTS:
            raise WireError(start, f"a tensor with the shape {dims}")
        label = name or place
        dtype = DTYPES.get(code, f"type {code}")
        expected = byte_count(dtype, elements)
        size = expected or 0
        if code not in DTYPES:
            self.problems.append(f"tensor {label} has the data type {code}, which ONNX does not define")
        if is_external:
            size = self._note_external(external, size, label)
        elif 9 in stored:
            size = stored[9][1] - stored[9][0]
            if expected is not None and size != expected:
                self.problems.append(
                    f"tensor {label}, {dtype} {dims}, takes {expected} bytes and holds {size}"
                )
        elif not stored and elements:
            self.problems.append(f"tensor {label}, {dtype} {dims}, holds no data")
        if 5 in stored and dtype != "int32":
            self.int32_data.append(label)
        tallies.add(dtype, elements, size)
        boolean = None
        if dtype == "bool" and elements == 1 and not is_external:
            first, last = stored.get(9) or stored.get(5) or (0, 0)
            boolean = bool(data[first]) if last > first else None
        return name, boolean

    def _note_external(self, entries: Mapping[str, str], expected: int, label: str) -> int:
        """Note one tensor's place in an external file; gives its size in bytes."""
        location = entries.get("location", "")
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or expected)
        except ValueError:
            offset = length = -1
        if offset < 0 or length < 0 or not location:
            self.problems.append(f"tensor {label} has the unusable external data entry {dict(entries)}")
            return expected
        if expected and length != expected:
            self.problems.append(
                f"tensor {label} takes {expected} bytes and its external data entry gives {length}"
            )
        tensors, needed = self.external.get(location, (0, 0))
        self.external[location] = tensors + 1, max(needed, offset + length)
        return length

    def _value(self, start: int, end: int) -> TensorInfo:
        """A ValueInfoProto: name, type and shape of a graph's input or output."""
        name = dtype = ""
        shape: tuple[int | str | None, ...] | None = None
        for number, kind, first, last in fields(self.data, start, end):
            if (number, kind) == (1, LENGTH):
                name = text(self.data, first, last)
            elif (number, kind) == (2, LENGTH):
                dtype, shape = self._type(first, last, 0)
        return TensorInfo(name, dtype, shape)

    def _type(self, start: int, end: int, depth: int) -> tuple[str, tuple[int | str | None, ...] | None]:
        if depth > MAX_NESTING:
            raise WireError(start, f"types nested more than {MAX_NESTING} deep")
        data = self.data
        for number, kind, first, last in fields(data, start, end):
            if kind != LENGTH:
                continue
            if number in (1, 8):
                return self._tensor_type(first, last, "sparse " if number == 8 else "")
            if number in (4, 9):
                wrapper = "sequence" if number == 4 else "optional"
                for part, part_kind, part_first, part_last in fields(data, first, last):
                    if (part, part_kind) == (1, LENGTH):
                        return f"{wrapper}({self._type(part_first, part_last, depth + 1)[0]})", None
                return wrapper, None
            if number in (5, 7):
                return ("map" if number == 5 else "opaque"), None
        return "", None

    def _tensor_type(
        self, start: int, end: int, prefix: str
    ) -> tuple[str, tuple[int | str | None, ...] | None]:
        data = self.data
        dtype = ""
        shape: tuple[int | str | None, ...] | None = None
        for number, kind, first, last in fields(data, start, end):
            if (number, kind) == (1, VARINT):
                dtype = prefix + DTYPES.get(first, f"type {first}" if first else "")
            elif (number, kind) == (2, LENGTH):
                shape = tuple(
                    self._dimension(f, e) for n, k, f, e in fields(data, first, last) if (n, k) == (1, LENGTH)
                )
        return dtype, shape

    def _dimension(self, start: int, end: int) -> int | str | None:
        size: int | str | None = None
        for number, kind, first, last in fields(self.data, start, end):
            if (number, kind) == (1, VARINT):
                size = (
                    signed(first) if signed(first) >= 0 else None
                )  # -1 is what some exporters write for an open one
            elif (number, kind) == (2, LENGTH):
                size = text(self.data, first, last) or None
        return size


def _own(domain: str) -> str:
    """ONNX's own domain has two spellings (docs/IR.md)."""
    return "" if domain == "ai.onnx" else domain
