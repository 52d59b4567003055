"""The content of an ONNX file, read without onnx."""

from __future__ import annotations

from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.inspection import Findings, Ports
from mnnprep.formats.onnx.scan import scan_model
from mnnprep.formats.onnx.summary import require_loadable
from mnnprep.text import listed


def inspect(path: Path, _kind: str) -> Findings:
    """Read the ONNX file at *path*.

    Raises:
        RefusedError: the file is damaged.
    """
    summary = scan_model(path)
    warnings = list(summary.problems)
    try:
        require_loadable(summary, path.stat().st_size)
    except RefusedError as error:
        warnings.append(f"{error.what} ({error.seen}): {error.next}")
    if summary.int32_data:
        warnings.append(
            f"values of less than 32 bits are kept in int32_data: {listed(summary.int32_data, 8)}"
        )
    return Findings(
        signature=Ports(summary.inputs, summary.outputs),
        ops={f"{op.domain}::{op.op_type}" if op.domain else op.op_type: op.count for op in summary.ops},
        parameters=summary.initializers.total.elements + summary.constants.total.elements,
        opset=summary.opset,
        leftovers=tuple(
            f"{leftover.op_type} {leftover.node}: {leftover.reason}".strip() for leftover in summary.leftovers
        ),
        warnings=tuple(warnings),
        details={
            "ir_version": summary.ir_version,
            "producer": summary.producer,
            "opsets": summary.opsets,
            "defaulted_inputs": summary.defaulted_inputs,
            "initializers": summary.initializers,
            "constants": summary.constants,
            "external": summary.external,
            "int32_data": summary.int32_data,
            "functions": summary.functions,
            "metadata": summary.metadata,
        },
    )


def external_files(path: Path) -> list[str]:
    """The data files that the model at *path* refers to."""
    return [str(path.parent / file.location) for file in scan_model(path).external]


def require_loadable_file(path: Path) -> None:
    """Require that onnx can load the model at *path*.

    Raises:
        RefusedError: it can't.
    """
    require_loadable(scan_model(path), path.stat().st_size)
