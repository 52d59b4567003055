"""The values inside a ``.mnn`` file by the names of the net it was converted from.

MNN gives any of them as an output.

Measured with MNN 3.6.1: an operator keeps the name of the value that it computes.  Its output has that name,
too, but if the
converter moved a change of layout past it: then the names of the outputs of the operators in between are
exchanged, a ``UnaryOp h`` giving the tensor ``g``, and a ``Reshape g`` giving ``h``; the operator that
computes is to be believed.  If another was fused into it (Conv and Relu), no operator has its output's
name, and the output is the other's.  A product that became a convolution has ``__matmul_converted`` after its
name.
"""

from __future__ import annotations

from pathlib import Path

from mnnprep.formats.mnn_file.summary import OPERATORS
from mnnprep.mnn.boundary import NAME, OPLISTS, OUTPUTS, TENSOR_NAMES, TYPE, net_in
from mnnprep.wire.buffer import mapped

NOT_COMPUTED = frozenset({"Input", "Const"})
MOVED = frozenset(
    {"Reshape", "ConvertTensor", "Permute", "Squeeze", "Unsqueeze", "Flatten", "ExpandDims", "Transpose"}
)
CONVERTED = "__matmul_converted"


def made_tensors(path: Path) -> dict[str, str]:
    """Map each value that the main graph's operators compute to the tensor that holds it.

    Weights are not read.

    Raises:
        RefusedError: the file is damaged.
    """
    found: dict[str, str] = {}
    with mapped(path) as data, net_in(data) as net:
        names = net.texts(TENSOR_NAMES)
        ops = net.tables(OPLISTS)
        named = {op.text(NAME) for op in ops}
        for op in ops:
            kind, name = OPERATORS.get(op.integer(TYPE), ""), op.text(NAME)
            made = [names[i] for i in op.integers(OUTPUTS) if 0 <= i < len(names) and names[i]]
            if kind in NOT_COMPUTED or not made:
                continue
            if len(made) > 1 or made[0] not in named:
                found |= {tensor: tensor for tensor in made}
            elif name == made[0] or (name and kind not in MOVED):
                found[name.removesuffix(CONVERTED)] = made[0]
    return found
