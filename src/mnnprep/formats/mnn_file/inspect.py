"""The content of an MNN model, read without MNN."""

from __future__ import annotations

import re
from pathlib import Path

from mnnprep import deps
from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.mnn_file.summary import read_summary
from mnnprep.mnn.convert import WEIGHTS_SUFFIX


def inspect(path: Path, _kind: str) -> Findings:
    """Read the MNN model at *path*.

    Raises:
        RefusedError: the file is damaged.
    """
    found = read_summary(path)
    return Findings(
        signature=Ports(found.inputs, found.outputs),
        ops=found.ops,
        parameters=found.parameters,
        leftovers=("it was made for training (usage TRAIN)",) if found.usage == "TRAIN" else (),
        warnings=tuple(_version_warnings(found.version)),
        details={
            "version": found.version or "not stated: from before 1.2",
            "source": found.source,
            "usage": found.usage,
            "layouts": found.layouts,
            "weights": found.weights,
            "subgraphs": found.subgraphs,
            "uuid": found.uuid,
        },
    )


def _version_warnings(version: str) -> list[str]:
    """Whether the file is from a newer MNN than the one that is installed."""
    here = deps.version("MNN")
    if here and version and _release(version) > _release(here):
        return [
            f"it was written by MNN {version}, newer than the {here} that is installed: operators may be"
            " unknown; pip install -U MNN"
        ]
    return []


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def weights_file(path: Path) -> list[str]:
    """The file in which MNN looks for the weights of the model at *path*."""
    return [f"{path}{WEIGHTS_SUFFIX}"]
