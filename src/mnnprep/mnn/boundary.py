"""The inputs and outputs of a ``.mnn`` file, from its bytes.

They are those that ``--info`` says, without loading the model.

Format facts: MNN's schema/default/MNN.fbs and TensorflowOp.fbs (tables, the order of their fields, operator
numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.mnn.info import MnnInfo, MnnTensor
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.flatbuffer import FlatbufferError, Table, root

# Fields of Net, ExtraInfo, Op and Input
EXTRA_INFO, OPLISTS, OUTPUT_NAMES, TENSOR_NAMES = 2, 3, 4, 7
VERSION = 2
INPUTS, MAIN, NAME, OUTPUTS, TYPE = 0, 2, 3, 4, 5
INPUT_DIMS, INPUT_DTYPE, INPUT_FORMAT = 0, 1, 2

CONST, INPUT = 11, 34  # OpType
LAYOUTS = ("NCHW", "NHWC", "NC4HW4", "NHWC4", "UNKNOWN")
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    19: "float16",
}


@contextmanager
def net_in(data: Buffer) -> Iterator[Table]:
    """The Net table of the ``.mnn`` file in *data*; while it is read, damage raises RefusedError."""
    try:
        yield root(data)
    except FlatbufferError as error:
        raise RefusedError(
            "the MNN model is damaged",
            seen=str(error),
            next="convert or download it again, and compare its size with the original's",
        ) from error


def read_boundary(path: str) -> MnnInfo:
    """As :func:`mnnprep.mnn.info.read_info`, but a dynamic dimension is -1 or 0, the first one too.

    Raises:
        RefusedError: the file is damaged.
    """
    with mapped(Path(path)) as data, net_in(data) as net:
        inputs = [op for op in net.tables(OPLISTS) if op.integer(TYPE) == INPUT]
        return MnnInfo(inputs=list(map(input_of, inputs)), outputs=output_names(net), version=version_of(net))


def version_of(net: Table) -> str:
    """The version of the converter that wrote the file; files of before 1.2 don't say."""
    extra = net.table(EXTRA_INFO)
    return extra.text(VERSION) if extra else ""


def input_of(op: Table) -> MnnTensor:
    """Return what an Input operator declares; no layout and no dtype if it says nothing."""
    main = op.table(MAIN)
    if main is None:
        return MnnTensor(op.text(NAME), "", [], "")
    layout, dtype = main.integer(INPUT_FORMAT, "b"), main.integer(INPUT_DTYPE, default=1)
    return MnnTensor(
        op.text(NAME),
        LAYOUTS[layout] if 0 <= layout < len(LAYOUTS) else str(layout),
        list(main.integers(INPUT_DIMS)),
        DTYPES.get(dtype, ""),
    )


def output_names(net: Table) -> list[str]:
    """The names stated, else those of the tensors that are made and that nothing takes."""
    stated = net.texts(OUTPUT_NAMES)
    if stated:
        return stated
    names, oplists = net.texts(TENSOR_NAMES), net.tables(OPLISTS)
    taken = {index for op in oplists for index in op.integers(INPUTS)}
    left = [
        index
        for op in oplists
        if op.integer(TYPE) != CONST
        for index in op.integers(OUTPUTS)
        if index not in taken
    ]
    return [names[index] for index in left if 0 <= index < len(names)]
