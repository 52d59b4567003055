"""The artifact's form of torch's exports: named values, no trace of the machine, weights together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx import splice
from mnnprep.formats.onnx.steps import save
from mnnprep.formats.torch.externalized_weights import WriteBuffer, as_array
from mnnprep.model.files import FileRef
from mnnprep.model.signature import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir
    from google.protobuf.message import Message
    from onnx import ModelProto

EXTERNAL_THRESHOLD = (
    1_800_000_000  # bytes of weights past which an ONNX file gets its data outside (protobuf holds 2 GiB)
)
FOLD_LIMIT = 1 << 30  # bytes of a tensor that constant folding may read or write


def fold(model: ir.Model) -> None:
    """Inline functions and fold constants, in place.

    Unlike the exporter's own clean-up no batch norm is folded into a weight, so that the file holds the
    source's parameters.
    """
    optimizer, passes = require("onnxscript.optimizer"), require("onnx_ir.passes.common")
    passes.InlinePass()(model)
    optimizer.fold_constants(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    for tidy in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)


def name_values(model: ir.Model, inputs: list[str], outputs: list[str]) -> None:
    """Give the graph's inputs and outputs these names."""
    for value, name in [
        *zip(model.graph.inputs, inputs, strict=True),
        *zip(model.graph.outputs, outputs, strict=True),
    ]:
        value.name = name


def tidy_proto(raw: WriteBuffer, directory: Path, specs: Sequence[TensorSpec], *, places: bool) -> FileRef:
    """:func:`tidy` for the usual file, whose weights are inside.

    It goes without the second that onnx-ir takes to import.
    """

    def parts(extent: splice.Extent) -> list[splice.Part]:
        weight = raw.weights.get(splice.name_of(raw.data, extent))
        if weight is None:
            return splice.without_notes(raw.data, extent)
        return splice.filled(raw.data, extent, as_array(weight))

    model, initializers = splice.apart(raw.data)
    declare_inputs(model, specs)
    if not places:
        forget(model)
    return splice.write(directory / "model.onnx", model, map(parts, initializers))


def declare_inputs(model: ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Give the first graph inputs, which are the subject's, its sizes and names of dimensions."""
    for value, spec in zip(model.graph.input, specs, strict=False):
        for dim, extent in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            dim.ClearField("dim_param" if isinstance(extent, int) else "dim_value")
            setattr(dim, "dim_value" if isinstance(extent, int) else "dim_param", extent)


def forget(message: Message) -> None:
    """Clear every ``doc_string`` and ``metadata_props`` of a model's messages."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in ("doc_string", "metadata_props"):
        if name in fields:
            message.ClearField(name)
    for field_, value in message.ListFields():
        if field_.name in (
            "graph",
            "node",
            "attribute",
            "g",
            "graphs",
            "functions",
            "input",
            "output",
            "value_info",
            "initializer",
        ):
            for item in (value,) if hasattr(value, "DESCRIPTOR") else value:
                if hasattr(item, "DESCRIPTOR"):
                    forget(item)


def tidy(model: ir.Model, directory: Path, specs: Sequence[TensorSpec], *, places: bool) -> list[FileRef]:
    """Save the exporter's onnx-ir model as ours.

    It has no stack traces and paths (but with *places*), dimensions by their names, weights in one place.
    """
    ir = require("onnx_ir")
    for value, spec in zip(model.graph.inputs, specs, strict=True):
        value.shape = ir.Shape(spec.shape)
    if not places:
        _strip(model)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    return save(model, directory, external=size > EXTERNAL_THRESHOLD)


def _strip(model: ir.Model) -> None:
    """Remove what names the machine or the code: documentation strings and metadata."""
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    graphs = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in graph.all_nodes() if hasattr(graph, "all_nodes") else graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
