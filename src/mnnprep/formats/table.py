"""The formats, as an explicit tuple of rows: strings only, so that listing them imports nothing.

A new format is one module (or small package), one row here, one extra and one test file.
"""

from __future__ import annotations

from dataclasses import dataclass

from mnnprep.errors import InternalError


@dataclass(frozen=True)
class Format:
    """One kind of source.

    ``kind`` names it in manifests and in messages between processes; ``suffixes`` are the usual ends of
    the file's name (content decides first); ``module`` holds the format's steps, empty for a kind that is
    recognised but not prepared; ``extra`` is the extra of mnnprep that brings its framework, empty when
    the core has it; ``targets`` are the artifact formats for ``--to``, the default first.
    """

    kind: str
    title: str
    framework: str
    suffixes: tuple[str, ...]
    module: str
    extra: str
    targets: tuple[str, ...]

    @property
    def prepared(self) -> bool:
        """Whether this version prepares it (else it is recognised only)."""
        return bool(self.module)


_TORCH = ("onnx", "torchscript")
_TENSORFLOW = ("tf", "tflite", "onnx")
_CAFFE = ("caffe", "onnx")

FORMATS: tuple[Format, ...] = (
    Format("onnx", "ONNX model", "onnx", (".onnx",), "mnnprep.formats.onnx", "", ("onnx",)),
    Format("torch-factory", "PyTorch factory", "torch", (), "mnnprep.formats.torch", "torch", _TORCH),
    Format(
        "torchscript",
        "TorchScript file",
        "torch",
        (".pt", ".torchscript", ".jit", ".ts", ".pth"),
        "mnnprep.formats.torch",
        "torch",
        _TORCH,
    ),
    Format(
        "exported-program",
        "torch.export program",
        "torch",
        (".pt2",),
        "mnnprep.formats.torch",
        "torch",
        _TORCH,
    ),
    Format(
        "torch-module",
        "pickled PyTorch module",
        "torch",
        (".pt", ".pth"),
        "mnnprep.formats.torch",
        "torch",
        _TORCH,
    ),
    Format("torch-weights", "PyTorch weights", "torch", (".pt", ".pth", ".bin", ".ckpt"), "", "torch", ()),
    Format("safetensors", "safetensors weights", "torch", (".safetensors",), "", "torch", ()),
    Format(
        "savedmodel",
        "TensorFlow SavedModel",
        "tensorflow",
        (),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "frozen-graph",
        "TensorFlow graph (GraphDef)",
        "tensorflow",
        (".pb",),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "keras",
        "Keras model",
        "tensorflow",
        (".keras",),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "keras-h5",
        "Keras HDF5 model",
        "tensorflow",
        (".h5", ".hdf5"),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "tf-checkpoint",
        "TensorFlow 1 checkpoint",
        "tensorflow",
        (".meta",),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "tf-factory",
        "TensorFlow or Keras factory",
        "tensorflow",
        (),
        "mnnprep.formats.tensorflow",
        "tensorflow",
        _TENSORFLOW,
    ),
    Format(
        "tflite",
        "TensorFlow Lite model",
        "tflite",
        (".tflite", ".lite"),
        "mnnprep.formats.tflite",
        "tflite",
        ("tflite", "onnx"),
    ),
    Format(
        "caffe-prototxt", "Caffe network", "caffe", (".prototxt",), "mnnprep.formats.caffe", "caffe", _CAFFE
    ),
    Format(
        "caffemodel",
        "Caffe weights file",
        "caffe",
        (".caffemodel",),
        "mnnprep.formats.caffe",
        "caffe",
        _CAFFE,
    ),
    Format("mnn", "MNN model", "mnn", (".mnn",), "mnnprep.formats.mnn_file", "", ("mnn",)),
)

FACTORIES = frozenset({"torch-factory", "tf-factory"})
WEIGHTS_ONLY = frozenset({"torch-weights", "safetensors"})  # a model only together with a factory


def format_of(kind: str) -> Format:
    """The row of *kind*. Raises InternalError for a kind that no row has."""
    for row in FORMATS:
        if row.kind == kind:
            return row
    raise InternalError("a format that no row of the table has was asked for", seen=kind)
