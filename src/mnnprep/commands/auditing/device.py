"""The outputs that came back from a device, held to the rules of `verify`'s own run in MNN."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mnnprep.attempt.target_verifier import Rounding, compared_there
from mnnprep.bundle.manifest import FILE_NAME
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.model.files import sha256
from mnnprep.model.messages import CaseFile
from mnnprep.model.target import MODES
from mnnprep.targets.outputs import DeviceRuns

LONGEST_NAME = 100


class DeviceOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs in ``directory``, of the device that the user calls ``name``.

    ``precision`` is that which they must be of; empty: as the device's own record says.
    """

    directory: str
    name: str
    precision: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > LONGEST_NAME or not self.name.isprintable():
            raise UsageError(
                "a device has a name of printable characters",
                seen=repr(self.name[:LONGEST_NAME]),
                next=f"give --device with at most {LONGEST_NAME} of them, for example --device 'Pixel 8'",
            )
        if self.precision and self.precision not in MODES:
            raise UsageError(
                "there is no such precision", seen=self.precision, next=f"give one of {', '.join(MODES)}"
            )

    def require_own(self, runs: DeviceRuns, bundle: Path) -> None:
        """Require that *runs* are of the kit of *bundle*, at the precision that was asked for.

        Raises:
            UsageError: they are not.
        """
        if runs.bundle != sha256(bundle / FILE_NAME):
            raise UsageError(
                "the outputs are those of another bundle's kit",
                seen=f"{self.directory}: of the bundle {runs.bundle[:12]}",
                next="write the kit of this bundle with `mnnprep kit`, and run that on the device",
            )
        if self.precision and runs.settings.precision != self.precision:
            raise UsageError(
                "the outputs are of another precision",
                seen=f"{runs.settings.precision}, not {self.precision}",
                next="leave --precision out, or run the kit's program with it",
            )


def device_outputs(directory: str, name: str, precision: str = "") -> DeviceOutputs | None:
    """Return the outputs that a call names; None if it names none.

    Raises:
        UsageError: one of the directory and the device's name is missing, or a value is none.
    """
    if not (directory or name or precision):
        return None
    if not (directory and name):
        raise UsageError(
            "a device's outputs and its name belong together",
            seen="no outputs" if name or not directory else "no name of the device",
            next="give both: --outputs DIR --device NAME",
        )
    return DeviceOutputs(directory=directory, name=name, precision=precision)


def device_check(
    name: str,
    cases: list[CaseFile],
    runs: DeviceRuns,
    tolerance: Tolerance,
    budget: float | None,
    rounding: Rounding,
) -> Check:
    """Make the check ``target:NAME``: what MNN computed on the device *name* against the references.

    Both runs are judged as those of a target are, by the type that MNN may have computed in there.
    """
    settings, row = runs.settings, catalog.TARGET.of(name)
    arithmetic = settings.arithmetic_elsewhere
    check = compared_there(row, cases, [runs.shared, runs.fresh], arithmetic, tolerance, budget, rounding)
    facts = {**msgspec.structs.asdict(settings), "engine": runs.engine}
    return msgspec.structs.replace(check, subject=name, numbers={**check.numbers, **facts})
