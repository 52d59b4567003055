"""The files of a bundle as its manifest has them, each refused where it was changed."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from mnnprep.bundle.manifest import Manifest
from mnnprep.errors import RefusedError
from mnnprep.model.files import Arrays, FileRef, load_arrays, sha256
from mnnprep.model.messages import CaseFile


class IntactFiles:
    """The files that the manifest of a bundle names.

    Every method raises RefusedError where a file leads out of the bundle, or has other bytes than recorded.
    """

    def __init__(self, bundle: Path, manifest: Manifest) -> None:
        self._root = bundle.resolve()
        self._manifest = manifest
        files = [*manifest.artifact.files, *manifest.files, *([manifest.mnn] if manifest.mnn else [])]
        self._hashes = {f.path: f.sha256 for f in files} | {c.path: c.sha256 for c in manifest.cases}

    def path(self, name: str) -> Path:
        """Where the file *name* is."""
        require_plain(name)
        path = self._root / name
        if not path.resolve().is_relative_to(self._root):
            raise _outside(name)
        if not path.is_file() or sha256(path) != self._hashes[name]:
            raise RefusedError(
                "a file of the bundle does not match its manifest",
                seen=name,
                next="prepare the model again, or restore the bundle",
            )
        return path

    def artifact(self) -> str:
        """The path of the artifact's first file; the others have been looked at, too."""
        first, *_ = [self.path(file.path) for file in self._manifest.artifact.files]
        return str(first)

    def cases(self, chosen: int | None) -> list[CaseFile]:
        """The stored cases, or the *chosen* one alone."""
        return [
            CaseFile(
                index=index,
                origin=case.origin,
                dims=case.dims,
                file=FileRef(str(self.path(case.path)), case.sha256, case.size),
            )
            for index, case in enumerate(self._manifest.cases)
            if chosen in (None, index)
        ]

    def arrays(self, index: int) -> Arrays:
        """The arrays of the stored case *index*, whose bytes were compared with the manifest before."""
        name = self._manifest.cases[index].path
        try:
            _require_uncompressed(self._root / name)
            return load_arrays(self._root / name)
        except Exception as error:  # numpy and zipfile raise many kinds for bytes that are no .npz
            raise RefusedError(
                "a case of the bundle could not be read as arrays",
                seen=f"{name}: {error}",
                next="prepare the model again",
            ) from error


def require_plain(name: str) -> None:
    """Require that *name* is the one way to write a path inside the bundle.

    Raises:
        RefusedError: it leads outside, or is written in another way.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\0" in name or not path.parts:
        raise _outside(name)


def _outside(name: str) -> RefusedError:
    return RefusedError(
        "the bundle's manifest names a file outside the bundle", seen=name, next="prepare the model again"
    )


def _require_uncompressed(path: Path) -> None:
    """Require that an archive unfolds to no more than its own size, as those of a bundle do.

    Raises:
        ValueError: it unfolds to more.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members)
        or sum(m.file_size for m in members) > path.stat().st_size
    ):
        raise ValueError("it is compressed")
