"""A ``.mnn`` file as a net: MNN itself is the reference, on the file as it was given."""

from __future__ import annotations

from pathlib import Path

from mnnprep.errors import RefusedError, UsageError
from mnnprep.mnn.capture import captured, last_lines, without_place_and_time
from mnnprep.mnn.info import MnnInfo, MnnTensor, read_info
from mnnprep.mnn.run import CaseFailed, MnnRunJob, Runner
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs
from mnnprep.model.net import Refused
from mnnprep.model.signature import Dim, Range, TensorSpec, dynamic_specs


def open_info(path: str) -> MnnInfo:
    """Return what MNN reads from the file.

    Raises:
        RefusedError: it reads nothing, or a net without inputs or outputs.
    """
    info = read_info(path)
    name = Path(path).name
    if not info.version and not info.inputs:
        raise RefusedError(
            "MNN can't open this file",
            seen=name,
            next="convert the model again, or use the MNN version that wrote it",
        )
    if not info.inputs or not info.outputs:
        raise RefusedError(
            "the MNN model has no input or no output, so nothing can be proven about it",
            seen=f"{name}: {len(info.inputs)} inputs, {len(info.outputs)} outputs",
            next="convert it again from the original model",
        )
    return info


def input_specs(inputs: list[MnnTensor], wants: InputSpecs) -> tuple[TensorSpec, ...]:
    """The inputs as the file has them, with what the user declares in their place.

    A dimension that the file leaves open is named ``INPUT_AXIS``; MNN writes an open first dimension as 1, so
    any dimension may be declared dynamic or of another size: whether the net takes it, its run says.

    Raises:
        UsageError: another rank or dtype.
    """
    declared = {s.name: s for s in wants.inputs}
    specs = []
    for own in dynamic_specs((tensor.name, tensor.dtype, tensor.shape) for tensor in inputs):
        spec = declared.get(own.name, own)
        if spec.dtype != own.dtype or (own.shape and len(spec.shape) != len(own.shape)):
            raise UsageError(
                f"--input gives {own.name} another dtype or number of dimensions than the model has",
                seen=str(spec),
                next=f"the model has {own}",
            )
        specs.append(spec)
    return tuple(specs)


class MnnNet:
    """An MNN file as a :class:`mnnprep.model.net.Net`."""

    def __init__(self, path: str, inputs: tuple[TensorSpec, ...], info: MnnInfo) -> None:
        self.inputs = inputs
        self.dims: tuple[Dim, ...] = ()
        self.example: Arrays = {}
        self._path = path
        self._runner = Runner(
            MnnRunJob(
                model=path,
                cases=[],
                input_names={s.name: s.name for s in inputs},
                output_names={n: n for n in info.outputs},
                layouts={t.name: t.layout for t in info.inputs},
                directory="",
            )
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs in MNN.

        Raises:
            Refused: MNN does not run on these inputs; its last lines are quoted.
        """
        try:
            with captured() as printed:
                return self._runner.run(inputs)
        except (CaseFailed, SystemError, RuntimeError, ValueError, TypeError) as error:
            said = last_lines(without_place_and_time(printed.text)).splitlines()
            raise Refused(f"{error}" + (f" ({said[-1]})" if said else "")) from error

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """Return None: MNN does not compute in float64."""
        return None

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """Return no bounds: none are read from an MNN file."""
        return {}

    def insensitive(self) -> dict[str, str]:
        """Name no output: an MNN file's graph is not searched for such outputs."""
        return {}
