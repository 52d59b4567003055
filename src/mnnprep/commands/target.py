"""`target`: the environments in which models are run on other machines: make, list, remove them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mnnprep.errors import UsageError
from mnnprep.model.target import Target, parse_targets
from mnnprep.targets import adding
from mnnprep.targets.environment import Unavailable, worker_of
from mnnprep.targets.places import EnvironmentRecord, environments
from mnnprep.text import Progress


class EnvironmentState(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that is here: what it is, where it lies, how large it is in bytes.

    ``works`` if a model can be run in it; else ``needs`` says what is missing. A root alone runs none.
    """

    arch: str
    engine: str
    python: str
    origin: str
    path: str
    size: int
    works: bool
    needs: str = ""


class Environments(msgspec.Struct, frozen=True, kw_only=True):
    """The environments that are here."""

    environments: list[EnvironmentState]


def add(
    texts: Sequence[str],
    *,
    rootfs: str = "",
    given: str = "",
    mirror: str = "",
    tell: Progress = lambda _: None,
) -> list[EnvironmentRecord]:
    """Make the environments that the targets *texts* need, as :func:`mnnprep.targets.adding.add`.

    Raises:
        UsageError: a target can't be read, or needs none.
        RefusedError: something can't be had.
    """
    if given and not Path(given).is_dir():
        raise UsageError(
            "--from names no directory",
            seen=given,
            next="give a copy of the directory that `mnnprep target list` names on another machine",
        )
    made: list[EnvironmentRecord] = []
    for target in _lacking(texts):
        made += adding.add(
            target,
            rootfs=Path(rootfs) if rootfs else None,
            given=Path(given) if given else None,
            mirror=mirror,
            tell=tell,
        )
    return made


def remove(texts: Sequence[str]) -> list[Path]:
    """Remove the environments of the targets *texts*; returns where they were.

    Raises:
        UsageError: a target can't be read, or has none here.
    """
    return [path for target in _places(texts) for path in adding.remove(target)]


def listed() -> Environments:
    """Every environment that is here."""
    return Environments(environments=[_state(path, record) for path, record in environments()])


def _places(texts: Sequence[str]) -> list[Target]:
    """The targets of *texts* by what their environments differ in: architecture and engine."""
    found = parse_targets(texts)
    return list(dict.fromkeys(Target(arch=target.arch, engine=target.engine) for target in found))


def _lacking(texts: Sequence[str]) -> list[Target]:
    """The targets of *texts* by what their environments differ in, without those that need none.

    Another CPU of this machine's architecture is emulated, as a foreign one is. If none needs anything, all.
    """
    found = dict.fromkeys(
        Target(arch=target.arch, engine=target.engine, cpu=target.cpu if target.native else "")
        for target in parse_targets(texts)
    )
    return [target for target in found if not adding.runs_here(target)] or list(found)


def _state(path: Path, record: EnvironmentRecord) -> EnvironmentState:
    needs = ""
    if record.engine:
        try:
            worker_of(Target(arch=record.arch, engine=record.engine))
        except Unavailable as error:
            needs = str(error)
    return EnvironmentState(
        arch=record.arch,
        engine=record.engine,
        python=record.python,
        origin=record.origin,
        path=str(path),
        size=sum(file.lstat().st_size for file in path.rglob("*")),
        works=bool(record.engine) and not needs,
        needs=needs,
    )
