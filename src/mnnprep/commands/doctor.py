"""`doctor`: what is installed, which formats work here, and what to install for the others.

No framework is imported in this process: packages are looked up by their metadata, and a converter is
asked in a worker.
"""

from __future__ import annotations

import os
import platform
import shutil

import msgspec

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.commands.target import EnvironmentState, listed
from mnnprep.formats.backend import Backend, Role, SourceKind
from mnnprep.formats.registry import BACKENDS
from mnnprep.mnn.frontends import FRONTENDS, FrontendsJob
from mnnprep.model.target import host_machine
from mnnprep.safety.leftovers import Scratch
from mnnprep.targets.tools import emulator
from mnnprep.workers.confine import supported
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host

CONVERTER_VARIABLE = "MNNPREP_MNNCONVERT"
TIMEOUT_SECONDS = 120.0
UNKNOWN_VERSION = "version unknown"  # importable, but no metadata: another distribution, or a source tree


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is None when it is not installed; ``extra`` is empty for a core dependency."""

    module: str
    distribution: str
    extra: str
    version: str | None


class FormatState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a kind of source can be prepared here; else ``needs`` says what is missing."""

    kind: str
    title: str
    framework: str
    targets: list[str]
    works: bool
    needs: str = ""


class Converter(msgspec.Struct, frozen=True, kw_only=True):
    """A converter to MNN.

    ``frontends`` counts the operators registered in each, ``reason`` says why it does not work.
    """

    name: str
    works: bool
    frontends: dict[str, int] = msgspec.field(default_factory=dict)
    reason: str = ""


class ConfinementState(msgspec.Struct, frozen=True, kw_only=True):
    """How the workers that run a model are confined here.

    ``active`` if something keeps them from files and programs that are not theirs, ``complete`` if all of it
    does; ``level`` names what does it, ``reason`` what is lacking and why.
    """

    active: bool
    complete: bool
    level: str
    reason: str = ""


class Doctor(msgspec.Struct, frozen=True, kw_only=True):
    """The diagnosis. ``advice`` lists what to type or set, the most needed first.

    ``emulators`` are the paths of QEMU by the architecture that it emulates, empty where it is not installed;
    ``environments`` are those of targets.
    """

    mnnprep: str
    python: str
    platform: str
    packages: list[Package]
    formats: list[FormatState]
    converters: list[Converter]
    confinement: ConfinementState
    emulators: dict[str, str]
    environments: list[EnvironmentState]
    advice: list[str]


def diagnose(mnnconvert: str = "") -> Doctor:
    """Look at this installation.

    *mnnconvert*, else the variable MNNPREP_MNNCONVERT, names a further converter.

    Nothing that is wrong raises: it is in the result.
    """
    packages = [_package(module, extra) for module, extra in _modules().items()]
    converters = _converters(mnnconvert or os.environ.get(CONVERTER_VARIABLE, ""))
    missing = {p.module for p in packages if p.version is None}
    formats = [
        _state(backend, kind, missing)
        for backend in BACKENDS
        for kind in backend.kinds
        if kind.role is not Role.LIVE
    ]
    return Doctor(
        mnnprep=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        formats=formats,
        converters=converters,
        confinement=_confinement(),
        emulators={arch: emulator(arch) for arch in ("arm64", "x86_64") if arch != host_machine()},
        environments=listed().environments,
        advice=_advice(packages, converters),
    )


def _confinement() -> ConfinementState:
    walls = supported()
    return ConfinementState(
        active=bool(walls.landlock or walls.seccomp),
        complete=walls.complete,
        level=str(walls),
        reason=walls.reason,
    )


def _modules() -> dict[str, str]:
    """Every module that mnnprep may use, with the extra that brings it: of the core, frameworks, tools."""
    frameworks = {module: backend.extra for backend in BACKENDS for module in backend.packages}
    return dict.fromkeys(deps.CORE, "") | frameworks | deps.TOOLS


def _package(module: str, extra: str) -> Package:
    distribution = deps.distribution_of(module)
    version = deps.version(module) or (UNKNOWN_VERSION if deps.installed(module) else None)
    return Package(module=module, distribution=distribution, extra=extra, version=version)


def _state(backend: Backend, kind: SourceKind, missing: set[str]) -> FormatState:
    """A format works when this version prepares it and its packages and the core are there."""
    absent = [m for m in (*deps.CORE, *backend.packages) if m in missing]
    if kind.role is Role.WEIGHTS:
        needs = "a factory, with these as --weights"
    elif not kind.prepared:
        needs = "recognised only, in this version"
    elif absent:
        extra = "" if absent[0] in deps.CORE else backend.extra
        needs = _install(extra, deps.distribution_of(absent[0]))
    else:
        needs = ""
    return FormatState(
        kind=kind.name,
        title=kind.title,
        framework=backend.framework,
        targets=list(kind.steps.targets()) if kind.steps else [],
        works=not needs,
        needs=needs,
    )


def _install(extra: str, distribution: str) -> str:
    return f"pip install 'mnnprep[{extra}]'" if extra else f"pip install {distribution}"


def _converters(custom: str) -> list[Converter]:
    found = []
    with Scratch() as scratch, Host(FRONTENDS.worker, scratch=scratch) as host:
        if deps.installed("_tools"):
            found.append(_ask(host, "the MNN package", ""))
        else:
            found.append(Converter(name="the MNN package", works=False, reason="it is not installed"))
        if custom:
            found.append(_custom(host, custom))
    return found


def _custom(host: Host, path: str) -> Converter:
    program = shutil.which(path)
    if program is None:
        reason = "it is not executable" if os.path.exists(path) else "it does not exist"
        return Converter(name=path, works=False, reason=reason)
    return _ask(host, path, os.path.abspath(program))


def _ask(host: Host, name: str, executable: str) -> Converter:
    try:
        answer = host.run(FRONTENDS, FrontendsJob(converter=executable), timeout=TIMEOUT_SECONDS).value
    except StepFailed as failure:
        return Converter(name=name, works=False, reason=failure.reason)
    return Converter(name=name, works=not answer.reason, frontends=answer.operators, reason=answer.reason)


def _advice(packages: list[Package], converters: list[Converter]) -> list[str]:
    lines = [
        f"{_install('', p.distribution)} (a core dependency is missing)"
        for p in packages
        if p.version is None and not p.extra
    ]
    purposes = {backend.extra: f"to prepare {backend.framework} models" for backend in BACKENDS}
    purposes["report"] = "to write report.html"
    for extra in dict.fromkeys(p.extra for p in packages if p.version is None and p.extra):
        if extra in purposes:
            lines.append(f"{_install(extra, '')}, {purposes[extra]}")
    lines += [f"{c.name} does not work as a converter: {c.reason}" for c in converters if not c.works]
    if not any("TORCH" in c.frontends for c in converters):
        named = f"name it with --mnnconvert or {CONVERTER_VARIABLE}"
        lines.append(
            f"to convert TorchScript, build MNNConvert with MNN_BUILD_TORCH=ON and {named}; by way of"
            f" ONNX, PyTorch does not need it"
        )
    return lines
