"""Where a converted model runs: the machine, MNN's settings, the engine's version.

A target's text form is ``ARCH[:PRECISION][,KEY=VALUE ...]``, as ``arm64:low,cpu=cortex-a53,engine=3.2.0``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence

import msgspec

from mnnprep.errors import UsageError
from mnnprep.model.ssh_host import SSH, host_of

HOST = "host"
EVERY = "every"  # in place of an engine's version: each one that was added here
MODES = ("high", "normal", "low")  # MNN's, of precision and of memory
APIS = ("module", "session")
MOST_THREADS = 64

_ARCHES = {"arm64": "arm64", "aarch64": "arm64", "x86_64": "x86_64", "amd64": "x86_64", HOST: HOST}
_KEYS = ("precision", "cpu", "memory", "threads", "api", "engine")
# The usual sets. At low precision a CPU with float16 arithmetic computes in it, as most phones' do.
_SETS = {
    "phone": ("arm64:high", "arm64:low", "arm64:low,cpu=cortex-a53"),
    "engines": (f"{HOST},engine={EVERY}",),
}
_NEXT = (
    "write for example arm64, arm64:low, arm64:low,cpu=cortex-a53,engine=3.2.0, host:low, ssh://board,"
    " phone or engines"
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a converted model runs.

    Attributes:
        arch: ``arm64``, ``x86_64``, ``host`` (this machine) or ``ssh://HOST`` (a machine of that name).
        precision: MNN's: ``high``, ``normal`` or ``low``.
        cpu: the CPU that is emulated, by QEMU's name; empty: one with every instruction there is.
        memory: MNN's: ``high``, ``normal`` or ``low``.
        threads: how many threads MNN has.
        api: MNN's Module API (``module``) or one Session that is resized (``session``).
        engine: MNN's version; empty: the one that is installed here.
    """

    arch: str = HOST
    precision: str = "high"
    cpu: str = ""
    memory: str = "normal"
    threads: int = 1
    api: str = "module"
    engine: str = ""

    def __post_init__(self) -> None:
        for word, value, allowed in (
            ("precision", self.precision, MODES),
            ("memory", self.memory, MODES),
            ("api", self.api, APIS),
        ):
            if value not in allowed:
                raise UsageError(
                    f"a target's {word} has another value than MNN knows",
                    seen=value,
                    next=f"choose from: {', '.join(allowed)}",
                )
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(
                f"a target has 1 to {MOST_THREADS} threads", seen=str(self.threads), next="write threads=4"
            )
        if self.engine != EVERY:
            require_engine(self.engine)
        if self.cpu and not re.fullmatch(r"[\w.,=+-]+", self.cpu):
            raise UsageError(
                "a target's cpu has a character that no name of a CPU has",
                seen=self.cpu,
                next="`qemu-aarch64-static -cpu help` lists the names; write for example cpu=cortex-a76",
            )
        if self.cpu and self.arch != "arm64":
            raise UsageError("cpu= goes with arm64, which is emulated", seen=self.arch, next="leave cpu= out")

    @property
    def native(self) -> bool:
        """Whether this machine runs it without emulation; of one over ssh it does not."""
        return self.machine == host_machine()

    @property
    def machine(self) -> str:
        """Its architecture, that of this machine in place of ``host``."""
        return host_machine() if self.arch == HOST else self.arch

    @property
    def remote(self) -> str:
        """The machine that ssh reaches; empty if the target is none such."""
        return self.arch.removeprefix(SSH) if self.arch.startswith(SSH) else ""

    def __str__(self) -> str:
        text = f"{self.arch}{',precision=' if self.remote else ':'}{self.precision}"
        plain = Target(arch=self.arch)
        values = {key: getattr(self, key) for key in _KEYS[1:]}
        return text + "".join(f",{k}={v}" for k, v in values.items() if v != getattr(plain, k))

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that *text* describes.

        Raises:
            UsageError: the text has another form, or a value that there is not.
        """
        first, *pairs = [part.strip() for part in text.split(",")]
        arch, precision = first, ""
        if not first.startswith(SSH):
            word, _, precision = first.partition(":")
            arch = _ARCHES.get(word.lower(), "")
        else:
            host_of(first)
        if not arch:
            raise _unreadable(text)
        values: dict[str, str] = {"precision": precision} if precision else {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or key not in _KEYS or key in values or not value:
                raise _unreadable(text)
            values[key] = value
        threads = values.pop("threads", "1")
        if not re.fullmatch(r"\d{1,3}", threads):
            raise _unreadable(text)
        return cls(arch=arch, threads=int(threads), **values)


def parse_targets(texts: Iterable[str]) -> tuple[Target, ...]:
    """The targets that *texts* name, sets of them in full, each once and in order.

    Raises:
        UsageError: one can't be read.
    """
    full = [one for text in texts for one in _SETS.get(text.strip().lower(), (text,))]
    return tuple(dict.fromkeys(Target.parse(text) for text in full))


def require_engine(version: str) -> None:
    """Require that *version* has the form of a version of MNN, or is empty.

    Raises:
        UsageError: it has not.
    """
    if not is_engine(version):
        raise UsageError("an engine is not a version of MNN", seen=version, next="write for example 3.2.0")


def is_engine(version: str) -> bool:
    """Whether *version* has the form of a version of MNN, or is empty."""
    return not version or re.fullmatch(r"\d+(\.\d+){1,3}", version) is not None


def version_key(version: str) -> tuple[int, ...]:
    """A version to sort by; what is none comes first."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def texts_of(targets: Sequence[Target]) -> tuple[str, ...]:
    """The text form of each target."""
    return tuple(map(str, targets))


def host_machine() -> str:
    """This machine's architecture, by the name that a target has for it."""
    machine = platform.machine()
    return _ARCHES.get(machine.lower(), machine)


def _unreadable(text: str) -> UsageError:
    return UsageError("a --target could not be read", seen=text, next=_NEXT)
