"""A Caffe file's own account of itself, for ``inspect``.

It is read from its bytes, checked for damage, nothing computed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from mnnprep.formats.caffe.caffemodel import read_weights
from mnnprep.formats.caffe.net import Layer, in_test_phase, layers_of
from mnnprep.formats.caffe.pair import read_definition
from mnnprep.formats.caffe.upgrade import upgraded, version_of
from mnnprep.formats.caffe.versions import DATA_TYPES, LOSSES, MEASURES, TRANSPARENT
from mnnprep.formats.tensor_info import TensorInfo


class CaffeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A Caffe file's version (``version`` is 0, 1 or 2), layers and blobs.

    ``training`` says of each layer that belongs to training why; ``blobs`` are stored tensors,
    ``LAYER.INDEX``; ``gradient_bytes`` is what of the file is left from training (the blobs' `diff`).
    """

    version: int
    name: str
    layers: dict[str, int]
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    training: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    blobs: tuple[TensorInfo, ...] = ()
    parameters: int | None = None
    gradient_bytes: int = 0


def read_prototxt(path: Path) -> CaffeSummary:
    """The layers of a prototxt, its phase rules, and what of it is training.

    Raises:
        RefusedError: the file is damaged.
    """
    written = read_definition(path)
    net = upgraded(written)
    layers = layers_of(net)
    inputs = [TensorInfo(n, "float32") for n in net.texts("input")]
    shapes = [tuple(s.integers("dim")) for s in net.messages("input_shape")]
    dims = net.integers("input_dim")
    shapes = shapes or [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    inputs = [
        TensorInfo(t.name, t.dtype, shapes[i] if i < len(shapes) else None) for i, t in enumerate(inputs)
    ]
    for layer in layers:
        if layer.type == "Input":
            own = [tuple(s.integers("dim")) for s in layer.param("input_param").messages("shape")]
            inputs += [
                TensorInfo(top, "float32", own[min(i, len(own) - 1)] if own else None)
                for i, top in enumerate(layer.tops)
            ]
    taken = {b for la in layers for b in la.bottoms}
    outputs = dict.fromkeys(
        t
        for la in layers
        if la.type not in ("Input", *DATA_TYPES)
        for t in la.tops
        if t not in taken or la.bottoms == la.tops
    )
    last = {t: la for la in layers for t in la.tops}
    return CaffeSummary(
        version=version_of(written),
        name=net.text("name"),
        layers=dict(Counter(la.type for la in layers).most_common()),
        inputs=tuple(inputs),
        outputs=tuple(
            TensorInfo(t)
            for t in outputs
            if not any(t in la.bottoms for la in layers[layers.index(last[t]) + 1 :])
        ),
        training=tuple(text for la in layers if (text := _training(la))),
        rules=tuple(text for la in layers if (text := _rules(la))),
    )


def _training(layer: Layer) -> str:
    if not in_test_phase(layer):
        return f"{layer.name} ({layer.type}): not in the TEST phase"
    kinds = {
        "a data layer": DATA_TYPES,
        "a loss": LOSSES,
        "a measure": MEASURES,
        "the identity at inference": TRANSPARENT,
    }
    return next(
        (f"{layer.name} ({layer.type}): {what}" for what, types in kinds.items() if layer.type in types), ""
    )


def _rules(layer: Layer) -> str:
    """The phase rules of a layer, as text: ``name: include TRAIN``."""
    parts = []
    for kind in ("include", "exclude"):
        for rule in layer.message.messages(kind):
            stages = ", ".join(f"{n} {rule.text(n)}" for n in ("stage", "not_stage") if rule.text(n))
            parts.append(f"{kind} {rule.text('phase') or stages or 'any'}")
    return f"{layer.name}: {', '.join(parts)}" if parts else ""


def read_caffemodel(path: Path) -> CaffeSummary:
    """The layers and blobs of a caffemodel.

    Raises:
        RefusedError: the file is damaged.
    """
    weights = read_weights(path)
    blobs = [
        TensorInfo(f"{la.name}.{i}", "float64" if b.double else "float32", b.shape)
        for la in weights.layers
        for i, b in enumerate(la.blobs)
    ]
    training = [la.name for la in weights.layers if la.type in (*DATA_TYPES, *LOSSES, *MEASURES)]
    return CaffeSummary(
        version=weights.version,
        name=weights.name,
        layers=dict(Counter(la.type or "(no type)" for la in weights.layers).most_common()),
        training=tuple(training),
        blobs=tuple(blobs),
        parameters=sum(b.elements for la in weights.layers for b in la.blobs),
        gradient_bytes=weights.gradient_bytes,
    )
