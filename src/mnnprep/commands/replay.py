"""`replay`: make a bundle's files again and compare their hashes.

They are made from the recorded request and its source.
"""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

from mnnprep import deps
from mnnprep._version import __version__
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.auditing.files import named_files
from mnnprep.commands.prepare import prepare
from mnnprep.commands.resolve import resolve, source_files
from mnnprep.commands.verify import known_metrics
from mnnprep.errors import RefusedError
from mnnprep.model.files import sha256
from mnnprep.model.request import Request
from mnnprep.reference.samples import sample_files
from mnnprep.safety.leftovers import Scratch
from mnnprep.text import Progress

SHOWN = 5


class FileReplayed(msgspec.Struct, frozen=True):
    """A file of the bundle: its sha256 as recorded and as made now, empty if there is none."""

    path: str
    recorded: str
    now: str

    @property
    def same(self) -> bool:
        """Whether the file's hash is the recorded one."""
        return self.recorded == self.now


class ToolDiffers(msgspec.Struct, frozen=True):
    """A tool of another version than the bundle was made with; empty if it is not there."""

    name: str
    recorded: str
    now: str


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The result of making it again; ``same``: every file has the recorded bytes."""

    same: bool
    verdict: str
    recorded: str
    files: list[FileReplayed]
    tools: list[ToolDiffers]


def replay(
    manifest: Manifest,
    request: Request,
    target: Path | None,
    *,
    force: bool = False,
    tell: Progress = lambda _: None,
) -> Replay:
    """Make the bundle of *manifest* again by *request*, which names the source as it is here, and compare.

    The new bundle is kept at *target* where one is given.

    Raises:
        UsageError: the request is wrong, as for `prepare`.
        RefusedError: the source, the samples or the converter are not those that the bundle was made with.
    """
    require_same(manifest, request)
    tools = differing_tools(manifest)
    for tool in tools:
        tell(f"{tool.name} is {tool.now or 'not installed'}, and the bundle was made with {tool.recorded}")
    with Scratch() as scratch:
        made = prepare(request, target or scratch / "bundle", force=force, tell=tell)
    files = compared(manifest, made)
    same = all(file.same for file in files)
    return Replay(
        same=same, verdict=made.verdict.value, recorded=manifest.verdict.value, files=files, tools=tools
    )


def require_same(manifest: Manifest, request: Request) -> None:
    """Require that the bundle was made from just these inputs, byte by byte.

    Raises:
        RefusedError: an input is another.
        UsageError: a metric has other code.
    """
    have = {file.name: file.sha256 for file in source_files(resolve(request))}
    want = {file.name: file.sha256 for file in manifest.source.files}
    other = [name for name in sorted(have | want) if have.get(name) != want.get(name)]
    if other:
        told = ", ".join(
            f"{name}: sha256 {have.get(name, 'missing')[:12]}, not {want.get(name, 'there')[:12]}"
            for name in other[:SHOWN]
        )
        raise RefusedError(
            "this is not the source that the bundle was made from",
            seen=told,
            next="give the files whose hashes the report shows",
        )
    known_metrics(manifest.metrics, request.metrics)
    _require_samples(manifest, request)
    converter = str(manifest.source.options.get("mnnconvert", ""))
    if converter != (sha256(request.mnnconvert) if request.mnnconvert else ""):
        raise RefusedError(
            "this is not the converter that the bundle was made with",
            seen=Path(request.mnnconvert).name or "the MNN package's",
            next=(
                f"give the one with sha256 {converter[:12]} by --mnnconvert"
                if converter
                else "leave --mnnconvert out"
            ),
        )


def _require_samples(manifest: Manifest, request: Request) -> None:
    wants = request.wants
    recorded = list(manifest.source.options.get("samples", []))
    found = (
        [sha256(file) for _, file in sample_files(wants.samples, wants.sample_limit).taken]
        if wants.samples
        else []
    )
    if found != recorded:
        raise RefusedError(
            "these are not the samples that the bundle was made with",
            seen=(
                f"{len(found)} files, {sum(s in recorded for s in found)} of them the same; recorded are"
                f" {len(recorded)}"
            ),
            next="give the same files under the same names with --samples",
        )


def differing_tools(manifest: Manifest) -> list[ToolDiffers]:
    """Return the tools that are here in another version than recorded.

    A converter of one's own is compared by its bytes.
    """
    own = {"mnnprep": __version__, "python": platform.python_version()}
    if manifest.engine:
        own["MNN"] = manifest.engine
    now = {name: own.get(name) or deps.version(name) or "" for name in manifest.tools if name != "mnnconvert"}
    return [
        ToolDiffers(name, manifest.tools[name], version)
        for name, version in now.items()
        if version != manifest.tools[name]
    ]


def compared(manifest: Manifest, made: Manifest) -> list[FileReplayed]:
    """Every file of either bundle, its hash in both."""
    before, now = ({f.path: f.sha256 for f in named_files(m)} for m in (manifest, made))
    return [FileReplayed(path, before.get(path, ""), now.get(path, "")) for path in sorted(before | now)]
