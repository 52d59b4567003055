"""Reading an onnx-ir model as rules do: its nodes by operator, constants, shapes and dtypes.

Reading never changes the model, not even its names or inferred shapes, so that a rule that finds
nothing leaves it as it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.formats.onnx.propagation import stays_small
from mnnprep.model.magnitudes import Magnitude, Magnitudes

Array = npt.NDArray[Any]
Dims = tuple[int | str | None, ...]

if TYPE_CHECKING:
    import onnx_ir as ir

    Operand: TypeAlias = ir.Value | None  # an input of a node; None where it is left out
    Stored: TypeAlias = ir.TensorProtocol
    Number: TypeAlias = Array | float | list[int]
    AttributeValue: TypeAlias = (
        str | int | float | Sequence[int] | Sequence[float] | ir.TensorProtocol | ir.Graph
    )

IDENTITIES = 8  # how many Identity nodes may stand between a constant and its use
# Operators whose output has the rank of their first input.
LIKE_THE_FIRST = frozenset(
    {"BatchNormalization", "Concat", "CumSum", "LayerNormalization", "Pad", "Slice", "Split", "Trilu"}
)
RANK_STEPS = 12  # how many nodes back the rank of a value is sought
# Operators whose output has the largest rank among their inputs.
ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Dropout",
        "Erf",
        "Exp",
        "Expand",
        "Identity",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pow",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Sqrt",
        "Sub",
        "Tanh",
        "Where",
    }
)


def scopes(model: ir.Model) -> Iterator[tuple[ir.Graph | ir.Function, int]]:
    """The main graph and the model's functions, each with the opset of the standard operators in it."""
    tops: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for top in tops:
        imports = top.opset_imports
        yield top, next((imports[domain] for domain in STANDARD_DOMAINS if domain in imports), 0)


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def source_line(node: ir.Node) -> str:
    """Return ``file:line`` of the model's own code that made *node*, if the exporter left it.

    The innermost line that is not a framework's.

    torch's exporters write a stack trace into the node's metadata (``pkg.torch.onnx.stack_trace``) or its doc
    string.
    """
    return line_in(
        [text for key, text in node.metadata_props.items() if key.endswith("stack_trace")]
        + [node.doc_string or ""]
    )


def line_in(texts: Iterable[str]) -> str:
    """Return the innermost ``file:line`` in stack traces that is not a framework's, if there is one."""
    frames = [frame for text in texts for frame in _FRAME.findall(text)]
    own = [frame for frame in frames if "site-packages" not in frame[0]]
    return ":".join((own or frames)[-1]) if frames else ""


def producer(value: Operand, *op_types: str) -> ir.Node | None:
    """The node that computes *value* if it is one of these standard operators, else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS else None


def operands(node: ir.Node) -> tuple[tuple[Operand, Operand], tuple[Operand, Operand]]:
    """The two inputs of a node whose order does not matter, both ways round."""
    left, right = node.inputs
    return (left, right), (right, left)


def stored(value: Operand) -> Stored | None:
    """Return the tensor that the file holds for *value*, else None.

    Also if a caller may override it (as MNN never lets one).
    """
    return value.const_value if value is not None and value.is_initializer() else tensor(value)


def tensor(value: Operand) -> Stored | None:
    """Return the tensor that *value* always is, else None.

    It is an initializer (not one that a caller may override) or a Constant.
    """
    for _ in range(IDENTITIES):
        if value is None:
            return None
        if value.is_initializer():
            return None if value.is_graph_input() else value.const_value
        node = producer(value, "Identity", "Constant")
        if node is None:
            return None
        if node.op_type == "Identity":
            value = node.inputs[0]
            continue
        return _constant_node(node)
    return None


def _constant_node(node: ir.Node) -> Stored | None:
    ir = require("onnx_ir")
    types = {
        "value_int": np.int64,
        "value_ints": np.int64,
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            held: Stored = attribute.as_tensor()
            return held
        if name in types:
            made: Stored = ir.tensor(np.array(attribute.value, types[name]))
            return made
    return None  # text, or sparse


def scalar(value: Operand) -> float | None:
    """The number that *value* always is, if it is one number; complex and text are not."""
    found = tensor(value)
    if found is None or math.prod(found.shape.numpy()) != 1:
        return None
    array = found.numpy().reshape(-1)
    return None if array.dtype.kind in "cOSU" else float(array[0])


def known(dtype: int) -> str:
    """Return the ONNX name of the dtype that an attribute gives as a number.

    The numbers are ``TensorProto.DataType``. Empty for a number that is none.
    """
    try:
        name: str = require("onnx_ir").DataType(dtype).name
    except ValueError:
        return ""
    return name


class ModelView:
    """A model as the rules read it: what is asked for is found once.

    ``supported`` are the operators that the converter at hand says it reads; None if it was not asked.
    ``magnitudes`` are those that were measured, by the names of the values: a value that a rule has added has
    none. If a rule has changed the model, a new reading is needed.
    """

    def __init__(
        self,
        model: ir.Model,
        supported: frozenset[str] | None = None,
        magnitudes: Magnitudes | None = None,
    ) -> None:
        self.model = model
        self.supported = supported
        self.magnitudes = magnitudes or {}
        self._held_magnitudes: dict[ir.Value, Magnitude | None] = {}

    @cached_property
    def shapes(self) -> Shapes:
        """The shapes and dtypes of the values."""
        return Shapes(self.model)

    def nodes(self, *op_types: str) -> list[tuple[ir.Node, int]]:
        """Return every node of these standard operators, with the opset it is read by.

        They are in the main graph, the bodies of control flow and the model's functions. A node whose
        attributes a function's caller gives is left out.
        """
        if len(op_types) == 1:
            return list(self._by_type.get(op_types[0], ()))
        return [pair for op_type in dict.fromkeys(op_types) for pair in self._by_type.get(op_type, ())]

    def dims(self, value: Operand) -> Dims | None:
        """Return the sizes of *value*, None without a rank.

        Each is a number, a name that stands for the same number everywhere, or None.
        """
        return self.shapes.dims(value) if value is not None else None

    def magnitude(self, value: Operand) -> Magnitude | None:
        """The magnitudes of *value* as they were measured, or those of a stored tensor; else None."""
        if value is None or value.name in self.magnitudes:
            return self.magnitudes[value.name or ""] if value is not None else None
        if value not in self._held_magnitudes:
            held = tensor(value)
            self._held_magnitudes[value] = _magnitude(held) if held is not None else None
        return self._held_magnitudes[value]

    def rank(self, value: Operand) -> int | None:
        """How many dimensions *value* has; None if that is not known."""
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def dtype(self, value: Operand) -> str:
        """The ONNX name of the dtype of *value* (``FLOAT``, ``INT64``); empty if it is not known."""
        found = self.shapes.dtype(value) if value is not None else None
        return found.name if found is not None else ""

    @cached_property
    def everything(self) -> list[tuple[ir.Node, int]]:
        """Every node of any domain, with the opset of the standard operators where it stands."""
        return [(node, opset) for top, opset in scopes(self.model) for node in top.all_nodes()]

    @cached_property
    def _by_type(self) -> dict[str, list[tuple[ir.Node, int]]]:
        found: dict[str, list[tuple[ir.Node, int]]] = {}
        for node, opset in self.everything:
            if node.domain in STANDARD_DOMAINS and not any(a.is_ref() for a in node.attributes.values()):
                found.setdefault(node.op_type, []).append((node, opset))
        return found


class Shapes:
    """The shapes and dtypes of a model's values: ONNX's inference, else what the file declares.

    The inference runs on a copy.  If it fails, and inside functions, only what is declared is known.
    """

    def __init__(self, model: ir.Model) -> None:
        self._inferred: dict[ir.Value, ir.Value] = {}
        try:
            copy = model.clone()
            infer = require("onnx_ir.passes.common.shape_inference").infer_shapes
            infer(copy, check_type=False, strict_mode=False, data_prop=_lists_stay_small(model))
            self._pair(model.graph, copy.graph)
        except Exception:
            # An operator that ONNX does not know, a contradiction in the file: the rules can do without.
            self._inferred = {}

    def _pair(self, graph: ir.Graph, copy: ir.Graph) -> None:
        self._inferred.update(zip(graph.inputs, copy.inputs, strict=True))
        self._inferred.update((value, copy.initializers[name]) for name, value in graph.initializers.items())
        for node, twin in zip(graph, copy, strict=True):
            self._inferred.update(zip(node.outputs, twin.outputs, strict=True))
            for name, attribute in node.attributes.items():
                for body, twin_body in zip(bodies(attribute), bodies(twin.attributes[name]), strict=True):
                    self._pair(body, twin_body)

    def dims(self, value: ir.Value) -> Dims | None:
        """Return the sizes of *value*, None without a rank.

        Each is a number, a name that stands for the same number everywhere, or None.
        """
        twin = self._inferred.get(value, value)
        shape = twin.shape if twin.shape is not None else value.shape
        return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)

    def rank_at_least(self, value: Operand, steps: int = RANK_STEPS) -> int:
        """Return a lower bound of the rank of *value*.

        If no shape is known, it is what the nodes before it say of it; 0 if nothing.

        ONNX's inference loses every rank behind an Expand to a computed shape; the Transpose before a product
        still tells it.
        """
        dims = self.dims(value) if value is not None else ()
        if dims is not None:
            return len(dims)
        node = value.producer() if value is not None else None
        if node is None or not steps or node.domain not in STANDARD_DOMAINS:
            return 0
        if node.op_type == "Transpose":
            return len(node.attributes.get_ints("perm", ()))
        if node.op_type == "MatMul":
            ranks = [self.rank_at_least(used, steps - 1) for used in node.inputs]
            return max(ranks) if min(ranks) >= 2 else 0
        if node.op_type in LIKE_THE_FIRST:
            return self.rank_at_least(node.inputs[0], steps - 1)
        if node.op_type in ELEMENTWISE:
            return max((self.rank_at_least(used, steps // 2) for used in node.inputs), default=0)
        return 0

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The ``onnx_ir.DataType`` of *value*, or None."""
        twin = self._inferred.get(value, value)
        return twin.dtype if twin.dtype is not None else value.dtype


def _magnitude(held: Stored) -> Magnitude | None:
    """The magnitudes of the numbers of a stored tensor; None for text and complex numbers."""
    array = held.numpy()
    if array.dtype.kind in "cOSU":
        return None
    sizes = np.abs(array.astype(np.float64))
    sizes = sizes[np.isfinite(sizes)]
    nonzero = sizes[sizes > 0]
    if not nonzero.size:
        return Magnitude(0.0, 0.0)
    return Magnitude(float(nonzero.max()), float(nonzero.min()))


def _lists_stay_small(model: ir.Model) -> bool:
    """Whether ONNX can follow the lists of sizes of *model* number by number."""
    functions = {
        f.name: sum(node.op_type == "Concat" for node in f.all_nodes()) for f in model.functions.values()
    }
    nodes = list(model.graph.all_nodes())
    constants: dict[Hashable, int] = {
        v: v.const_value.size
        for n in nodes
        for v in (*n.inputs, *n.outputs)
        if v is not None and v.const_value is not None
    }
    constants |= {
        n.outputs[0]: t.size
        for n in nodes
        if n.op_type == "Constant" and (t := tensor(n.outputs[0])) is not None
    }
    return stays_small(((n.op_type, n.inputs, n.outputs) for n in nodes), constants, functions)


def bodies(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    """The graphs that are in an attribute."""
    types = require("onnx_ir").AttributeType
    if attribute.type == types.GRAPH:
        return (attribute.value,)
    return tuple(attribute.value) if attribute.type == types.GRAPHS else ()
