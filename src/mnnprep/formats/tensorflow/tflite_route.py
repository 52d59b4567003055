"""The method ``tflite``: TensorFlow's converter on the inference graph.

It writes float, float16, or int8 with representative inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnnprep.deps import require
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.tensorflow.skeleton import Skeleton
from mnnprep.model.files import Arrays, FileRef, file_ref
from mnnprep.safety.error_text import message, said

MODEL = "model.tflite"


def to_tflite(skeleton: Skeleton, directory: Path, precision: str, samples: list[Arrays]) -> list[FileRef]:
    """Convert the skeleton; *samples* calibrate ``int8``.

    Inputs and outputs have the signature's names, and stay float.

    Raises:
        UsageError: int8 without samples.
        RefusedError: the converter can't express an operator, which is named.
    """
    tf = require("tensorflow")
    if precision == "int8" and not samples:
        raise UsageError(
            "int8 needs representative inputs",
            seen="--precision int8 without --samples",
            next="give real inputs with --samples DIR",
        )
    frozen = directory / "frozen.pb"
    skeleton.write(frozen)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(frozen.read_bytes())
    frozen.unlink()
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    function = wrapped.prune(
        [wrapped.graph.as_graph_element(f"{n}:0") for n in skeleton.inputs],
        [wrapped.graph.as_graph_element(f"{n}:0") for n in skeleton.outputs],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], wrapped)
    if precision:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":

        def representative() -> Iterator[list[Any]]:
            for sample in samples:
                yield [tf.constant(sample[n]) for n in skeleton.inputs]

        converter.representative_dataset = representative
    try:
        content = converter.convert()
    except Exception as error:  # ConverterError, ValueError
        raise RefusedError(
            "TensorFlow's TFLite converter can't express the model",
            seen=_complaint(error),
            next="prepare --to tf or --to onnx",
        ) from error
    target = directory / MODEL
    target.write_bytes(renamed(content, skeleton.inputs, skeleton.outputs))
    return [file_ref(target)]


def _complaint(error: BaseException) -> str:
    """The operators that TFLite does not have, else the first line."""
    lines = [line.strip() for line in said(error).splitlines()]
    named = [line for line in lines if line.startswith(("TF Select ops:", "TF Custom ops:"))]
    return "; ".join(named) or message(error)


def renamed(content: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """Return a TFLite model with its inputs and outputs called so, in order.

    It uses flatbuffers' object API of schema.fbs.
    """
    schema = require("tensorflow.lite.python.schema_py_generated")
    flatbuffers = require("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for indices, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for index, name in zip(indices, names, strict=True):
            graph.tensors[index].name = name.encode()
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
