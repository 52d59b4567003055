"""The files of a bundle: those that the manifest names, byte by byte, and no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.bundle import report
from mnnprep.bundle.intact import require_plain
from mnnprep.bundle.manifest import FILE_NAME, SIGNATURE_NAME, BundleFile, Manifest
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.model.files import sha256
from mnnprep.safety.printable import as_text

SHOWN = 5
UNLISTED = (
    FILE_NAME,
    report.FILE_NAME,
    SIGNATURE_NAME,
)  # what stands beside the files that the manifest names


def named_files(manifest: Manifest) -> list[BundleFile]:
    """Every file that the manifest names, as often as it names it with another hash.

    Raises:
        RefusedError: a path that is not plainly one inside the bundle.
    """
    cases = [BundleFile(c.path, c.sha256, c.size) for c in manifest.cases]
    files = [*manifest.artifact.files, *([manifest.mnn] if manifest.mnn else []), *cases, *manifest.files]
    for file in files:
        require_plain(file.path)
    return list(dict.fromkeys(files))


def hashes(bundle: Path, manifest: Manifest) -> Check:
    """Make the ``hashes`` check.

    Each file named is there, a regular file in its place with its bytes, and there is no other.

    Raises:
        RefusedError: the manifest, or a link in place of a file, leads out of the bundle.
    """
    root = bundle.resolve()
    files = named_files(manifest)
    wrong = {name: "is not a regular file" for name in (FILE_NAME,) if (bundle / name).is_symlink()}
    for file in files:
        path = bundle / file.path
        if not path.resolve().is_relative_to(root):
            raise RefusedError(
                "a file of the bundle leads outside the bundle",
                seen=file.path,
                next="get the bundle from where it was made",
            )
        if not path.exists():
            wrong[file.path] = "is missing"
        elif path.is_symlink() or not path.is_file():
            wrong[file.path] = "is not a regular file"
        elif path.stat().st_size != file.size or sha256(path) != file.sha256:
            wrong[file.path] = "has other bytes than the manifest says"
    listed = {f.path for f in files}
    wrong |= {
        name: "is not in the manifest"
        for name in present(bundle)
        if name not in listed and name not in UNLISTED
    }
    if wrong:
        told = "; ".join(f"{name} {what}" for name, what in list(wrong.items())[:SHOWN])
        return catalog.HASHES.failed(
            told + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""),
            subject=next(iter(wrong)),
        )
    return catalog.HASHES.passed(numbers={"files": len(listed)})


def present(bundle: Path) -> Iterator[str]:
    """List the bundle's content but for its own directories: files and links, whatever they lead to."""
    for folder, folders, names in os.walk(bundle):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*names, *links]):
            yield as_text(Path(folder, name).relative_to(bundle).as_posix())


def report_check(bundle: Path, manifest: Manifest) -> Check:
    """Make the ``report`` check: the page is the one that the manifest gives.

    It is not run if that can't be told, or if there is none.
    """
    page = bundle / report.FILE_NAME
    again = "`mnnprep report` writes it again"
    if page.is_symlink() or (page.exists() and not page.is_file()):
        return catalog.REPORT.failed(f"{report.FILE_NAME} is not a regular file; {again}")
    if not page.exists():
        return catalog.REPORT.not_run(f"there is no {report.FILE_NAME}; {again}", required=False)
    if not deps.installed("jinja2"):
        return catalog.REPORT.not_run(
            f"jinja2 is needed to compare the page: {deps.missing('jinja2').next}", required=False
        )
    made_by = manifest.tools.get("mnnprep", "")
    if made_by != __version__:
        words = (
            f"the page was made by mnnprep {made_by or 'of an unknown version'}, and {__version__} makes"
            f" another; {again}"
        )
        return catalog.REPORT.not_run(words, required=False)
    if page.read_bytes() != report.page_bytes(manifest):
        return catalog.REPORT.failed(f"{report.FILE_NAME} is not the page that the manifest gives; {again}")
    return catalog.REPORT.passed()
