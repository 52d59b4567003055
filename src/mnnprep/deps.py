"""Optional dependencies: which extra brings which module, and one way to import them.

Frameworks are imported inside workers only, and only through :func:`require`, so that a missing
one is an error that names the command to type.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections import Counter
from types import ModuleType

from mnnprep.errors import RefusedError

CORE = ("numpy", "onnx", "onnx_ir", "onnxruntime", "MNN", "safetensors")
# What serves a command and no framework, with the extra that brings it.
TOOLS = {
    "jinja2": "report",
    "fsspec": "remote",
    "h5py": "hdf5",
    "PIL": "images",
    "model_signing": "sign",
}
# Where a distribution is not named as its module is.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow", "tensorflow": "tensorflow-cpu"}


_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*extra == ['\"](?P<extra>\w+)")


def distribution_of(module: str) -> str:
    """The distribution that brings *module*."""
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def extra_of(module: str) -> str:
    """The smallest extra that brings *module*, by mnnprep's own metadata; empty if none does."""
    if module in CORE:
        return ""
    try:
        found = [_REQUIREMENT.match(text) for text in importlib.metadata.requires("mnnprep") or []]
    except importlib.metadata.PackageNotFoundError:
        return TOOLS.get(module, "")
    rows = [(match["name"].lower(), match["extra"]) for match in found if match]
    sizes = Counter(extra for _, extra in rows)
    wanted = distribution_of(module)
    return min((extra for name, extra in rows if name == wanted), key=lambda extra: sizes[extra], default="")


def version(module: str) -> str | None:
    """The installed version of the distribution that brings *module*, or None; imports nothing."""
    try:
        return importlib.metadata.version(distribution_of(module))
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
    distribution, extra = distribution_of(module), extra_of(module)
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
