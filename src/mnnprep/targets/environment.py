"""From a target to the worker that runs a model there, or why there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from mnnprep import deps
from mnnprep.errors import RefusedError, UsageError
from mnnprep.mnn.worker import CONVERTER, RUNTIME
from mnnprep.model.target import EVERY, Target, host_machine, version_key
from mnnprep.targets.places import (
    EnvironmentRecord,
    engine_of,
    environments,
    read_record,
    root_of,
)
from mnnprep.targets.tools import emulator
from mnnprep.workers.step import Interpreter, Worker

PROBE_IMPORTS = ("numpy", "msgspec", "psutil", "ml_dtypes", "MNN", "MNN.nn", "MNN.expr", "ctypes", "json")
BEST_CPU = "max"  # QEMU's name of a CPU with every instruction that it knows


class Unavailable(Exception):
    """Why a target can't run here, with the command that mends it; one line."""


def worker_of(target: Target) -> Worker:
    """The worker that holds MNN's runtime on *target*.

    Raises:
        Unavailable: something is missing.
        RefusedError: an environment's record is damaged.
    """
    version = target.engine or deps.version("MNN") or ""
    arch = target.machine
    if target.native and not target.cpu:
        return with_engine(RUNTIME, target.engine)
    if not emulator(arch):
        raise Unavailable(
            f"QEMU's user-mode emulator for {arch} is not installed: sudo apt-get install qemu-user-static"
        )
    root = read_record(root_of(arch))
    name = f"{arch},cpu={target.cpu}" if target.native else arch  # as it is, this machine needs nothing
    if root is None:
        raise Unavailable(f"there is no environment for {arch}: mnnprep target add {name}")
    _require_engine(arch, version, root.python, name)
    interpreter = Interpreter(
        command=tuple(emulated(root, target.cpu)),
        packages=str(engine_of(arch, version) / "site"),
        reads=(str(root_of(arch)),),
    )
    name = f"MNN {version} on {arch} {target.cpu or BEST_CPU}"
    return replace(RUNTIME, name=name, interpreter=interpreter)


def engine_workers(version: str) -> dict[Worker, Worker]:
    """Which workers stand in for those of the installed MNN, so that *version* of it converts and runs.

    None do if *version* is empty.

    Raises:
        RefusedError: this version is not here.
    """
    if not version:
        return {}
    try:
        return {worker: with_engine(worker, version) for worker in (CONVERTER, RUNTIME)}
    except Unavailable as error:
        raise RefusedError(
            "this version of MNN is not here", seen=version, next=str(error).partition(": ")[2]
        ) from error


def with_engine(worker: Worker, version: str) -> Worker:
    """*worker* on this machine with MNN of *version*, apart from other versions; empty: as it is.

    Raises:
        Unavailable: this version is not here.
    """
    if not version:
        return worker
    named = replace(worker, name=worker.name.replace("MNN", f"MNN {version}", 1))
    if version == deps.version("MNN"):
        return named
    arch = host_machine()
    _require_engine(arch, version, f"{sys.version_info.major}.{sys.version_info.minor}", arch)
    variables = (*worker.environment, ("PYTHONPATH", str(engine_of(arch, version) / "site")))
    return replace(named, environment=variables)


def _require_engine(arch: str, version: str, python: str, adding: str) -> None:
    """Require MNN of *version* for *arch* and *python*; `target add` calls it *adding*."""
    found = read_record(engine_of(arch, version))
    name = f"{adding},engine={version}"
    if found is None:
        raise Unavailable(f"MNN {version} for {arch} is not here: mnnprep target add {name}")
    if found.python != python:  # an emulated CPU of this machine's architecture has a Python of its own
        raise Unavailable(
            f"MNN {version} for {arch} is here for Python {found.python}, not {python}: mnnprep target remove"
            f" {name}, then add it again"
        )


def emulated(root: EnvironmentRecord, cpu: str = BEST_CPU) -> list[str]:
    """The command of the Python of *root*, emulated on *cpu* (empty: the best there is)."""
    tree = root_of(root.arch) / "tree"
    return [emulator(root.arch), "-L", str(tree), "-cpu", cpu or BEST_CPU, str(tree / root.interpreter)]


def expand(targets: Iterable[Target], engine: str = "") -> tuple[Target, ...]:
    """*targets* with each engine that is here in place of "every"; the oldest first.

    Those that name none have *engine*; empty: the installed one.

    Raises:
        UsageError: every engine is asked for, and none was added.
    """
    found: list[Target] = []
    for target in targets:
        if target.engine != EVERY:
            default = "" if target.remote else engine
            found.append(msgspec.structs.replace(target, engine=target.engine or default))
            continue
        versions = {r.engine for _, r in environments() if r.arch == target.machine and r.engine}
        if not versions:
            raise UsageError(
                "no other engine is here to run the model on",
                seen=f"engine={EVERY}",
                next=f"mnnprep target add {'engines' if target.machine == host_machine() else target}",
            )
        if target.native and (mine := deps.version("MNN")):
            versions.add(mine)
        found += [
            msgspec.structs.replace(target, engine=version) for version in sorted(versions, key=version_key)
        ]
    return tuple(dict.fromkeys(found))
