"""`kit`: what runs a bundle's model and cases on a device, so that the device can be proven, too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import msgspec

import mnnprep.targets as package
from mnnprep.bundle import writer
from mnnprep.bundle.manifest import FILE_NAME, Manifest, read_manifest
from mnnprep.commands.verify import audited, mnn_job
from mnnprep.errors import RefusedError
from mnnprep.evidence.check import Status
from mnnprep.model.files import load_arrays, sha256
from mnnprep.targets.kit import write_cpp, write_kit

PROGRAM = "program"
README = "README.md"


class Kit(msgspec.Struct, frozen=True, kw_only=True):
    """A kit that was written: its ``directory``, the number of ``cases``, its ``files`` with their sizes.

    ``skipped`` says which cases have no form as text for MNN's own tools, with the reason.
    """

    directory: str
    cases: int
    files: dict[str, int]
    skipped: dict[str, str]


def kit(bundle: Path, output: Path) -> Kit:
    """Write the kit of *bundle* to the new directory *output*, which appears only when whole.

    It holds the converted model, the cases' inputs, a C++ and a Python program that run them, the cases as
    text for MNN's own tools, and ``README.md``. The same bundle gives the same bytes.

    Raises:
        UsageError: there is no bundle, or something is at *output*.
        RefusedError: the bundle is not as its manifest says, or has no converted model or no cases.
    """
    manifest = read_manifest(bundle)
    writer.require_free(output)
    _require_sound(bundle, manifest)
    with writer.stage(output) as directory:
        write_kit(directory, mnn_job(bundle, manifest, directory), sha256(bundle / FILE_NAME))
        write_cpp(directory / PROGRAM)
        skipped = dict(_write_texts(directory / writer.TEST_DIRECTORY, bundle, manifest))
        page = resources.files(package).joinpath(PROGRAM, README).read_text(encoding="utf-8")
        (directory / README).write_text(page, encoding="utf-8", newline="\n")
        files = {
            p.relative_to(directory).as_posix(): p.stat().st_size
            for p in sorted(directory.rglob("*"))
            if p.is_file()
        }
    return Kit(directory=str(output), cases=len(manifest.cases), files=files, skipped=skipped)


def _require_sound(bundle: Path, manifest: Manifest) -> None:
    bad = [c for c in audited(bundle, manifest) if c.status is Status.FAILED]
    if bad:
        raise RefusedError(
            "the bundle does not match its manifest, so no kit was written",
            seen="; ".join(f"{c.check}: {c.reason}" for c in bad),
            next=f"see mnnprep verify {shlex.quote(str(bundle))}",
        )
    if manifest.mnn is None or not manifest.cases:
        raise RefusedError(
            "the bundle has nothing to run on a device",
            seen="no converted model" if manifest.mnn is None else "no cases",
            next="prepare the model again; the bundle's evidence says what stands in the way",
        )


def _write_texts(directory: Path, bundle: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Write every case in the layout of MNN's own tools; the cases that have none, with the reason."""
    for index, case in enumerate(manifest.cases):
        arrays = load_arrays(bundle / case.path)
        reason = writer.write_mnn_test(directory / str(index), arrays, manifest.signature)
        if reason:
            yield str(index), reason
