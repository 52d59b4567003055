"""From a target to the worker that runs a model there, or why there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from mnnprep import deps
from mnnprep.errors import UsageError
from mnnprep.mnn.worker import RUNTIME
from mnnprep.model.target import EVERY, Target, host_machine
from mnnprep.targets.places import (
    EnvironmentRecord,
    engine_of,
    environments,
    read_record,
    root_of,
    version_key,
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
        if version == deps.version("MNN"):
            return RUNTIME
        require_engine(target, version)
        variables = (*RUNTIME.environment, ("PYTHONPATH", str(engine_of(arch, version) / "site")))
        return replace(RUNTIME, name=f"MNN {version}", environment=variables)
    if not emulator(arch):
        raise Unavailable(
            f"QEMU's user-mode emulator for {arch} is not installed: sudo apt-get install qemu-user-static"
        )
    if read_record(root_of(arch)) is None:
        raise Unavailable(f"there is no environment for {arch}: mnnprep target add {arch}")
    require_engine(target, version)
    interpreter = Interpreter(
        command=tuple(command_of(arch, target.cpu, foreign=True)),
        packages=str(engine_of(arch, version) / "site"),
        reads=(str(root_of(arch)),),
    )
    name = f"MNN {version} on {arch} {target.cpu or BEST_CPU}"
    return replace(RUNTIME, name=name, interpreter=interpreter)


def require_engine(target: Target, version: str) -> EnvironmentRecord:
    """The record of the engine of *version* for *target*.

    Raises:
        Unavailable: it was not added.
    """
    record = read_record(engine_of(target.machine, version))
    if record is None:
        raise Unavailable(
            f"MNN {version} for {target.machine} is not here:"
            f" mnnprep target add {target.machine},engine={version}"
        )
    return record


def command_of(arch: str, cpu: str, foreign: bool) -> list[str]:
    """The command of a Python for *arch*: this one, or with *foreign* that of the root, emulated on *cpu*."""
    record = read_record(root_of(arch)) if foreign else None
    if record is None:
        return [sys.executable]
    tree = root_of(arch) / "tree"
    return [emulator(arch), "-L", str(tree), "-cpu", cpu or BEST_CPU, str(tree / record.interpreter)]


def expand(targets: Iterable[Target]) -> tuple[Target, ...]:
    """*targets* with each engine that is here in place of "every"; the oldest first.

    Raises:
        UsageError: every engine is asked for, and none was added.
    """
    found: list[Target] = []
    for target in targets:
        if target.engine != EVERY:
            found.append(target)
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
