"""The names of the values inside a ``.mnn`` file: MNN gives any of them as an output of the same converted model."""

from __future__ import annotations

from pathlib import Path

from mnnprep.formats.mnn_file.flatbuffer import Table, root
from mnnprep.formats.mnn_file.summary import OPLISTS, OUTPUTS, TENSOR_NAMES, TYPE
from mnnprep.formats.onnx.wire import mapped

INPUT, CONST = 34, 11  # operators (schema/default/MNN.fbs)


def made_tensors(path: Path) -> list[str]:
    """The names of what the operators of the main graph compute, in order; weights are not read.

    Raises RefusedError where the file is damaged.
    """
    with mapped(path) as data:
        net: Table = root(data)
        names = net.texts(TENSOR_NAMES)
        indices = [i for op in net.tables(OPLISTS) if op.integer(TYPE) not in (INPUT, CONST) for i in op.integers(OUTPUTS)]
    return [names[i] for i in indices if 0 <= i < len(names) and names[i]]
