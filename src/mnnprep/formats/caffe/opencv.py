"""The reference of a Caffe model: OpenCV 4's importer, as an untouched second reading of both files.

Measured with OpenCV 4.14: layers, not blobs, have the names of outputs, and of a layer with several tops all
are returned together; it reads V0 to V2 itself, but neither doubles nor V0's blobs; it ignores LRN's k,
InnerProduct's transpose and the parameters of Log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.net import Net
from mnnprep.model.files import Arrays
from mnnprep.model.net import Refused
from mnnprep.model.signature import Dim, Range, TensorSpec
from mnnprep.reference.inputs import require_makeable
from mnnprep.safety.error_text import said

if TYPE_CHECKING:
    from cv2.dnn import Net as OpenCvNet


class CaffeNet:
    """A Caffe network in OpenCV as a :class:`mnnprep.model.net.Net`.

    One thread, no Winograd, so that its rounding is that of plain sums.
    """

    def __init__(self, prototxt: str, caffemodel: str, net: Net, inputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.dims: tuple[Dim, ...] = ()
        self.example: Arrays = {}
        self._outputs = _places(net)
        self._shape_only = value_free(net)
        for name, shape in net.inputs.items():
            require_makeable(name, shape)
        cv2 = require("cv2")
        cv2.setNumThreads(1)
        self._error: type[Exception] = cv2.error
        try:
            self._net: OpenCvNet = cv2.dnn.readNetFromCaffe(prototxt, caffemodel)
            self._net.enableWinograd(False)
            self.run(
                {n: np.zeros(shape, np.float32) for n, shape in net.inputs.items()}
            )  # layers are created by the first run
        except (cv2.error, Refused) as error:
            raise RefusedError(
                "OpenCV can't load this network", seen=_line(error), next="see which layer its message names"
            ) from error

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs by blob name in OpenCV.

        Raises:
            Refused: OpenCV does not take the inputs.
        """
        layers = list(dict.fromkeys(layer for layer, _ in self._outputs.values()))
        try:
            for name, array in inputs.items():
                self._net.setInput(np.ascontiguousarray(array), name)
            results = dict(zip(layers, self._net.forwardAndRetrieve(layers), strict=True))
        except self._error as error:
            raise Refused(_line(error)) from error
        return {blob: np.array(results[layer][index]) for blob, (layer, index) in self._outputs.items()}

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """Return None: OpenCV computes in float32 only."""
        return None  # OpenCV computes in float32 only

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """Return no bounds: Caffe's inputs are floats, not indices."""
        return {}

    def insensitive(self) -> dict[str, str]:
        """Name the outputs that depend on shapes alone, with that reason."""
        return {blob: "depends on shapes alone" for blob in self._outputs if blob in self._shape_only}


def _places(net: Net) -> dict[str, tuple[str, int]]:
    """Every output blob with the layer that makes it last, and its place among that layer's tops."""
    made = {top: (layer.name, index) for layer in net.layers for index, top in enumerate(layer.tops)}
    return {blob: made[blob] for blob in net.outputs}


def value_free(net: Net) -> frozenset[str]:
    """The blobs that no value of an input reaches: prior boxes and what is made of them alone."""
    free: set[str] = set()
    for layer in net.layers:
        free.difference_update(layer.tops)
        if layer.type == "PriorBox" or (layer.bottoms and set(layer.bottoms) <= free):
            free.update(layer.tops)
    return frozenset(free)


def _line(error: Exception) -> str:
    """OpenCV's message without the place in its own source."""
    lines = [line for line in said(error).splitlines() if line.strip()]
    return lines[0].split("error: ", 1)[-1].strip()
