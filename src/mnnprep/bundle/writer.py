"""Writing a bundle: made whole in a directory beside the target, then put in its place in one step.

Whoever looks at the target sees the old bundle or the new one, never half of one; an interrupt, an error or a
kill leaves what was there before, or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from mnnprep import deps
from mnnprep.bundle import manifest as manifests
from mnnprep.bundle import report
from mnnprep.bundle.manifest import BundleFile, Manifest, SignatureRecord, TensorRecord
from mnnprep.errors import InternalError, SystemFault, UsageError
from mnnprep.model.files import Arrays, FileRef, atomic_write, sha256
from mnnprep.safety.faults import naming
from mnnprep.safety.leftovers import beside, claimed, put_right
from mnnprep.safety.renames import exchange, rename_to_new

TEST_DIRECTORY = "mnn-test"
SCHEMA_FAMILY = "mnnprep.bundle/"
LARGEST_TEXT = 1 << 21  # numbers: more are slow to write and to read, and the case itself is in `cases`
UNLISTED = frozenset(
    {manifests.FILE_NAME, report.FILE_NAME}
)  # a manifest can't hold its own hash, nor a report that shows it


def check_target(target: Path, force: bool = False) -> None:
    """Whether a bundle may be written at *target*; to be asked before any work is done.

    It may where nothing is, in an empty directory, and with *force* in place of a bundle.  Missing
    parents are made by :func:`stage`.

    Raises:
        UsageError: it is a file, a directory that is neither empty nor a bundle (also with *force*), a
            bundle without *force*, the current directory or one above it, or a mount point.
        SystemFault: nothing can be written beside it.
    """
    seen, real = str(target), Path(os.path.realpath(target))
    elsewhere = "give a directory that does not exist yet, for example -o out"
    if real.exists() and not real.is_dir():
        raise UsageError("the target exists and is not a directory", seen=seen, next=elsewhere)
    if real == Path.cwd() or real in Path.cwd().parents:
        raise UsageError(
            "the target is the current directory or one above it, which can't be replaced",
            seen=seen,
            next=elsewhere,
        )
    if os.path.ismount(real):
        inside = f"give a directory in it, for example -o {target / 'bundle'}"
        raise UsageError("the target is a mount point, which can't be replaced", seen=seen, next=inside)
    anchor = next(p for p in real.parents if p.exists())
    if not anchor.is_dir():
        raise UsageError(
            "the target's directory can't be written to",
            seen=f"{target}: {anchor} is a file",
            next="give another directory",
        )
    if not os.access(anchor, os.W_OK | os.X_OK):
        where = f"{target}: no right to write in {anchor}"
        raise SystemFault(
            "the target's directory can't be written to", seen=where, next="give another directory"
        )
    if not real.is_dir():
        return
    try:
        empty = not any(real.iterdir())
    except OSError as error:
        raise UsageError(
            "the target can't be read", seen=f"{target}: {error.strerror}", next=elsewhere
        ) from error
    if empty:
        return
    if not is_bundle(real):
        raise UsageError(
            "the target is a directory that is not empty and not a bundle; it is never replaced",
            seen=seen,
            next=elsewhere,
        )
    if not force:
        raise UsageError(
            "the target is already a bundle",
            seen=seen,
            next="replace it with --force, or give another directory",
        )


def require_free(target: Path) -> None:
    """Require that nothing is at *target*: what is written there never replaces anything.

    Raises:
        UsageError: something is there.
        SystemFault: as for :func:`check_target`.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(
            "the target of -o exists", seen=str(target), next="give a directory that does not exist yet"
        )
    check_target(target)


def is_bundle(directory: Path) -> bool:
    """Whether *directory* holds a manifest of a bundle, of any version of the schema."""
    try:
        data = msgspec.json.decode((directory / manifests.FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and str(data.get("schema", "")).startswith(SCHEMA_FAMILY)


@contextmanager
def claim(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Within, no other run may write *target*; its path without links.

    What killed runs left of it is put right first; parents that are missing are made, and taken away again
    if nothing was written.  For the whole of a run: a second one then says before its work that it has no
    place, and not after.

    Raises:
        UsageError: another run is writing it, or see :func:`check_target`.
    """
    check_target(target, force=force)
    real = Path(os.path.realpath(target))
    made = _make_parents(real.parent)
    try:
        with claimed(real):
            check_target(target, force=force)
            yield real
    finally:
        for parent in reversed(made):
            with suppress(OSError):  # not empty
                parent.rmdir()


@contextmanager
def stage(target: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty directory beside *target* that takes its place when the block is left without an error.

    Its files are synced first; it and an old bundle change places in one step, and the old one is deleted.
    Whatever is raised inside the block, an interrupt too, leaves the target as it was; whatever is raised
    while renaming leaves the old bundle or the new one; and nothing beside it.

    Raises:
        UsageError: see :func:`claim`, which is asked before the block unless the caller did, and
        :func:`check_target`, after it.
    """
    with claim(target, force=force) as real:
        try:
            staged = Path(tempfile.mkdtemp(prefix=beside(real), suffix=".new", dir=real.parent))
            with naming(target):
                yield staged
                staged.chmod(0o777 & ~_umask())
                _sync_tree(staged)
            check_target(target, force=force)
            _swap(staged, real)
        finally:
            put_right(real)


def _make_parents(directory: Path) -> list[Path]:
    """Make *directory* and what is missing above it; what was made, topmost first."""
    missing = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "the target's directory can't be made",
            seen=f"{directory}: {error.strerror}",
            next="give another directory",
        ) from error
    return missing[::-1]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_tree(directory: Path) -> None:
    """Bring every file and directory name below *directory* to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(os.path.join(folder, name))
        _sync(folder)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(staged: Path, target: Path) -> None:
    """Give *staged* the name *target*; an old bundle there gets the name of *staged*."""
    if target.is_dir() and any(target.iterdir()):
        exchange(staged, target, staged.with_suffix(".old"))
    else:
        try:
            rename_to_new(staged, target)
        except OSError as error:
            if error.errno in (
                errno.EEXIST,
                errno.ENOTEMPTY,
                errno.ENOTDIR,
            ):  # something has appeared there since it was asked for
                check_target(target)
            raise
    _sync(target.parent)


def add_file(staged: Path, path: str, file: FileRef) -> BundleFile:
    """Put *file*, which nobody writes to any more, into a staged bundle as *path*.

    The path is relative, with ``/`` between its parts.

    Raises:
        InternalError: a path that leaves the bundle or is there already.
    """
    target = staged / _inside(path)
    if target.exists():
        raise InternalError("a bundle was given the same file twice", seen=path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(
            file.path, target
        )  # nothing is copied where the run's scratch, which goes away, is on the same disk
        target.chmod(0o666 & ~_umask())
    except OSError:
        shutil.copyfile(file.path, target)
    return BundleFile(path, file.sha256, file.size)


def _inside(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise InternalError("a bundle was given a file outside itself", seen=path)
    return pure


def finish(staged: Path, manifest: Manifest) -> Manifest:
    """Complete a staged bundle: list its files, write ``manifest.json`` and ``report.html``.

    ``files`` of the manifest returned are all that are there but those two, by path.  The report needs
    jinja2 (extra ``report``); without it the bundle has none.

    Raises:
        InternalError: the artifact, the MNN model or a case is not there with the bytes the manifest says.
    """
    paths = sorted(p for p in staged.rglob("*") if p.is_file())
    names = [p.relative_to(staged).as_posix() for p in paths]
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(sha256, paths)
        pool.map(
            _sync, paths
        )  # the disk's time beside the processor's; :func:`stage` syncs what is still to come
        found = {
            n: BundleFile(n, digest, p.stat().st_size)
            for n, digest, p in zip(names, hashes, paths, strict=True)
        }
    named = [
        *manifest.artifact.files,
        *([manifest.mnn] if manifest.mnn else []),
        *(BundleFile(c.path, c.sha256, c.size) for c in manifest.cases),
    ]
    for file in named:
        if found.get(file.path) != file:
            raise InternalError("a file of the bundle does not match its manifest", seen=file.path)
    complete = msgspec.structs.replace(
        manifest, files=[file for name, file in found.items() if name not in UNLISTED]
    )
    if deps.installed("jinja2"):
        with atomic_write(staged / report.FILE_NAME) as page:
            page.write(report.page_bytes(complete))
    with atomic_write(staged / manifests.FILE_NAME) as file_:
        file_.write(complete.to_bytes())
    return complete


def write_mnn_test(directory: Path, arrays: Arrays, signature: SignatureRecord) -> str:
    """Write one case in the layout that ``MNNConvert --testdir`` reads; why it could not be, else empty.

    ``input.json`` names the inputs with their shapes, and the outputs; ``NAME.txt`` holds an array's
    elements in C order, one a line, by the name in MNN.  MNNConvert opens ``DIR/NAME.txt`` by the
    name as it is, so a ``/`` makes a subdirectory and ``:`` stays, as in MNN's own scripts
    (tools/script/testMNNFromOnnx.py).  A name that would leave *directory*, or two that share a file
    but not their values, can't be laid out, and more than LARGEST_TEXT numbers are not: nothing is written
    then.

    *arrays* are a case's: ``inputs/NAME`` and ``outputs/NAME`` by the signature's names.  Floats are
    printed with as many digits as their float64 value needs to be read back exactly; booleans as 0 and 1.
    """
    elements = sum(array.size for array in arrays.values())
    if elements > LARGEST_TEXT:
        return f"{elements} numbers as text are left out"
    texts: dict[PurePosixPath, str] = {}
    for role, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        for tensor in tensors:
            try:
                path = _inside(tensor.mnn_name.lstrip("/") + ".txt")
            except InternalError:
                return f"the name {tensor.mnn_name!r} can't be a file name"
            text = _text(arrays[f"{role}/{tensor.name}"])
            if texts.setdefault(path, text) != text:
                return f"two arrays would both be {path}"
    if any(parent in texts for path in texts for parent in path.parents):
        return "one name would be both a file and a directory"
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, encoding="ascii")
    inputs = [{"name": t.mnn_name, "shape": _shape(arrays, t)} for t in signature.inputs]
    layout = {"inputs": inputs, "outputs": [t.mnn_name for t in signature.outputs]}
    (directory / "input.json").write_text(
        json.dumps(layout, indent=4, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return ""


def _shape(arrays: Arrays, tensor: TensorRecord) -> list[int]:
    return list(arrays[f"inputs/{tensor.name}"].shape)


def _text(array: np.ndarray) -> str:
    values = (array.astype(np.uint8) if array.dtype == np.bool_ else array).ravel().tolist()
    if np.isfinite(array).all():  # as many digits as repr gives, four times as fast; JSON has no infinity
        lines = msgspec.json.encode(values)[1:-1].replace(b",", b"\n").decode()
    else:
        lines = "\n".join(map(repr, values))
    return lines + "\n" * bool(values)
