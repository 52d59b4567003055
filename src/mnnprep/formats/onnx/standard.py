"""The cases in which onnxruntime leaves the ONNX standard: its numbers are not a reference then.

Measured with onnxruntime 1.32 against the outputs that ONNX's node cases bring along
(``evaluation/conformance.py``); of the forms that MNN takes as onnxruntime does, these are all:

* Resize with ``align_corners`` and scales that give no whole size: the standard keeps the fraction of the
  size in the distance between two points, onnxruntime cuts it off;
* MaxUnpool with an ``output_shape`` other than its window gives: the standard's indices count in the shape
  that the window gives, onnxruntime's in the one that was asked for;
* Conv with SAME padding and a stride beyond its kernel, at sizes where ``(outputs - 1) * stride + kernel`` is
  less than the size: the standard's evaluator pads nothing then, onnxruntime moves the first window into the
  image if enough is left over (measured: 3 elements, 4 with SAME_LOWER).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.probe import ProbeJob, probe
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.text import listed

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto, NodeProto

WHOLE = 1e-4  # of a size: what the rounding of a float32 scale may make of a whole one
MOVING = 3  # elements left over, from which on onnxruntime moves the window; with SAME_LOWER one more


def standard(model: ModelProto, source: Path, cases: list[CaseFile], directory: Path) -> list[Check]:
    """The ``standard`` check of the model at *source* for the forms above; empty if it has none of them.

    Nodes in the bodies of control flow are judged by their form alone.
    """
    top = [node for node in model.graph.node if _suspect(node)]
    inner = [
        node for node in graph.all_nodes(model.graph) if _suspect(node) and not any(node is n for n in top)
    ]
    if not top and not inner:
        return []
    apart = [graph.label(node) for node in inner]
    if top:
        names = sorted({name for node in top for name in _needed(node)})
        probed = probe(ProbeJob(model=str(source), values=names, cases=cases, directory=str(directory)))
        values = [load_arrays(file.path) for file in probed.values.values()]
        apart += [
            graph.label(node)
            for node in top
            if any(FORMS[node.op_type](node, *(arrays[n] for n in _needed(node))) for arrays in values)
        ]
    if not apart:
        return [catalog.STANDARD.passed(numbers={"nodes": len(top)})]
    told = listed(apart, 5)
    reason = (
        f"onnxruntime computes {told} differently from the ONNX standard, so the right result is disputed;"
        f" export the node with sizes on which both agree"
    )
    return [catalog.STANDARD.not_run(reason, subject=apart[0])]


def _suspect(node: NodeProto) -> bool:
    if node.domain not in graph.STANDARD_DOMAINS:
        return False
    if node.op_type == "Resize":
        mode = next((a.s for a in node.attribute if a.name == "coordinate_transformation_mode"), b"")
        return bool(mode == b"align_corners" and len(node.input) > 2 and node.input[2])
    if node.op_type == "Conv":
        return _same_padded(node) and any(s > 1 for s in _ints(node, "strides"))
    return bool(node.op_type == "MaxUnpool" and len(node.input) > 2 and node.input[2])


def _same_padded(node: NodeProto) -> bool:
    return any(a.name == "auto_pad" and a.s in (b"SAME_UPPER", b"SAME_LOWER") for a in node.attribute)


def _ints(node: NodeProto, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _needed(node: NodeProto) -> tuple[str, str]:
    """The names of what the node moves or resizes, and of what says how: the kernel of a Conv."""
    return node.input[0], node.input[1 if node.op_type == "Conv" else 2]


def _fraction(node: NodeProto, image: npt.NDArray[np.generic], scales: npt.NDArray[np.float32]) -> bool:
    """Whether a scale gives no whole size."""
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), range(image.ndim))
    sizes = (
        np.array([image.shape[axis] for axis in axes], np.float64) * scales if scales.size else np.zeros(1)
    )
    return bool((np.abs(sizes - np.round(sizes)) > WHOLE * np.maximum(sizes, 1)).any())


def _other_shape(node: NodeProto, pooled: npt.NDArray[np.generic], asked: npt.NDArray[np.generic]) -> bool:
    """Whether MaxUnpool is asked for another shape than ``(size - 1) * stride - pads + kernel``."""
    given = {a.name: np.array(a.ints) for a in node.attribute}
    kernel = given["kernel_shape"]
    pads = given.get("pads", np.zeros(2 * kernel.size, np.int64))
    window = (
        (np.array(pooled.shape[2:]) - 1) * given.get("strides", np.ones_like(kernel))
        - pads[: kernel.size]
        - pads[kernel.size :]
        + kernel
    )
    return bool(asked[2:].tolist() != window.tolist())


def _cropped(node: NodeProto, image: npt.NDArray[np.generic], kernel: npt.NDArray[np.generic]) -> bool:
    """Whether onnxruntime moves the first window into the image."""
    window = np.array(kernel.shape[2:])
    dilated = (window - 1) * np.array(_ints(node, "dilations") or np.ones_like(window)) + 1
    stride = np.array(_ints(node, "strides"))
    size = np.array(image.shape[2:])
    left_over = size - ((-(-size // stride) - 1) * stride + dilated)
    lower = any(a.name == "auto_pad" and a.s == b"SAME_LOWER" for a in node.attribute)
    return bool((left_over - lower >= MOVING).any())


Form = Callable[["NodeProto", "npt.NDArray[np.generic]", "npt.NDArray[Any]"], bool]
FORMS: dict[str, Form] = {
    "Resize": _fraction,
    "MaxUnpool": _other_shape,
    "Conv": _cropped,
}
