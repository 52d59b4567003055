"""A ``.mnn`` file's account of itself, by ``-f MNN --modelFile x --info`` of the package's converter.

Measured with MNN 3.6.1; the lines read look like this::

    Model default dimensionFormat is NCHW
    [ x ]: dimensionFormat: NCHW, size: [ 1,-1 ], type is int32
    Model Outputs:
    [ y ]
    Model Version: 3.6.1

A dynamic dimension is printed as -1, the first one of a shape as 1; the Torch frontend gives its
inputs no shape at all.  A file that is not a model prints an error, and no version.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

import msgspec

from mnnprep import deps
from mnnprep.mnn.capture import captured

_INPUT = re.compile(
    r"\[ (?P<name>.*) \]: dimensionFormat: (?P<layout>\w+), size: \[(?P<shape>[^\]]*)\], type is"
    r" (?P<dtype>.*)$"
)
_OUTPUT = re.compile(r"\[ (?P<name>.*) \]$")
_DTYPES = {"float": "float32", "half": "float16", "double": "float64"}  # MNN's words that are not numpy's


class MnnTensor(msgspec.Struct, frozen=True):
    """An input as MNN declares it: ``layout`` is what it must be fed in (NCHW, NHWC, NC4HW4).

    ``shape`` is MNN's (see the module's text: not to be trusted for dynamic dimensions); ``dtype`` is numpy's
    name.
    """

    name: str
    layout: str
    shape: list[int]
    dtype: str


class MnnInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is that of the converter that wrote the file; empty when it is not a model MNN reads."""

    inputs: list[MnnTensor]
    outputs: list[str]
    version: str


def package_converter() -> Callable[[list[str]], bool]:
    """Return the converter in the MNN package, a function of MNNConvert's argument vector.

    The return value of that function means nothing.
    """
    if not deps.installed("_tools"):
        raise deps.missing("MNN")
    converter: Callable[[list[str]], bool] = importlib.import_module("_tools").mnnconvert
    return converter


def read_info(path: str) -> MnnInfo:
    """Return the inputs, outputs and version of the model at *path*.

    Call it in a worker (MNN may crash on a foreign file).
    """
    with captured() as printed:
        package_converter()(["MNNConvert", "-f", "MNN", "--modelFile", path, "--info"])
    return parse_info(printed.text)


def parse_info(text: str) -> MnnInfo:
    """Read the lines that ``--info`` prints."""
    inputs: list[MnnTensor] = []
    outputs: list[str] = []
    version = ""
    among_outputs = False
    for line in (line.rstrip() for line in text.splitlines()):
        tensor, output = _INPUT.match(line), _OUTPUT.match(line)
        if line == "Model Outputs:":
            among_outputs = True
        elif line.startswith("Model Version:"):
            version = line.partition(":")[2].strip()
        elif tensor and not among_outputs:
            shape = [int(extent) for extent in tensor["shape"].replace(",", " ").split()]
            inputs.append(
                MnnTensor(
                    tensor["name"], tensor["layout"], shape, _DTYPES.get(tensor["dtype"], tensor["dtype"])
                )
            )
        elif output and among_outputs:
            outputs.append(output["name"])
    return MnnInfo(inputs=inputs, outputs=outputs, version=version)
