"""Quantize the nets: ``python -m evaluation.quantized.make DIR`` writes the .tflite and .onnx files.

TensorFlow's converter and onnxruntime's quantizer do it, each in its own ways; the table of what is made from
what is in TFLITE and ONNX.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.quantized.nets import NETS, built

CALIBRATION = 24
OPSET = 17

TFLITE_WAYS = ("int8", "int8-float-io", "int16x8", "dynamic", "per-tensor", "uint8", "fake-quant")
ONNX_WAYS = ("qdq", "qoperator", "dynamic", "qdq-per-channel", "qdq-uint8", "int4")


def _dealt(ways: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    """*count* pairs of a net and a way: every net in turn, the ways in turn, none twice."""
    found: list[tuple[str, str]] = []
    nets = list(NETS)
    for number in range(count):
        turn, place = divmod(number, len(nets))
        found.append((nets[place], ways[(place + turn * 3) % len(ways)]))
    if len(set(found)) != count:
        raise AssertionError("a net is quantized twice in one way")
    return found


TFLITE = _dealt(TFLITE_WAYS, 40)
ONNX = _dealt(ONNX_WAYS, 30)


def samples(shape: tuple[int, ...]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """What the quantizers calibrate on: standard normal numbers."""
    random = np.random.default_rng(7)
    return [random.standard_normal((1, *shape)).astype("float32") for _ in range(CALIBRATION)]


def tflite(name: str, way: str) -> bytes:
    """The net *name*, quantized by TensorFlow's converter."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model, (_, shape) = built(name), NETS[name]

    def body(x: Any) -> Any:
        if way != "fake-quant":
            return model(x)
        y = model(tf.quantization.fake_quant_with_min_max_args(x, -4, 4))
        return tf.quantization.fake_quant_with_min_max_args(y, -4, 4)

    function = tf.function(body, input_signature=[tf.TensorSpec((1, *shape), name="x")])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if way != "dynamic":
        converter.representative_dataset = lambda: ([x] for x in samples(shape))
        sets = tf.lite.OpsSet
        wide = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
        converter.target_spec.supported_ops = [
            getattr(sets, wide) if way == "int16x8" else sets.TFLITE_BUILTINS_INT8
        ]
    if way in ("int8", "per-tensor", "uint8"):
        kind = tf.uint8 if way == "uint8" else tf.int8
        converter.inference_input_type = converter.inference_output_type = kind
    if way == "per-tensor":
        converter._experimental_disable_per_channel = True
    return bytes(converter.convert())


def float_onnx(name: str, path: Path) -> None:
    """Write the net *name* as float ONNX."""
    import tensorflow as tf
    import tf2onnx

    model, (_, shape) = built(name), NETS[name]
    function = tf.function(model, input_signature=[tf.TensorSpec((1, *shape), name="x")])
    tf2onnx.convert.from_function(
        function, input_signature=function.input_signature, opset=OPSET, output_path=str(path)
    )


def quantize_onnx(source: Path, target: Path, way: str, shape: tuple[int, ...]) -> None:
    """Quantize the float net at *source* by onnxruntime's own quantizer."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    if way == "dynamic":
        q.quantize_dynamic(source, target, weight_type=q.QuantType.QUInt8)
        return
    if way == "int4":
        import onnx

        quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=True)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))
        return

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter({"x": x} for x in samples(shape))

        def get_next(self) -> Any:
            return next(self.left, None)

    q.quantize_static(
        source,
        target,
        Reader(),
        quant_format=q.QuantFormat.QOperator if way == "qoperator" else q.QuantFormat.QDQ,
        per_channel=way == "qdq-per-channel",
        activation_type=q.QuantType.QUInt8 if way in ("qdq-uint8", "qoperator") else q.QuantType.QInt8,
        weight_type=q.QuantType.QUInt8 if way == "qdq-uint8" else q.QuantType.QInt8,
    )


def files(directory: Path) -> Iterator[Path]:
    """Write every file that is not there yet; the paths, in order."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, way in TFLITE:
        path = directory / f"{name}.{way}.tflite"
        if not path.exists():
            path.write_bytes(tflite(name, way))
        yield path
    for name, way in ONNX:
        path, source = directory / f"{name}.{way}.onnx", directory / f"{name}.float.onnx"
        if not source.exists():
            float_onnx(name, source)
        if not path.exists():
            quantize_onnx(source, path, way, NETS[name][1])
        yield path


if __name__ == "__main__":
    for made in files(Path(sys.argv[1])):
        sys.stdout.write(f"{made}\n")
