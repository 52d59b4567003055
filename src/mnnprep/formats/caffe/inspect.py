"""The content of Caffe's files, read without Caffe."""

from __future__ import annotations

from pathlib import Path

from mnnprep.formats.caffe.summary import read_caffemodel, read_prototxt
from mnnprep.formats.caffe.versions import DATA_TYPES, LOSSES, MEASURES, TRANSPARENT
from mnnprep.formats.inspection import Findings, Ports


def inspect_definition(path: Path, _kind: str) -> Findings:
    """Read a prototxt file.

    Raises:
        RefusedError: the file is none.
    """
    found = read_prototxt(path)
    details = {"version": f"V{found.version}", "name": found.name, "rules": found.rules}
    return Findings(
        signature=Ports(found.inputs, found.outputs),
        ops=found.layers,
        leftovers=found.training,
        details=details,
    )


def inspect_weights(path: Path, _kind: str) -> Findings:
    """Read a caffemodel.

    Raises:
        RefusedError: the file is damaged.
    """
    found = read_caffemodel(path)
    leftovers = [f"{name}: a layer of training" for name in found.training]
    if found.gradient_bytes:
        leftovers.append(f"{found.gradient_bytes} bytes of gradients (diff)")
    details = {"version": f"V{found.version}", "name": found.name, "tensors": found.blobs}
    return Findings(
        ops=found.layers,
        parameters=found.parameters,
        leftovers=tuple(leftovers),
        details=details,
    )


def operators(path: Path) -> dict[str, int]:
    """How often each layer is in a prototxt file, those that `prepare` leaves out not counted."""
    removed = {*DATA_TYPES, *LOSSES, *MEASURES, *TRANSPARENT}
    return {name: count for name, count in read_prototxt(path).layers.items() if name not in removed}
