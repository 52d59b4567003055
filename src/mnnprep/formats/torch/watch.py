"""Watching an eager run: values that decide what is computed, dropout left on, tables that inputs index.

A :class:`torch.overrides.TorchFunctionMode` sees every call that reaches torch from Python, with
the real values, so shapes are plain integers there and only a decision on *data* is seen.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections import defaultdict
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.torch.constants_seen import ConstantsSeen
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types
from mnnprep.model.net import any_ranks

if TYPE_CHECKING:
    from torch import Tensor, nn

# Tensor methods that turn data into a Python value, which a trace then keeps as a constant.
DECIDING = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist")
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
FAKE_QUANTIZING = (
    "fake_quantize_per_tensor_affine",
    "fake_quantize_per_channel_affine",
    "fused_moving_avg_obs_fake_quant",
)
UNKNOWN_PLACE = "an unknown place"
_LIBRARIES = ("torch", "mnnprep")
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]


def current_place() -> str:
    """The innermost frame outside torch and mnnprep, as ``package/file.py:line``."""
    frame = sys._getframe(1)
    while frame is not None:
        if name := _user_file(frame.f_code.co_filename):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return UNKNOWN_PLACE


def raised_at(error: BaseException) -> str:
    """Return the innermost frame of an exception outside torch and mnnprep.

    It is ``package/file.py:line``, empty if there is none.
    """
    frames = [
        (name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (name := _user_file(frame.f_code.co_filename))
    ]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""


@cache
def _user_file(filename: str) -> str:
    """A source file as a place names it; empty for one of torch, mnnprep or the standard library."""
    path = Path(filename)
    parts = path.parts
    if "site-packages" in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index("site-packages") + 1 :]
        return "" if parts[0] in _LIBRARIES else "/".join(parts)
    if "mnnprep" in parts or path.name.startswith("<") or path.is_relative_to(_STANDARD_LIBRARY):
        return ""
    return path.name


class Watch:
    """The record of one or more watched runs.

    ``decisions`` maps ``place (method)`` to the set of values seen there, of values that inputs reach: what
    *module* holds and sizes decide alone is judged by the sizes compared.  ``dropouts`` lists the places of
    functional dropout with training=True; ``tables`` maps the data pointer of an index tensor to the size of
    the table it looked up; ``ranked`` says that something was sorted or chosen by value, ``rounds`` that
    numbers were rounded to steps, as in quantization-aware training.
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self._module = module
        self._constants = ConstantsSeen()  # of the last run: none yet
        self.decisions: dict[str, set[str]] = defaultdict(set)
        self.dropouts: list[str] = []
        self.tables: dict[int, int] = {}
        self.ranked = False
        self.rounds = False

    def mode(self) -> AbstractContextManager[object]:
        """A context manager that watches."""
        torch = require("torch")
        deciding = {getattr(torch.Tensor, n) for n in DECIDING if hasattr(torch.Tensor, n)}
        dropouts = {getattr(torch.nn.functional, n) for n in DROPOUTS if hasattr(torch.nn.functional, n)}
        embedding = torch.nn.functional.embedding
        watch = self
        constants = self._constants = ConstantsSeen(self._module)

        class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
            def __torch_function__(
                self, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
            ) -> object:
                kwargs = kwargs or {}
                if function in dropouts:
                    watch._note_dropout(args, kwargs)
                elif function is embedding:
                    index, table = (
                        (*args, kwargs.get("input"), kwargs.get("weight"))[:2]
                        if len(args) >= 2
                        else (args[0] if args else kwargs["input"], kwargs["weight"])
                    )
                    size = min(table.shape[0], watch.tables.get(index.data_ptr(), table.shape[0]))
                    watch.tables[index.data_ptr()] = size
                elif any_ranks((getattr(function, "__name__", ""),)):
                    watch.ranked = True
                elif getattr(function, "__name__", "") in FAKE_QUANTIZING:
                    watch.rounds = True
                result = function(*args, **kwargs)
                if function not in deciding:
                    constants.note(function, args, kwargs, result)
                elif not constants.holds(args[0]):
                    watch.decisions[f"{current_place()} ({function.__name__.strip('_')})"].add(
                        repr(result)[:80]
                    )
                return result

        return Mode()

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether no input reaches *tensor*, of the last run: it follows from the module and sizes alone."""
        return self._constants.holds(tensor)

    def _note_dropout(self, args: Arguments, kwargs: Keywords) -> None:
        probability = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        training = args[2] if len(args) > 2 else kwargs.get("training", True)
        if training and probability > 0:
            place = current_place()
            if place not in self.dropouts:
                self.dropouts.append(place)

    def one_sided(self) -> list[str]:
        """The places where every watched run decided alike."""
        return [place for place, values in self.decisions.items() if len(values) == 1]
