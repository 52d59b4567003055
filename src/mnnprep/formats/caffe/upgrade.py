"""V0 and V1 networks as V2.

`layers {` becomes `layer {`, flat fields parameter messages, `input_dim` Input layers.

Format facts: upgrade_proto.cpp (V0 padding layers go into the convolution or pooling behind them; V1's
`param`, `blobs_lr` and `weight_decay` are training only, but for the names that share weights).
"""

from __future__ import annotations

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.prototext import Message, Scalar
from mnnprep.formats.caffe.versions import V0_PARAMETERS, V0_TRANSFORM, V0_TYPES, V1_NAMES, V1_TYPES

_V1_ONLY = (
    "bottom",
    "top",
    "name",
    "type",
    "param",
    "blob_share_mode",
    "blobs_lr",
    "weight_decay",
    "layer",
    "blobs",
)


def version_of(net: Message) -> int:
    """0, 1 or 2: which of Caffe's definitions *net* is written in."""
    if not net.has("layers"):
        return 2
    return 0 if any(layer.has("layer") for layer in net.messages("layers")) else 1


def upgraded(net: Message) -> Message:
    """*net* in V2, its own layers first to last; a V2 net comes back as it is.

    Raises:
        RefusedError: a layer type that the old version does not have, or a net with no or both kinds of
            layers.
    """
    version = version_of(net)
    if version < 2 and net.has("layer"):
        raise RefusedError(
            "the prototxt mixes old and new layers",
            seen="layers { and layer { in one file",
            next="write every layer as layer { ... }",
        )
    if not net.has("layers") and not net.has("layer"):
        raise RefusedError(
            "the prototxt has no layer",
            seen=net.text("name") or "no name",
            next="give the network's definition, not a solver's",
        )
    if version == 2:
        return net
    layers = net.messages("layers")
    converted = _from_v0(layers) if version == 0 else [_from_v1(layer) for layer in layers]
    return Message([*net.without("layers").fields, *(("layer", layer) for layer in converted)])


def _head(name: str, kind: str, bottoms: list[str], tops: list[str]) -> Message:
    head = Message()
    head.add("name", name, quoted=True)
    head.add("type", kind, quoted=True)
    for field, values in (("bottom", bottoms), ("top", tops)):
        for value in values:
            head.add(field, value, quoted=True)
    return head


def _from_v1(layer: Message) -> Message:
    written = layer.text("type")
    kind = V1_NAMES.get(written) or (
        V1_TYPES[int(written)][1] if written.isdigit() and int(written) in V1_TYPES else ""
    )
    if not kind:
        raise RefusedError(
            "a layer has a type that this version of Caffe does not have",
            seen=f"{layer.text('name')}: {written}",
            next='write the network in the new form, layer { ... type: "Name" }',
        )
    result = _head(layer.text("name"), kind, layer.texts("bottom"), layer.texts("top"))
    for shared in layer.texts("param"):
        param = Message()
        param.add("name", shared, quoted=True)
        result.add("param", param)
    result.fields += layer.without(*_V1_ONLY).fields
    return result


def _from_v0(layers: list[Message]) -> list[Message]:
    padding: dict[str, tuple[str, Scalar]] = {}  # a padding layer's top -> its bottom and its pad
    result = []
    for connection in layers:
        old = connection.message("layer")
        kind, bottoms = old.text("type"), connection.texts("bottom")
        if kind == "padding":
            padding[connection.text("top")] = (connection.text("bottom"), Scalar(old.text("pad", "0")))
            continue
        if kind not in V0_TYPES:
            raise RefusedError(
                "a layer has a type that this version of Caffe does not have",
                seen=f"{old.text('name')}: {kind}",
                next='write the network in the new form, layer { ... type: "Name" }',
            )
        pads = [padding[b][1] for b in bottoms if b in padding]
        layer = _head(
            old.text("name"),
            V0_TYPES[kind],
            [padding[b][0] if b in padding else b for b in bottoms],
            connection.texts("top"),
        )
        group, names = V0_PARAMETERS.get(kind, ("", {}))
        parameters = Message(
            [(names[n], v) for n, v in old.fields if n in names] + [("pad", pad) for pad in pads]
        )
        transform = Message([(V0_TRANSFORM[n], v) for n, v in old.fields if n in V0_TRANSFORM])
        if transform.fields:
            layer.add("transform_param", transform)
        if parameters.fields:
            layer.add(group, parameters)
        result.append(layer)
    return result
