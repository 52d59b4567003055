"""The kind of a source, and what can be said of it before anything is loaded."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep.bundle.manifest import NamedFile
from mnnprep.commands.reading import for_reading, kind_aside, read_aside, require_text
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats import sniff
from mnnprep.formats.backend import Option, Role, SourceKind
from mnnprep.formats.factory import factory_kind, looks_like_factory
from mnnprep.formats.registry import kind_of, steps_of
from mnnprep.formats.sniff import require_there
from mnnprep.formats.torch_files import pickle_globals
from mnnprep.model.files import sha256
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.model.reach import ReadPath
from mnnprep.model.request import Limits, Request
from mnnprep.safety.beside import require_beside
from mnnprep.safety.damage import reading
from mnnprep.safety.printable import as_text
from mnnprep.workers.step import Step, reader


def resolve(request: Request) -> Source:
    """The source, its kind decided by its content.

    Raises:
        UsageError: a missing path, weights without a factory.
        RefusedError: a file that can't be taken, code that would need ``--trust``, a missing extra.
    """
    source = _factory(request) if looks_like_factory(request.source) else _file(request)
    kind = kind_of(source.kind)
    for module in steps_of(source.kind).worker.packages:
        if not deps.installed(module):
            raise deps.missing(module)
    if request.signature and Option.SIGNATURE not in kind.options:
        raise UsageError("--signature goes with a SavedModel", seen=kind.title, next="leave it out")
    if request.outputs and Option.OUTPUTS not in kind.options:
        raise UsageError(
            "--outputs goes with a graph or a TF1 checkpoint",
            seen=kind.title,
            next="leave it out: this source names its outputs",
        )
    if source.weights and Option.STATE_DICT in kind.options:
        _check_weights(Path(source.weights), request.limits)
    elif request.factory_args and kind.role is not Role.FACTORY:
        raise UsageError(
            "--factory-arg goes with a factory",
            seen=kind.title,
            next="leave it out, or give file.py:callable as the source",
        )
    return source


def _factory(request: Request) -> Source:
    place, _, name = request.source.rpartition(":")
    search = [os.getcwd(), *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
    if place.endswith(".py"):
        path = Path(place).absolute()
        if not path.is_file():
            raise UsageError(
                "there is no file at the factory's path",
                seen=place,
                next="give file.py:callable or package.module:callable",
            )
        place = str(path)
    elif not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(
            "there is nothing at this path, and it is not a factory",
            seen=request.source,
            next="give a file, or file.py:callable, or package.module:callable",
        )
    elif not _top_level_exists(place.partition(".")[0], search):
        raise UsageError(
            f"there is no module {place.partition('.')[0]} to import",
            seen=request.source,
            next="run where it can be imported, or give file.py:callable",
        )
    weights = str(Path(request.weights).absolute()) if request.weights else ""
    return Source(
        kind=factory_kind(place, search),
        path=f"{place}:{name}",
        weights=weights,
        factory_args=request.factory_args,
        search_path=search,
        trust=request.trust,
    )


def _top_level_exists(name: str, search: list[str]) -> bool:
    if name == "__main__":  # this program's own, not the user's
        return False
    if importlib.util.find_spec(name) is not None:
        return True
    finder = importlib.machinery.PathFinder
    return finder.find_spec(name, search) is not None


def _file(request: Request) -> Source:
    path = Path(request.source).absolute()
    if path.suffix == ".py" and path.is_file():
        raise UsageError(
            "a Python file alone is not a model",
            seen=path.name,
            next=f"name the callable in it that returns the model: {path.name}:callable",
        )
    require_there(path)
    job = FileJob(
        path=str(path),
        directory=str(path.parent),
        weights=os.path.abspath(request.weights) if request.weights else "",
        wants=request.wants,
        trust=request.trust,
        signature=request.signature,
        outputs=request.outputs,
    )
    source = read_aside(READ, job, path, for_reading(request.limits))
    require_text(path)
    search = [os.getcwd(), *(p for p in sys.path if p)] if kind_of(source.kind).runs_code else []
    return msgspec.structs.replace(source, search_path=search)


class FileJob(msgspec.Struct, frozen=True, kw_only=True):
    """The part of :class:`Request` about a source that is a file or a directory; ``path`` is absolute."""

    path: ReadPath
    directory: ReadPath  # where the other file of a pair is looked for
    weights: ReadPath
    wants: InputSpecs
    trust: bool
    signature: str
    outputs: tuple[str, ...]


def read_source(job: FileJob) -> Source:
    """The step that reads a file as far as is needed to know what it is, and that it can be taken.

    Raises as :func:`resolve`.
    """
    path = Path(job.path)
    kind = kind_of(sniff.identify(path))
    if kind.role is Role.WEIGHTS:
        raise UsageError(
            "this file holds weights only, without a model",
            seen=f"{path.name}: {kind.title}",
            next=(
                "give the code that builds the model, and this file as its weights: mnnprep prepare"
                f" file.py:callable --weights {path.name} -o DIR"
            ),
        )
    with reading(path, kind.title):
        return _taken(path, kind, job)


READ = Step.of(read_source, reader(__name__))


def _taken(path: Path, kind: SourceKind, job: FileJob) -> Source:
    if kind.require_loadable:
        kind.require_loadable(path)
    if not kind.prepared:
        raise RefusedError(
            f"this version does not prepare a {kind.title}",
            seen=path.name,
            next="export the model to ONNX and prepare that",
        )
    if kind.complete:
        name, first, second = kind.complete(str(path), kind.name, job.weights, job.wants)
        return Source(kind=name, path=first, weights=second, trust=job.trust)
    if job.weights:
        raise UsageError(
            "--weights goes with a factory",
            seen=f"{path.name}: {kind.title}",
            next="leave --weights out: this file has its own",
        )
    if kind.runs_code and not job.trust:
        imports = _shown_imports(pickle_globals(path))
        raise RefusedError(
            "this file is a pickled module: loading it executes code that it names",
            seen=f"it would import and call {imports}",
            next="pass --trust if you trust where it comes from, or give a factory and a state dict",
        )
    if kind.judge and not job.trust:
        kind.judge(path, kind.name)
    beside = kind.refers_to(path) if kind.refers_to else []
    require_beside(path, map(Path, beside))
    return Source(
        kind=kind.name,
        path=str(path),
        trust=job.trust,
        signature=job.signature,
        outputs=job.outputs,
        beside=beside,
    )


def _shown_imports(names: list[str]) -> str:
    """The names in short, those of no well-known package first: what is dangerous must not drown."""
    ordered = sorted(names, key=lambda name: name.partition(".")[0] in ("torch", "collections", "numpy"))
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")


def _check_weights(path: Path, limits: Limits) -> None:
    """Say what is wrong with a weights file before a framework is started."""
    if path.is_dir() or path.name.endswith(".index.json"):
        return
    require_there(path)
    kind = kind_of(kind_aside(path, limits))
    if kind.role is not Role.WEIGHTS and not kind.runs_code:
        raise UsageError(
            "--weights does not name a checkpoint",
            seen=f"{path.name}: {kind.title}",
            next="give a state dict, a checkpoint or a safetensors file",
        )


def source_files(source: Source) -> list[NamedFile]:
    """The source's files by role, each with its own name and hash."""
    role = kind_of(source.kind).role
    if role is Role.LIVE:
        return []
    if role is Role.FACTORY:
        files = _named("factory", Path(source.path.rpartition(":")[0]))
    else:
        files = _named("source", Path(source.path))
    return files + (_named("weights", Path(source.weights)) if source.weights else [])


def _named(role: str, path: Path) -> list[NamedFile]:
    """The file at *path*, or all files of the directory, as those of *role*; none if nothing is there."""
    if not path.exists():
        return []
    whole = path.is_dir()
    members = sorted(p for p in path.rglob("*") if p.is_file()) if whole else [path]
    return [
        NamedFile(
            as_text(f"{role}/{member.relative_to(path).as_posix()}" if whole else role),
            sha256(member),
            member.stat().st_size,
            as_text(member.name),
        )
        for member in members
    ]


def private_modules(source: Source) -> list[str]:
    """The top-level modules of the user's that an artifact must do without."""
    if kind_of(source.kind).role is Role.FACTORY:
        place = source.path.rpartition(":")[0]
        return [Path(place).stem if place.endswith(".py") else place.partition(".")[0]]
    return []
