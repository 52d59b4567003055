"""One Session, resized from case to case: how apps ran MNN before its Module API, and many still do.

Measured with MNN 3.6.1: a Session has no control flow (an If or Loop needs the Module API); ``resizeTensor``
takes the shape in the layout of the source's format, and host tensors of that layout are converted both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep import deps
from mnnprep.comparison.tolerance import Array
from mnnprep.mnn.settings import Settings
from mnnprep.model.files import Arrays

if TYPE_CHECKING:
    from types import ModuleType

    from MNN import Tensor

OK = 0  # MNN's ErrorCode NO_ERROR


class SessionFailed(Exception):
    """Why the session did not run; one line."""


class Session:
    """A model in one Session with *settings*.

    *hints* are pairs of a mode's number and its value.
    """

    def __init__(
        self, model: str, layouts: dict[str, str], hints: list[tuple[int, int]], settings: Settings
    ) -> None:
        self._mnn: ModuleType = deps.require("MNN")
        self._layouts = layouts
        self._interpreter = self._mnn.Interpreter(model)
        for mode, value in hints:
            self._interpreter.setSessionHint(mode, value)
        self._session = self._interpreter.createSession(settings.config())

    def run(self, inputs: Arrays, names: dict[str, str], outputs: dict[str, str]) -> Arrays:
        """One run, the session resized to *inputs*; *names* and *outputs* map the cases' names to MNN's."""
        interpreter, session = self._interpreter, self._session
        for name, array in inputs.items():
            interpreter.resizeTensor(interpreter.getSessionInput(session, names[name]), tuple(array.shape))
        interpreter.resizeSession(session)
        for name, array in inputs.items():
            tensor = interpreter.getSessionInput(session, names[name])
            if not tensor.copyFrom(self._host(array, self._dense(self._layouts.get(name, "NCHW")))):
                raise SessionFailed(f"the session does not take input {name!r}")
        code = interpreter.runSession(session)
        if code != OK:
            raise SessionFailed(f"the session ended with MNN's error code {code}")
        layout = self._dense("NHWC" if "NHWC" in self._layouts.values() else "NCHW")
        return {
            name: self._array(interpreter.getSessionOutput(session, theirs), layout)
            for name, theirs in outputs.items()
        }

    def _dense(self, layout: str) -> int:
        suffix = "Tensorflow" if layout == "NHWC" else "Caffe"
        dense: int = getattr(self._mnn, f"Tensor_DimensionType_{suffix}")
        return dense

    def _host(self, array: Array, layout: int) -> Tensor:
        types = {
            "float32": self._mnn.Halide_Type_Float,
            "int32": self._mnn.Halide_Type_Int,
            "uint8": self._mnn.Halide_Type_Uint8,
        }
        if str(array.dtype) not in types:
            raise SessionFailed(f"a session does not take {array.dtype}")
        return self._mnn.Tensor(
            tuple(array.shape), types[str(array.dtype)], np.ascontiguousarray(array), layout
        )

    def _array(self, tensor: Tensor, layout: int) -> Array:
        host = self._mnn.Tensor(tensor, layout)
        if not tensor.copyToHostTensor(host):
            raise SessionFailed("an output can't be read from the session")
        return np.array(host.getNumpyData()).reshape(tuple(tensor.getShape()))
