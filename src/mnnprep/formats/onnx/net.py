"""An ONNX file as a net: onnxruntime on one thread."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import Code, RefusedError
from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.constant_growth import require_bounded
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.onnx.sound import require_names
from mnnprep.model.files import Arrays
from mnnprep.model.net import Refused
from mnnprep.model.signature import DTYPES, Dim, Range, dynamic_specs
from mnnprep.safety.error_text import message, said, shortened
from mnnprep.text import first_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from onnx import ModelProto
    from onnxruntime import InferenceSession, NodeArg

# onnxruntime's names of element types that differ from NumPy's
ORT_DTYPES = {"float": "float32", "double": "float64"}


def open_session(
    path: str, *, optimize: bool, data_directory: str = "", profile: str = ""
) -> InferenceSession:
    """An onnxruntime session on the CPU, one thread; unoptimized, it computes the graph as written.

    ``data_directory`` is where external data is, if not beside the model; ``profile`` where the files of a
    profile begin (empty: none is made).

    Raises:
        RefusedError: onnxruntime can't load the model.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    if data_directory:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", data_directory
        )
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own C++ module
        if "NOT_IMPLEMENTED" in str(error):
            raise RefusedError(
                "onnxruntime has no kernel for an operator of this model at this dtype",
                seen=message(error),
                next="convert the model to float32 before it is prepared",
                code=Code.NO_KERNEL,
            ) from error
        raise RefusedError(
            "onnxruntime can't load this model, so there is no reference to prove it against",
            seen=message(error),
            next="check the file with `python -m onnx.checker`, or export it again",
        ) from error


def _complaint(error: BaseException) -> str:
    """Return what onnxruntime says of a failed run, without the places in its own source."""
    line = first_line(said(error))
    node = re.search(r"running (\S+) node\. Name:'([^']*)' Status Message: (.*)", line)
    if node is None:
        return shortened(line)
    reason = re.sub(r"^\S+\.(?:h|cc|cpp):\d+ .*? was false\. ", "", node[3])
    return shortened(f"onnxruntime at {node[1]} {node[2]}: {reason}")


def dtype_of(argument: NodeArg) -> str:
    """The dtype of a session's input or output.

    Raises:
        RefusedError: it is not a tensor of numbers.
    """
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    dtype: str = ORT_DTYPES.get(kind, kind)
    if dtype not in DTYPES or not argument.type.startswith("tensor("):
        raise RefusedError(
            f"{argument.name} is of a type that MNN can't be fed",
            seen=argument.type,
            next=(
                "make the model take and give plain tensors of numbers: move text, sequences and maps out of"
                " the graph"
            ),
        )
    return dtype


class OnnxNet:
    """An ONNX file in onnxruntime as a :class:`mnnprep.model.net.Net`.

    The reference of an ONNX file is its unoptimized graph.
    """

    def __init__(self, path: str, *, optimize: bool = False) -> None:
        self.path = path
        self.example: Arrays = {}
        self.dims: tuple[Dim, ...] = ()
        require_names(self.model, Path(path).name)
        require_bounded(self.model, Path(path).name)
        self._session = open_session(path, optimize=optimize)
        self.inputs = dynamic_specs((a.name, dtype_of(a), a.shape) for a in self._session.get_inputs())
        self._outputs = [a.name for a in self._session.get_outputs() if dtype_of(a)]
        if not self.inputs:
            raise RefusedError(
                "the model has no input, so nothing can be proven of it",
                seen=f"outputs: {', '.join(self._outputs)}",
                next="export it with its inputs",
            )

    @cached_property
    def model(self) -> ModelProto:
        """The model without its external data."""
        return skeleton(self.path)

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs in onnxruntime.

        Raises:
            Refused: onnxruntime does not take the inputs.
        """
        return dict(zip(self._outputs, self.compute(self._session, inputs, self._outputs), strict=True))

    @staticmethod
    def compute(
        session: InferenceSession, inputs: Arrays, outputs: list[str] | None = None
    ) -> list[npt.NDArray[np.generic]]:
        """Return the *outputs* (all, if not given) of one run.

        Raises:
            Refused: onnxruntime does not take the inputs.
        """
        try:
            values: list[npt.NDArray[np.generic]] = session.run(outputs, inputs)
        except Exception as error:  # onnxruntime raises classes of its own C++ module
            raise Refused(_complaint(error)) from error
        return values

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """Return None: onnxruntime's CPU kernels are float32 for most operators."""
        return None  # onnxruntime's CPU kernels are float32 for most operators

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """Return the ranges of integer inputs that are indices, as the graph shows them."""
        return (
            graph.index_bounds(self.model)
            if any(s.dtype.startswith(("int", "uint")) for s in self.inputs)
            else {}
        )

    def insensitive(self) -> dict[str, str]:
        """Name the outputs that do not depend on the inputs' values, with the reason."""
        return graph.insensitive_outputs(self.model)
