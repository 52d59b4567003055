"""From a target to the worker that runs a model there, or why there is none."""

from __future__ import annotations

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
        _require_engine(arch, version)
        variables = (*RUNTIME.environment, ("PYTHONPATH", str(engine_of(arch, version) / "site")))
        return replace(RUNTIME, name=f"MNN {version}", environment=variables)
    if not emulator(arch):
        raise Unavailable(
            f"QEMU's user-mode emulator for {arch} is not installed: sudo apt-get install qemu-user-static"
        )
    root = read_record(root_of(arch))
    if root is None:
        raise Unavailable(f"there is no environment for {arch}: mnnprep target add {arch}")
    _require_engine(arch, version)
    interpreter = Interpreter(
        command=tuple(emulated(root, target.cpu)),
        packages=str(engine_of(arch, version) / "site"),
        reads=(str(root_of(arch)),),
    )
    name = f"MNN {version} on {arch} {target.cpu or BEST_CPU}"
    return replace(RUNTIME, name=name, interpreter=interpreter)


def _require_engine(arch: str, version: str) -> None:
    if read_record(engine_of(arch, version)) is None:
        raise Unavailable(f"MNN {version} for {arch} is not here: mnnprep target add {arch},engine={version}")


def emulated(root: EnvironmentRecord, cpu: str = BEST_CPU) -> list[str]:
    """The command of the Python of *root*, emulated on *cpu* (empty: the best there is)."""
    tree = root_of(root.arch) / "tree"
    return [emulator(root.arch), "-L", str(tree), "-cpu", cpu or BEST_CPU, str(tree / root.interpreter)]


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
