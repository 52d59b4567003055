"""The content of a TFLite file, read without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.tflite.scan import scan_model
from mnnprep.text import listed


def inspect(path: Path, _kind: str) -> Findings:
    """Read the TFLite file at *path*.

    Raises:
        RefusedError: the file is damaged.
    """
    summary = scan_model(path)
    warnings = []
    if summary.state:
        warnings.append(
            f"it keeps state or uses lookup tables ({listed(summary.state, 8)}), which MNN does not support"
        )
    if summary.custom:
        warnings.append(f"operators that TFLite does not define: {listed(summary.custom, 8)}")
    return Findings(
        signature=Ports(summary.inputs, summary.outputs),
        ops=summary.ops,
        parameters=summary.parameters,
        warnings=tuple(warnings),
        details={
            "quantization": [
                f"{q.tensor}: {q.dtype}, {q.kind}" + (f", axis {q.axis}" if len(q.scale) > 1 else "")
                for q in summary.quantized
            ],
            "quantization_parameters": [msgspec.to_builtins(q) for q in summary.quantized],
            "sparse": summary.sparse,
            "subgraphs": summary.subgraphs,
            "signatures": summary.signatures,
            "description": summary.description,
        },
    )


def operators(path: Path) -> dict[str, int]:
    """How often each operator is in the file."""
    return dict(scan_model(path).ops)
