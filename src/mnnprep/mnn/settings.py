"""The settings of MNN's runtime, and the arithmetic that a CPU then computes in.

Measured with MNN 3.6.1's packages: on x86-64 every precision is float32. On ARM64 ``normal`` equals ``high``,
and ``low`` is float16 on a CPU that has its arithmetic; on one that has not it is float32, with coarser
functions such as tanh (an LSTM keeps 53 dB there, convolutions lose nothing).
"""

from __future__ import annotations

import ctypes
import platform
import sys
from types import ModuleType

import msgspec

FLOAT32, FLOAT16, COARSE = "float32", "float16", "coarse float32"
_AT_HWCAP = 16  # <sys/auxv.h>
_HWCAP_ASIMDHP = 1 << 10  # <asm/hwcap.h> of arm64: half precision in vectors


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How MNN's runtime is set: its backend, precision and memory modes, and how many threads it has."""

    backend: str = "cpu"
    precision: str = "high"
    memory: str = "normal"
    threads: int = 1

    @property
    def reduced(self) -> bool:
        """Whether MNN may compute in less than float32: half floats, or integers for low memory.

        Its CPU takes ``normal`` as ``high``.
        """
        full = ("high", "normal") if self.backend == "cpu" else ("high",)
        return self.precision not in full or self.memory == "low"

    @property
    def arithmetic_elsewhere(self) -> str:
        """The least type that MNN may compute in on a machine that does not say what it has."""
        if not self.reduced:
            return FLOAT32
        return COARSE if self.backend == "cpu" and self.precision != "low" else FLOAT16

    def config(self) -> dict[str, str | int]:
        """The configuration as MNN's Python takes it."""
        plain: dict[str, str | int] = {
            "backend": self.backend.upper(),
            "precision": self.precision,
            "numThread": self.threads,
        }
        return plain | ({"memory": self.memory} if self.memory != "normal" else {})

    def arithmetic(self) -> str:
        """The type that MNN computes in on this CPU with these settings."""
        if self.precision != "low" or platform.machine() not in ("aarch64", "arm64"):
            return FLOAT32
        return FLOAT16 if _has_half() else COARSE


def _has_half() -> bool:
    if sys.platform != "linux":
        return True  # every ARM64 CPU of Apple's
    library = ctypes.CDLL(None)
    library.getauxval.restype = ctypes.c_ulong
    library.getauxval.argtypes = [ctypes.c_ulong]
    return bool(library.getauxval(_AT_HWCAP) & _HWCAP_ASIMDHP)


def version_of(mnn: ModuleType) -> str:
    """The version of the *mnn* module; empty if it has none."""
    version = getattr(mnn, "version", None)
    return str(version()) if callable(version) else ""
