"""What a toy net holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.formats.toy.net import read


def inspect(path: Path, _kind: str) -> Findings:
    """Read the net at *path*. Raises RefusedError for a damaged one."""
    layers = read(path)
    return Findings(
        signature=Ports(
            (TensorInfo("x", "float32", ("n", layers[0].weight.shape[0])),),
            (TensorInfo("y", "float32", ("n", layers[-1].weight.shape[1])),),
        ),
        ops=operators(path),
        parameters=sum(layer.weight.size + layer.bias.size for layer in layers),
    )


def operators(path: Path) -> dict[str, int]:
    """How often each operator is in the net."""
    return dict(Counter(op for la in read(path) for op in ("Affine", "Relu")[: 1 + la.relu]))
