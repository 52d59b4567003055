"""A TFLite model as a net: LiteRT on one thread, no delegate.

The reference uses its reference kernels, the rest its optimized ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.comparison.steps import Array, between_kernels
from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tflite.scan import TfliteSummary, has_quantized_activations, output_steps, scan_model
from mnnprep.model.files import Arrays
from mnnprep.model.net import Case, Refused
from mnnprep.model.signature import DTYPES, Dim, Range, TensorSpec, dynamic_specs
from mnnprep.model.steps import Quantized, Step
from mnnprep.safety.damage import AGAIN
from mnnprep.safety.error_text import message

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


def refuse_unsupported(path: Path) -> TfliteSummary:
    """Refuse what can't be proven: state, tables, custom operators, text; each named."""
    summary = scan_model(path)
    if summary.state:
        raise RefusedError(
            "the model keeps state between its runs or uses lookup tables",
            seen=", ".join(summary.state),
            next=(
                "convert it again from the source with its state as inputs and outputs (no variables), so"
                " that MNN gets a net without memory"
            ),
        )
    if summary.custom:
        flex = [n for n in summary.custom if n.startswith("Flex")]
        raise RefusedError(
            "the model has operators that TFLite does not define",
            seen=", ".join(summary.custom[:8]),
            next="convert it again "
            + ("without SELECT_TF_OPS" if flex else "with these operators built out of TFLite's own"),
        )
    for role, tensors in (("input", summary.inputs), ("output", summary.outputs)):
        for tensor in tensors:
            if tensor.dtype not in DTYPES:
                raise RefusedError(
                    f"the {role} {tensor.name} has a type that MNN can neither take nor give",
                    seen=tensor.dtype,
                    next="convert it with plain tensors of numbers",
                )
    return summary


def _interpreter(path: str, reference: bool, *, delegate: bool = False) -> Interpreter:
    """Return LiteRT with the model, with its reference kernels for the reference.

    If one of them is missing (ELU), with those that an app gets.
    """
    interpreter = require("ai_edge_litert.interpreter")
    kernels = interpreter.OpResolverType
    try:
        plain = kernels.AUTO if delegate else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        kind = kernels.BUILTIN_REF if reference else plain
        made = interpreter.Interpreter(path, num_threads=1, experimental_op_resolver_type=kind)
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        if reference and "Didn't find op for builtin" in str(error):
            return _interpreter(path, reference=False)
        raise RefusedError(
            "LiteRT can't load this model",
            seen=message(error),
            next="convert it again, or update ai-edge-litert",
        ) from error
    return made


class TfliteNet:
    """A TFLite file in LiteRT as a :class:`mnnprep.model.net.Net`.

    Inputs and outputs have their tensors' names, in the file's order.
    """

    def __init__(self, path: str, *, reference: bool = True, delegate: bool = False) -> None:
        self.path = path
        self.summary = refuse_unsupported(Path(path))
        self._interpreter = _interpreter(path, reference, delegate=delegate)
        self.example: Arrays = {}
        self.dims: tuple[Dim, ...] = ()
        try:
            self._inputs = self._interpreter.get_input_details()
            self._outputs = self._interpreter.get_output_details()
        except UnicodeDecodeError as error:
            raise RefusedError(
                "the TFLite model is damaged: the name of an input or output is not UTF-8",
                seen=f"{Path(path).name}: {error.object!r}",
                next=AGAIN,
            ) from error
        self.inputs = _specs(self._inputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs in LiteRT, its inputs resized to the shapes given.

        Raises:
            Refused: LiteRT does not take the inputs.
        """
        runtime = self._interpreter
        try:
            resized = False
            for detail in self._inputs:
                shape = inputs[detail["name"]].shape
                if tuple(runtime.get_tensor(detail["index"]).shape if not resized else ()) != shape:
                    runtime.resize_tensor_input(detail["index"], shape, strict=True)
                    resized = True
            if resized:
                runtime.allocate_tensors()
            for detail in self._inputs:
                runtime.set_tensor(detail["index"], np.asarray(inputs[detail["name"]], order="C"))
            runtime.invoke()
            return {d["name"]: np.array(runtime.get_tensor(d["index"])) for d in self._outputs}
        except (RuntimeError, ValueError) as error:
            raise Refused(message(error)) from error

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """Return None: the kernels are float32."""
        return None  # the kernels are float32

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """Return the whole range of every quantized input: the net was calibrated to use all of it."""
        stored = {q.tensor for q in self.summary.activations}
        return {
            s.name: (float(np.iinfo(s.dtype).min), float(np.iinfo(s.dtype).max))
            for s in self.inputs
            if s.name in stored and np.dtype(s.dtype).kind in "iu"
        }

    def quantized(self) -> dict[str, Quantized]:
        """Return what the integers of the inputs and outputs stand for."""
        return {
            q.tensor: Quantized(q.scale[0], (q.zero_point or (0,))[0])
            for q in self.summary.activations
            for detail in (*self._inputs, *self._outputs)
            if q.tensor == detail["name"]
        }

    def steps(self, cases: Sequence[Case]) -> dict[str, Step]:
        """Return the steps of the outputs, if the net rounds while it computes.

        How far the kernels that an app gets, with XNNPACK and without, are from these is measured on *cases*.
        """
        if not has_quantized_activations(self.summary):
            return {}
        sizes = output_steps(Path(self.path))
        pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in sizes}
        for delegate in (False, True):
            try:
                other = TfliteNet(self.path, reference=False, delegate=delegate)
                runs = [other.run(case.inputs) for case in cases]
            except (Refused, RefusedError):  # kernels that lack an operator say nothing
                continue
            for case, run in zip(cases, runs, strict=True):
                for name, found in pairs.items():
                    found.append((case.outputs[name], run[name]))
        return {name: between_kernels(size, pairs[name]) for name, size in sizes.items()}

    def insensitive(self) -> dict[str, str]:
        """Name no output: a TFLite file's graph is not searched for such outputs."""
        return {}


def _specs(details: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the inputs.

    An unknown dimension is named after its place, or ``batch`` if it is the only first one.
    """
    shapes = [d["shape_signature"] if len(d["shape_signature"]) else d["shape"] for d in details]
    stated = [
        (str(d["name"]), np.dtype(d["dtype"]).name, [int(e) for e in shape])
        for d, shape in zip(details, shapes, strict=True)
    ]
    short = dynamic_specs(
        [(name.partition(":")[0], dtype, shape) for name, dtype, shape in stated], batch="batch"
    )
    return tuple(
        TensorSpec(name, spec.dtype, spec.shape) for (name, _, _), spec in zip(stated, short, strict=True)
    )
