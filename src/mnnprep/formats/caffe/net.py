"""A Caffe network ready to run.

It has the layers of the TEST phase, inputs in place of data layers, and nothing of training.

Format facts: net.cpp (FilterNet and StateMeetsRule: a layer without rules is in every phase; any include rule
that holds lets it in, any exclude rule that holds keeps it out), data_transformer (crop_size is the height
and the width).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.prototext import Message
from mnnprep.formats.caffe.versions import DATA_TYPES, LOSSES, MEASURES, TRAINING_TYPES, TRANSPARENT

Shape = tuple[int, ...]
_DROPPED = (
    "name",
    "type",
    "bottom",
    "top",
    "include",
    "exclude",
    "phase",
    "loss_weight",
    "propagate_down",
    "transform_param",
    "blobs",
    "param",
)
_FILLERS = ("weight_filler", "bias_filler", "filler")
_SIZED = (
    "transform_param",
    "data_param",
    "image_data_param",
    "memory_data_param",
    "window_data_param",
    "annotated_data_param",
)


@dataclass(frozen=True)
class Layer:
    """One layer; ``message`` is its definition, with all its parameters."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message

    def param(self, name: str) -> Message:
        """The parameter message of this name, an empty one if the layer has none."""
        return self.message.message(name)


@dataclass(frozen=True)
class Net:
    """``inputs`` by blob name; ``removed`` says what of training was left out, layer by layer."""

    name: str
    inputs: dict[str, Shape]
    layers: tuple[Layer, ...]
    removed: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The blobs that no layer takes up again, in the order in which they are made."""
        open_: dict[str, None] = {}
        for layer in self.layers:
            for bottom in layer.bottoms:
                open_.pop(bottom, None)
            open_ |= dict.fromkeys(layer.tops)
        return tuple(open_)


def layers_of(net: Message) -> list[Layer]:
    """Every layer of a V2 network, training or not."""
    return [
        Layer(m.text("name"), m.text("type"), tuple(m.texts("bottom")), tuple(m.texts("top")), m)
        for m in net.messages("layer")
    ]


def in_test_phase(layer: Layer) -> bool:
    """Whether the phase rules let *layer* into a net of phase TEST, level 0, without stages."""
    include, exclude = layer.message.messages("include"), layer.message.messages("exclude")
    return any(map(_holds, include)) if include else not any(map(_holds, exclude))


def _holds(rule: Message) -> bool:
    phase = rule.text("phase", "TEST")
    return (
        phase in ("TEST", "1")
        and rule.integer("min_level") <= 0 <= rule.integer("max_level", 0)
        and not rule.has("stage")
    )


def is_deployed(net: Message) -> bool:
    """Whether a V2 network has nothing of training: no data layer, loss, measure or phase rule."""
    return all(
        la.type not in TRAINING_TYPES and not la.message.has("include") and not la.message.has("exclude")
        for la in layers_of(net)
    )


def deployed(net: Message, given: Mapping[str, Shape], channels: Mapping[str, int]) -> Net:
    """The network of inference of a V2 *net*.

    ``given`` are the input shapes that the user declares; ``channels`` maps the first layer behind a data
    layer to the channels its weights take (a data layer itself does not say).

    Raises:
        RefusedError: an input has no size, a dimension is not positive, or a layer takes a blob that nothing
            makes.
    """
    every = layers_of(net)
    removed = [f"{la.name} ({la.type}) is not in the TEST phase" for la in every if not in_test_phase(la)]
    layers = [la for la in every if in_test_phase(la)]
    stand_ins = _data_layers(every, layers)
    layers = [la for la in layers if la.type not in DATA_TYPES]
    layers = _without_training(layers, removed)
    inputs = _declared_inputs(net, layers)
    layers = [la for la in layers if la.type != "Input"]
    taken = {b for la in layers for b in la.bottoms}
    for layer in stand_ins:
        for top in layer.tops:
            if top in taken and top not in inputs:
                inputs[top] = given.get(top) or _data_shape(layer, top, layers, channels)
                removed.append(f"{layer.name} ({layer.type}) became the input {top}")
    inputs = {name: given.get(name, shape) for name, shape in inputs.items()}
    for name, shape in inputs.items():
        if not shape or any(size < 1 for size in shape):
            raise RefusedError(
                f"the input {name} has a dimension that is not positive",
                seen=" x ".join(map(str, shape)) or "no shape",
                next=f"correct it in the prototxt, or declare it: --input '{name}=float32[1,3,224,224]'",
            )
    _check_wiring(inputs, layers)
    return Net(net.text("name"), inputs, tuple(layers), tuple(removed))


def _data_layers(every: list[Layer], kept: list[Layer]) -> list[Layer]:
    """Return the data layers to take inputs from.

    They are those of the TEST phase, then those of TRAIN for what no other gives.
    """
    data = [la for la in kept if la.type in DATA_TYPES]
    made = {top for la in data for top in la.tops}
    return data + [la for la in every if la.type in DATA_TYPES and la not in kept and not made & set(la.tops)]


def _without_training(layers: list[Layer], removed: list[str]) -> list[Layer]:
    """Losses become what they are at inference, or go; measures, Dropout and Split go."""
    result: list[Layer] = []
    alias: dict[str, str] = {}
    for original in layers:
        layer = replace(original, bottoms=tuple(alias.get(b, b) for b in original.bottoms))
        for top in layer.tops:
            alias.pop(top, None)
        if layer.type in MEASURES or (layer.type in LOSSES and not _instead(layer, layers)):
            removed.append(f"{layer.name} ({layer.type}) removed")
        elif layer.type in LOSSES:
            removed.append(f"{layer.name} ({layer.type}) became {LOSSES[layer.type]}")
            result.append(
                replace(
                    layer,
                    type=LOSSES[layer.type],
                    bottoms=layer.bottoms[:1],
                    tops=layer.tops[:1] or (layer.name,),
                )
            )
        elif layer.type in TRANSPARENT and layer.bottoms:
            removed.append(f"{layer.name} ({layer.type}) removed: it is the identity")
            alias |= {top: layer.bottoms[0] for top in layer.tops if top != layer.bottoms[0]}
        else:
            result.append(layer)
    return result


def _instead(loss: Layer, layers: list[Layer]) -> str:
    """Return the type that stands for a loss at inference.

    Empty if there is none, or if the net has that layer itself.
    """
    kind = LOSSES[loss.type]
    return "" if any(la.type == kind and la.bottoms[:1] == loss.bottoms[:1] for la in layers) else kind


def _declared_inputs(net: Message, layers: list[Layer]) -> dict[str, Shape]:
    """The inputs by `input:` with `input_shape` or `input_dim`, and by Input layers."""
    names = net.texts("input")
    shapes = [tuple(s.integers("dim")) for s in net.messages("input_shape")]
    dims = net.integers("input_dim")
    if not shapes:
        shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    inputs = {name: shapes[i] if i < len(shapes) else () for i, name in enumerate(names)}
    for layer in layers:
        if layer.type == "Input":
            own = [tuple(s.integers("dim")) for s in layer.param("input_param").messages("shape")]
            inputs |= {top: own[min(i, len(own) - 1)] if own else () for i, top in enumerate(layer.tops)}
    return inputs


def _data_shape(layer: Layer, top: str, layers: list[Layer], channels: Mapping[str, int]) -> Shape:
    """Return the shape of one sample of what a data layer gives.

    It has the layer's own sizes, or the crop with the channels that the weights take.
    """
    memory, dummy = layer.param("memory_data_param"), layer.param("dummy_data_param")
    if memory.has("channels"):
        return (1, memory.integer("channels"), memory.integer("height"), memory.integer("width"))
    if dummy.has("shape"):
        index = min(layer.tops.index(top), len(dummy.messages("shape")) - 1)
        return tuple(dummy.messages("shape")[index].integers("dim"))
    crop = next((size for group in _SIZED if (size := layer.param(group).integer("crop_size"))), 0)
    user = next((la.name for la in layers if top in la.bottoms and la.name in channels), "")
    if crop and user:
        return (1, channels[user], crop, crop)
    raise RefusedError(
        f"the prototxt does not give the size of the input {top}",
        seen=f"{layer.name} ({layer.type}) has no crop_size",
        next=f"declare it: --input '{top}=float32[1,3,224,224]'",
    )


def _check_wiring(inputs: Mapping[str, Shape], layers: list[Layer]) -> None:
    made = set(inputs)
    if not layers or not inputs:
        raise RefusedError(
            "the network has no " + ("input" if layers else "layer") + " at inference",
            seen=f"{len(layers)} layers, {len(inputs)} inputs",
            next="give the deploy definition of the network",
        )
    for layer in layers:
        missing = [b for b in layer.bottoms if b not in made]
        if missing:
            raise RefusedError(
                "a layer takes a blob that no layer before it makes",
                seen=f"{layer.name} ({layer.type}) takes {', '.join(missing)}",
                next="give the deploy definition of the network, with its layers in order",
            )
        made |= set(layer.tops)


def definition(net: Net) -> Message:
    """Return the network as a V2 definition.

    It has an Input layer for every input, then the layers, without fillers and training fields.
    """
    result = Message()
    if net.name:
        result.add("name", net.name, quoted=True)
    for name, shape in net.inputs.items():
        sizes = Message()
        for size in shape:
            sizes.add("dim", size)
        param = Message()
        param.add("shape", sizes)
        result.add(
            "layer", _layer_message(Layer(name, "Input", (), (name,), Message([("input_param", param)])))
        )
    for layer in net.layers:
        result.add("layer", _layer_message(layer))
    return result


def _layer_message(layer: Layer) -> Message:
    result = Message()
    result.add("name", layer.name, quoted=True)
    result.add("type", layer.type, quoted=True)
    for field, values in (("bottom", layer.bottoms), ("top", layer.tops)):
        for value in values:
            result.add(field, value, quoted=True)
    for param in layer.message.messages("param"):
        if param.has("name"):  # weights shared by name
            shared = Message()
            shared.add("name", param.text("name"), quoted=True)
            result.add("param", shared)
    for field, parameter in layer.message.without(*_DROPPED).fields:
        result.fields.append(
            (field, parameter.without(*_FILLERS) if isinstance(parameter, Message) else parameter)
        )
    return result
