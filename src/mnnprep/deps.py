"""Optional dependencies: which extra brings which module, and one way to import them.

Frameworks are imported inside workers only, and only through :func:`require`, so that a missing
one is an error that names the command to type.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from mnnprep.errors import RefusedError

# module -> (distribution, extra); an empty extra marks a core dependency
KNOWN: dict[str, tuple[str, str]] = {
    "numpy": ("numpy", ""),
    "onnx": ("onnx", ""),
    "onnx_ir": ("onnx-ir", ""),
    "onnxruntime": ("onnxruntime", ""),
    "MNN": ("MNN", ""),
    "safetensors": ("safetensors", ""),
    "torch": ("torch", "torch"),
    "onnxscript": ("onnxscript", "torch"),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "tf2onnx": ("tf2onnx", "tensorflow"),
    "tf_keras": ("tf-keras", "tensorflow"),
    "ai_edge_litert": ("ai-edge-litert", "tflite"),
    "cv2": ("opencv-python-headless", "caffe"),
    "ray": ("ray", "ray"),
    "jinja2": ("jinja2", "report"),
    "fsspec": ("fsspec", "remote"),
    "h5py": ("h5py", "hdf5"),
    "PIL": ("pillow", "images"),
    "model_signing": ("model-signing", "sign"),
}


def version(module: str) -> str | None:
    """The installed version of the distribution that brings *module*, or None; imports nothing."""
    distribution = KNOWN.get(module, (module, ""))[0]
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(module: str) -> bool:
    """Whether *module* can be found; imports nothing."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(module: str) -> RefusedError:
    """The error for a module that is not there, naming the extra that brings it."""
    distribution, extra = KNOWN.get(module, (module, ""))
    command = f"pip install 'mnnprep[{extra}]'" if extra else f"pip install {distribution}"
    return RefusedError(
        f"this needs the Python package {distribution}", seen="it is not installed", next=command
    )


def require(module: str) -> ModuleType:
    """Import *module*.

    Raises:
        RefusedError: it is not installed; the message names the extra to install.
    """
    if not installed(module):
        raise missing(module)
    return importlib.import_module(module)
