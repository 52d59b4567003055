"""The content of TensorFlow's and Keras's files, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.formats.tensorflow import scan
from mnnprep.formats.tensorflow.graphdef import operators_in
from mnnprep.formats.tensorflow.keras_scan import scan_keras
from mnnprep.formats.tensorflow.operators import ALLOWED
from mnnprep.text import listed


def inspect_graph(path: Path, kind: str) -> Findings:
    """Read a SavedModel, a frozen graph or a TF1 meta graph.

    Raises:
        RefusedError: the file is damaged.
    """
    found = {"savedmodel": scan.scan_saved_model, "tf-checkpoint": scan.scan_meta_graph}.get(
        kind, scan.scan_graph
    )(path)
    default = "serving_default" if "serving_default" in found.signatures else next(iter(found.signatures), "")
    warnings = []
    if kind == "frozen-graph" and found.variables:
        warnings.append(f"it is not frozen: {listed(found.variables, 8)}")
    if kind == "savedmodel" and not found.signatures:
        warnings.append("it has no signature: save it with one")
    if found.tables:
        warnings.append(f"it uses lookup tables ({listed(found.tables, 8)}), which MNN does not support")
    if found.effects:
        warnings.append(
            f"operators that may do more than compute ({listed(found.effects, 8)}): they run with"
            " --trust alone"
        )
    return Findings(
        signature=Ports(*found.signatures.get(default, ((), ()))),
        ops=found.ops,
        parameters=found.parameters,
        leftovers=found.leftovers,
        warnings=tuple(warnings),
        details={
            "signatures": {n: f"{_names(i)} -> {_names(o)}" for n, (i, o) in found.signatures.items() if n}
        },
    )


def _names(tensors: tuple[TensorInfo, ...]) -> str:
    return listed([t.name for t in tensors], 8)


def inspect_keras(path: Path, kind: str) -> Findings:
    """Read a Keras file of either version.

    Raises:
        RefusedError: the file is damaged.
    """
    found = scan_keras(path, kind)
    foreign = (
        f"loading it would call code ({listed(found.foreign, 8)}): prepare it with --trust, or give a factory"
        " and weights"
    )
    return Findings(
        signature=Ports(found.inputs, found.outputs),
        ops=found.layers,
        parameters=found.parameters,
        warnings=(foreign,) if found.foreign else (),
        details={"keras_version": found.version, "compiled": found.compiled},
    )


def operators(path: Path) -> dict[str, int]:
    """How often each operator is in a frozen graph."""
    return operators_in(path)


def side_effects(counts: Mapping[str, int]) -> list[str]:
    """Those of a graph's operators that are not known to compute alone."""
    return [name for name in counts if name not in ALLOWED]
