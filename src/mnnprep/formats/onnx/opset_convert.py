"""An ONNX model at another opset: onnx's version converter, its weights kept out of it, its work read back.

The converter loses external data, takes no message of 2 GiB, leaves the bodies of control flow as they are
and gives what it does not know through.  So it sees the graph alone: large tensors stand in as inputs and
come back byte for byte, and a body that another opset would read differently is refused with its node.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS, all_nodes, label, opset_of, subgraphs
from mnnprep.safety.error_text import said
from mnnprep.text import listed

if TYPE_CHECKING:
    from types import ModuleType

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message
    from onnx import ModelProto, NodeProto, TensorProto

# bytes: tensors up to this size are shown to the converter, which makes attributes of axes and bounds
SEEN = 1024


def at_opset(model: ModelProto, opset: int) -> ModelProto:
    """Convert *model* to *opset*, with the same inputs, outputs and weights.

    *model* is a ModelProto, with or without its external data, and is left as it is.

    Raises:
        RefusedError: nodes have no form there; they are named.
    """
    onnx = require("onnx")
    if model.functions:
        model = require("onnx.inliner").inline_local_functions(model)
    _refuse_unlike_bodies(onnx, model, opset)
    bare, kept = _without_weights(onnx, model)
    try:
        made: ModelProto = require("onnx.version_converter").convert_version(bare, opset)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refused(opset, seen=_reason(said(error), model)) from error
    _restore(made, model, kept)
    _read_back(onnx, made, opset)
    return made


def _refused(opset: int, *, seen: str) -> RefusedError:
    remedy = "choose another --opset, or keep the model's own with --method copy"
    return RefusedError(f"the model can't be expressed at opset {opset}", seen=seen, next=remedy)


def _reason(text: str, model: ModelProto) -> str:
    """Name the nodes that the converter could not bring over.

    If there are none, give the end of what it says, after the place in its own source that it puts first.
    """
    if without := re.search(
        r"(?:No Adapter (?:From|To) Version \$?\d+ for|No Previous Version of) (\w+)", text
    ):
        nodes = [label(node) for node in model.graph.node if node.op_type == without[1]]
        return f"{', '.join(nodes[:5])}: the version converter can't bring {without[1]} there"
    return (
        re.sub(r"^.*Assertion `.*?` failed:\s*", "", " ".join(text.split()))[-300:]
        or "the version converter failed without a message"
    )


def _refuse_unlike_bodies(onnx: ModuleType, model: ModelProto, opset: int) -> None:
    """The converter changes no node of a body: all of them must be the same operators at both opsets."""
    have = opset_of(model)
    bodies = [body for node in model.graph.node for body in subgraphs(node)]
    unlike = [
        label(n)
        for body in bodies
        for n in all_nodes(body)
        if n.domain in STANDARD_DOMAINS and _since(onnx, n, have) != _since(onnx, n, opset)
    ]
    if unlike:
        raise _refused(
            opset,
            seen=f"in the bodies of control flow: {listed(unlike, 5)}",
        )


def _since(onnx: ModuleType, node: NodeProto, opset: int) -> int:
    """The opset that brought the node's operator in the form *opset* has; 0 if it has none."""
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, "").since_version)
    except onnx.defs.SchemaError:
        return 0


def _without_weights(onnx: ModuleType, model: ModelProto) -> tuple[ModelProto, dict[str, TensorProto]]:
    """A copy whose larger initializers, which may be gigabytes, are inputs; and all initializers by name."""
    bare = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _set(bare, field, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _set(bare.graph, field, value)
    kept = {t.name: t for t in model.graph.initializer}
    given = {i.name for i in bare.graph.input}
    for tensor in kept.values():
        if not tensor.external_data and tensor.ByteSize() <= SEEN:
            bare.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in given:
            bare.graph.input.add().CopyFrom(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return bare, kept


def _set(message: Message, field: FieldDescriptor, value: object) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _restore(made: ModelProto, model: ModelProto, kept: dict[str, TensorProto]) -> None:
    """Give *made* the boundary of *model*, its remarks, and every constant as it was.

    Constants that are attributes now count too: the file still holds all that the source does.
    """
    there = {name for node in made.graph.node for name in node.output}
    taken = [
        _named(a.t, n.output[0])
        for n in model.graph.node
        for a in n.attribute
        if n.op_type == "Constant" and n.output[0] not in there and a.name == "value"
    ]
    added = [t for t in made.graph.initializer if t.name not in kept]
    del made.graph.initializer[:]
    made.graph.initializer.extend([*kept.values(), *taken, *added])
    for ours, theirs in ((made.graph.input, model.graph.input), (made.graph.output, model.graph.output)):
        del ours[:]
        ours.extend(theirs)
    versions = {e.domain: e.version for e in made.opset_import if e.domain in STANDARD_DOMAINS}
    others = {e.domain: e.version for e in model.opset_import if e.domain not in STANDARD_DOMAINS}
    del made.opset_import[:]
    for domain, version in (versions | others).items():
        made.opset_import.add(domain=domain, version=version)
    made.producer_name, made.producer_version, made.doc_string = (
        model.producer_name,
        model.producer_version,
        model.doc_string,
    )
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)


def _named(tensor: TensorProto, name: str) -> TensorProto:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _read_back(onnx: ModuleType, made: ModelProto, opset: int) -> None:
    """Hold the result against what was asked.

    That is the opset, every name that a node takes, every operator in a form the opset has.
    """
    if opset_of(made) != opset:
        raise _refused(opset, seen=f"the version converter ended at opset {opset_of(made)}")
    known = {t.name for t in made.graph.initializer} | {i.name for i in made.graph.input} | {""}
    known.update(name for node in made.graph.node for name in node.output)
    lost = [label(node) for node in made.graph.node if not known.issuperset(node.input)] + [
        o.name for o in made.graph.output if o.name not in known
    ]
    absent = [
        label(n) for n in all_nodes(made.graph) if n.domain in STANDARD_DOMAINS and not _since(onnx, n, opset)
    ]
    if lost or absent:
        raise _refused(
            opset,
            seen=f"after the conversion: {', '.join((lost or absent)[:5])}"
            + (" take values that no node gives" if lost else ""),
        )
