"""The files of a bundle as its manifest has them, each refused where it was changed."""

from __future__ import annotations

from pathlib import Path

from mnnprep.bundle.manifest import Manifest
from mnnprep.errors import RefusedError
from mnnprep.model.files import FileRef, sha256
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
        path = self._root / name
        if not path.resolve().is_relative_to(self._root):
            raise RefusedError(
                "the bundle's manifest names a file outside the bundle",
                seen=name,
                next="prepare the model again",
            )
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
