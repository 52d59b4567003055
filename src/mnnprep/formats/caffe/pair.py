"""The two files of a Caffe model: finding the other one, and reading both."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats import sniff
from mnnprep.formats.caffe.blobs import match_layers
from mnnprep.formats.caffe.caffemodel import Floats, Weights, read_weights
from mnnprep.formats.caffe.net import Net, Shape, deployed, is_deployed
from mnnprep.formats.caffe.prototext import Message, parse
from mnnprep.formats.caffe.upgrade import upgraded, version_of
from mnnprep.model.messages import InputSpecs
from mnnprep.model.signature import TensorSpec, dim_names, named

DEFINITION, WEIGHTS = "caffe-prototxt", "caffemodel"
_SUFFIX = {DEFINITION: ".caffemodel", WEIGHTS: ".prototxt"}
_STEM_ENDS = ("_deploy", "-deploy", ".deploy", "_train_val", "_train_test")


@dataclass(frozen=True)
class Pair:
    """A Caffe model as read.

    ``written`` is as in the file, ``net`` what of it runs at inference, its ``blobs`` by layer.
    """

    written: Message
    version: int
    net: Net
    weights: Weights
    blobs: dict[str, list[Floats]]
    untouched: bool  # the definition has nothing of training, so that it runs as it is


def complete(path: str, kind: str, other: str, wants: InputSpecs) -> tuple[str, str, str]:
    """The kind, the prototxt and the caffemodel of the source *path*, checked against each other.

    *other* is what ``--weights`` gave, else the file beside it with the same stem is taken.

    Raises:
        UsageError: there is no other file, or it is not the other half.
        RefusedError: one of them is damaged or foreign, or they don't belong together.
    """
    source = Path(path)
    partner = Path(other).absolute() if other else _beside(source, kind)
    found = sniff.identify(partner)
    wanted = WEIGHTS if kind == DEFINITION else DEFINITION
    if found != wanted:
        raise UsageError(
            "the other file of the Caffe pair has another format",
            seen=f"{partner.name}: {found}",
            next=f"give a {_SUFFIX[kind]} file with --weights",
        )
    prototxt, caffemodel = (source, partner) if kind == DEFINITION else (partner, source)
    load(prototxt, caffemodel, wants)
    return DEFINITION, str(prototxt), str(caffemodel)


def _beside(source: Path, kind: str) -> Path:
    suffix = _SUFFIX[kind]
    stems = [
        source.stem,
        *(source.stem.removesuffix(end) for end in _STEM_ENDS),
        *(source.stem + end for end in _STEM_ENDS),
    ]
    for stem in stems:
        candidate = source.with_name(stem + suffix)
        if candidate.is_file():
            return candidate
    raise UsageError(
        "a Caffe model is two files, and the other one is not beside this one",
        seen=f"no {source.stem}{suffix} in {source.parent}",
        next=f"give it with --weights, for example --weights {source.stem}{suffix}",
    )


def read_definition(path: Path) -> Message:
    """The prototxt at *path*.

    Raises:
        RefusedError: it is not text in protobuf's form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(
            "the prototxt is not text", seen=f"{path.name}: {error.reason}", next="download the file again"
        ) from error
    return parse(text)


def load(prototxt: Path, caffemodel: Path, wants: InputSpecs | None = None) -> Pair:
    """Read a pair, with the input sizes that *wants* declares in place of those written.

    Raises:
        RefusedError: a file is damaged or the two don't belong together.
        UsageError: an input that is not there.
    """
    written = read_definition(prototxt)
    definition = upgraded(written)
    weights = read_weights(caffemodel)
    channels = {
        la.name: la.blobs[0].shape[1] for la in weights.layers if la.blobs and len(la.blobs[0].shape) == 4
    }
    net = deployed(definition, fixed_sizes(wants), channels)
    if wants and wants.inputs:
        for spec in wants.inputs:
            named("input", spec.name, list(net.inputs), "--input")
        with contextlib.suppress(RefusedError):  # no size is written: any declared one will do
            input_specs(deployed(definition, {}, channels).inputs, wants)
    return Pair(
        written, version_of(written), net, weights, match_layers(net, weights), is_deployed(definition)
    )


def fixed_sizes(wants: InputSpecs | None) -> dict[str, Shape]:
    """The declared input shapes that have no dynamic dimension."""
    return {
        s.name: tuple(e for e in s.shape if isinstance(e, int))
        for s in (wants.inputs if wants else ())
        if not dim_names([s])
    }


def input_specs(inputs: Mapping[str, Shape], wants: InputSpecs) -> tuple[TensorSpec, ...]:
    """Return the inputs as the user declares them over the sizes written.

    A batch or a spatial size may be named or changed.

    Raises:
        UsageError: another rank, a dtype that is not float32, or channels that are not a number.
    """
    declared = {s.name: s for s in wants.inputs}
    specs = []
    for name, shape in inputs.items():
        spec = declared.get(name, TensorSpec(name, "float32", shape))
        if spec.dtype != "float32" or len(spec.shape) != len(shape):
            raise UsageError(
                f"--input gives {name} another dtype or number of dimensions than the network has",
                seen=str(spec),
                next=f"the network has {TensorSpec(name, 'float32', shape)}",
            )
        if len(shape) > 1 and spec.shape[1] != shape[1]:
            raise UsageError(
                f"--input changes the channels of {name}, which the weights fix",
                seen=str(spec),
                next=f"the network takes {shape[1]} channels",
            )
        specs.append(spec)
    return tuple(specs)
