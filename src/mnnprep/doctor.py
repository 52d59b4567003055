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
from mnnprep.core.leftovers import Scratch
from mnnprep.formats.table import FORMATS, WEIGHTS_ONLY, Format
from mnnprep.isolate.confine import supported
from mnnprep.isolate.host import Host, StepFailed
from mnnprep.mnn import worker
from mnnprep.mnn.frontends import Frontends, FrontendsJob

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
    """A converter to MNN; ``frontends`` counts the operators registered in each, ``reason`` says why it does
    not work.
    """

    name: str
    works: bool
    frontends: dict[str, int] = msgspec.field(default_factory=dict)
    reason: str = ""


class ConfinementState(msgspec.Struct, frozen=True, kw_only=True):
    """How the workers that run a model are confined here: ``active`` where something keeps them from files
    and programs that are not theirs, ``complete`` where all of it does; ``level`` names what does it,
    ``reason`` what is lacking and why.
    """

    active: bool
    complete: bool
    level: str
    reason: str = ""


class Doctor(msgspec.Struct, frozen=True, kw_only=True):
    """The diagnosis. ``advice`` lists what to type or set, the most needed first."""

    mnnprep: str
    python: str
    platform: str
    packages: list[Package]
    formats: list[FormatState]
    converters: list[Converter]
    confinement: ConfinementState
    advice: list[str]


def diagnose(mnnconvert: str = "") -> Doctor:
    """Look at this installation; *mnnconvert*, else the variable MNNPREP_MNNCONVERT, names a further
    converter.

    Nothing that is wrong raises: it is in the result.
    """
    packages = [_package(module) for module in deps.KNOWN]
    converters = _converters(mnnconvert or os.environ.get(CONVERTER_VARIABLE, ""))
    missing = {p.module for p in packages if p.version is None}
    formats = [_state(row, missing) for row in FORMATS]
    return Doctor(
        mnnprep=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        formats=formats,
        converters=converters,
        confinement=_confinement(),
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


def _package(module: str) -> Package:
    distribution, extra = deps.KNOWN[module]
    version = deps.version(module) or (UNKNOWN_VERSION if deps.installed(module) else None)
    return Package(module=module, distribution=distribution, extra=extra, version=version)


def _state(row: Format, missing: set[str]) -> FormatState:
    """A format works when this version prepares it and its extra and the core are there."""
    absent = [m for m in deps.KNOWN if m in missing and deps.KNOWN[m][1] in ("", row.extra)]
    if row.kind in WEIGHTS_ONLY:
        needs = "a factory, with these as --weights"
    elif not row.prepared:
        needs = "recognised only, in this version"
    elif absent:
        needs = _install(deps.KNOWN[absent[0]][1], deps.KNOWN[absent[0]][0])
    else:
        needs = ""
    return FormatState(
        kind=row.kind,
        title=row.title,
        framework=row.framework,
        targets=list(row.targets),
        works=not needs,
        needs=needs,
    )


def _install(extra: str, distribution: str) -> str:
    return f"pip install 'mnnprep[{extra}]'" if extra else f"pip install {distribution}"


def _converters(custom: str) -> list[Converter]:
    found = []
    with Scratch() as scratch, Host(scratch=scratch) as host:
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
        answer = host.run(
            worker.FRONTENDS, FrontendsJob(converter=executable), Frontends, timeout=TIMEOUT_SECONDS
        ).value
    except StepFailed as failure:
        return Converter(name=name, works=False, reason=failure.reason)
    return Converter(name=name, works=not answer.reason, frontends=answer.operators, reason=answer.reason)


def _advice(packages: list[Package], converters: list[Converter]) -> list[str]:
    lines = [
        f"{_install('', p.distribution)} (a core dependency is missing)"
        for p in packages
        if p.version is None and not p.extra
    ]
    purposes = {row.extra: f"to prepare {row.framework} models" for row in FORMATS if row.prepared}
    purposes["report"] = "to write report.html"
    if deps.installed("mnnprep.batch"):
        purposes["ray"] = "for batches on Ray"
    for extra in dict.fromkeys(p.extra for p in packages if p.version is None and p.extra):
        if extra in purposes:
            lines.append(f"{_install(extra, '')}, {purposes[extra]}")
    lines += [f"{c.name} does not work as a converter: {c.reason}" for c in converters if not c.works]
    if not any("TORCH" in c.frontends for c in converters):
        named = f"name it with --mnnconvert or {CONVERTER_VARIABLE}"
        lines.append(
            f"to convert TorchScript, build MNNConvert with MNN_BUILD_TORCH=ON and {named}; by way of ONNX,"
            " PyTorch needs none"
        )
    return lines
