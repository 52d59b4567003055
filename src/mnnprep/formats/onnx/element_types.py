"""The element type of every value in an ONNX graph, by the definitions of its operators, one node at a time.

ONNX's inference of a whole model keeps nothing of what it finds in the bodies of If, Loop and Scan, and gives
up at a contradiction in shapes.  Here shapes are left out.

Semantics: onnx/defs (docs/Operators.md); a Loop's body takes the iteration, the condition and what is
carried; a Scan's takes states and slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TypeProto

Types = dict[str, "TypeProto"]
LOOP_HEAD = 2  # the iteration and the condition: what a Loop's inputs and its body's begin with


class ElementTypes:
    """Infers the types of a model's values, node by node."""

    def __init__(self, model: ModelProto) -> None:
        self._imports = list(model.opset_import)
        self._versions = {"" if i.domain in STANDARD_DOMAINS else i.domain: i.version for i in self._imports}

    def entering(self, graph: GraphProto) -> Types:
        """The types of what a graph holds before a node has run: its inputs, as stated, and initializers."""
        return {i.name: _bare(i.type) for i in graph.input if i.HasField("type")} | {
            t.name: _tensor(t.data_type) for t in graph.initializer
        }

    def leaving(self, node: NodeProto, known: Mapping[str, TypeProto]) -> Types:
        """The types of a node's outputs, without those that can't be told.

        *known* are the types of what it takes, its bodies' captures included.
        """
        if any(True for _ in subgraphs(node)):
            return self._of_control_flow(node, known)
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        defs = require("onnx.defs")
        given = {n: known[n] for n in node.input if n in known}
        try:
            schema = defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
            found = require("onnx.shape_inference").infer_node_outputs(
                schema, node, given, opset_imports=self._imports
            )
        except Exception:  # an operator that ONNX does not know, or one whose inputs' types aren't known
            return {}
        return {name: _bare(kind) for name, kind in found.items() if name}

    def within(self, node: NodeProto, body: GraphProto, known: Mapping[str, TypeProto]) -> Types:
        """The types that a body of *node* begins with: what it sees outside, is given, and holds."""
        given: Iterable[str] = node.input if node.op_type == "Scan" else node.input[LOOP_HEAD:]
        own = list(body.input) if node.op_type == "Scan" else list(body.input)[LOOP_HEAD:]
        passed = {value.name: known[name] for value, name in zip(own, given, strict=False) if name in known}
        return {**known, **passed, **self.entering(body)}

    def _of_control_flow(self, node: NodeProto, known: Mapping[str, TypeProto]) -> Types:
        body = next(subgraphs(node))
        types = self.within(node, body, known)
        for inner in body.node:
            types |= self.leaving(inner, types)
        results = [o.name for o in body.output][1 if node.op_type == "Loop" else 0 :]
        stated = {o.name: _bare(o.type) for o in body.output if o.HasField("type")}
        return {
            name: types.get(result) or stated[result]
            for name, result in zip(node.output, results, strict=False)
            if name and (result in types or result in stated)
        }


def element_type(kind: TypeProto | None) -> int:
    """The element type of a tensor (``TensorProto.DataType``), 0 for another value or an unknown one."""
    return kind.tensor_type.elem_type if kind is not None and kind.HasField("tensor_type") else 0


def _bare(kind: TypeProto) -> TypeProto:
    """Return *kind* without its shape, on which an inference might fail."""
    if not kind.HasField("tensor_type"):
        return kind
    return _tensor(kind.tensor_type.elem_type)


def _tensor(element: int) -> TypeProto:
    made: TypeProto = require("onnx.helper").make_tensor_type_proto(element, None)
    return made
