"""The large weights of a model, kept out of the TorchScript-based exporter.

The exporter would copy each several times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Graph, Tensor

SMALL = 1024  # elements: what may be a shape


class WriteBuffer:
    """A file for one write, whose bytes are kept as they were given.

    With it come the large weights, which are not in them, by their names.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.weights: dict[str, Tensor] = {}

    def write(self, data: bytes) -> int:
        """Keep *data* as the file's bytes; return their number."""
        self.data = data
        return len(data)

    def flush(self) -> None:
        """Do nothing: the bytes are in memory."""


@contextmanager
def large_weights_aside(kept: dict[str, Tensor] | None) -> Iterator[None]:
    """Keep large weights from the exporter's shape inference within the block.

    It would copy them. The shapes are in the graph.

    If *kept* is given, such weights come into it by their names, and what is written has empty tensors in
    their place.
    """
    torch = require("torch")
    infer, deduplicate = (
        torch._C._jit_pass_onnx_graph_shape_type_inference,
        torch._C._jit_pass_onnx_deduplicate_initializers,
    )
    plain = (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
    )

    def infer_shapes(graph: Graph, parameters: dict[str, Tensor], opset: int) -> None:
        infer(
            graph,
            {n: t for n, t in parameters.items() if not isinstance(t, torch.Tensor) or t.numel() <= SMALL},
            opset,
        )

    def keep_large(graph: Graph, parameters: dict[str, Tensor], training: bool) -> dict[str, Tensor]:
        found = deduplicate(graph, parameters, training)
        if kept is None:
            return dict(found)
        kept.update(
            (n, t)
            for n, t in found.items()
            if t.numel() > SMALL and t.layout == torch.strided and t.dtype in plain
        )
        return {n: torch.empty(0, dtype=t.dtype) if n in kept else t for n, t in found.items()}

    with passes_replaced(
        _jit_pass_onnx_graph_shape_type_inference=infer_shapes,
        _jit_pass_onnx_deduplicate_initializers=keep_large,
    ):
        yield


@contextmanager
def passes_replaced(**functions: Callable[..., Any]) -> Iterator[None]:
    """Within, these passes of the exporter, by their names in ``torch._C``, are *functions*."""
    passes = require("torch")._C
    originals = {name: getattr(passes, name) for name in functions}
    for name, function in functions.items():
        setattr(passes, name, function)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(passes, name, original)


def as_array(tensor: Tensor) -> npt.NDArray[np.generic]:
    """A tensor's numbers as NumPy has them; bfloat16, which it has not, as int16."""
    torch = require("torch")
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
