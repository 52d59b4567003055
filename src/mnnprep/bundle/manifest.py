"""``manifest.json``, schema ``mnnprep.bundle/1``: the typed record of a bundle.

It holds no time, host, user or directory: the same source under the same name, options, tools and CPU type
give the same bytes.  Every text in it is data as it was given, or prose whose paths were shortened where it
arose (:mod:`mnnprep.safety.error_text`); nothing is rewritten afterwards.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import msgspec

from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Check
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.files import canonical_json
from mnnprep.model.metrics import Metric
from mnnprep.model.signature import Extent
from mnnprep.model.steps import Quantized
from mnnprep.model.target import is_engine
from mnnprep.safety.leftovers import left_beside

SCHEMA = "mnnprep.bundle/1"
LARGEST = 1 << 26  # bytes of a manifest
FILE_NAME = "manifest.json"
SIGNATURE_NAME = "bundle.sig"  # what `mnnprep sign` writes beside the manifest


class NamedFile(msgspec.Struct, frozen=True):
    """A file of the source.

    ``name`` is its role (``source``, ``weights``, ``factory``), with its place below for one in a directory;
    ``file`` is its own name, without the directory.
    """

    name: str
    sha256: str
    size: int
    file: str = ""


LONGEST = 255  # bytes of one part of a path, on every file system in use


def require_name(path: str) -> None:
    """Require that a file can be called as the last part of *path*, and its directories as the others.

    Raises:
        ValueError: none can; msgspec makes a ValidationError of it.
    """
    if "\0" in path or any(len(part.encode()) > LONGEST for part in path.split("/")):
        raise ValueError("no file can have this name")


class BundleFile(msgspec.Struct, frozen=True):
    """A file of the bundle, by its path relative to the bundle's directory."""

    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        require_name(self.path)


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The source; ``name`` is the base name of a file or directory, or the factory as the user called it.

    ``command`` holds the arguments of ``mnnprep`` that ask for the same, files by their base names, empty for
    a live module; ``parameters`` is the number of elements of its floating weights, whatever holds them.
    """

    kind: str
    name: str = ""
    framework: str
    files: list[NamedFile]
    options: dict[str, Any]
    command: list[str] = msgspec.field(default_factory=list)
    parameters: int = 0


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One method with one set of options, tried; ``kept``: the bundle holds what it made.

    ``verdict`` is empty if nothing came out of it; ``repairs`` are the rules that were applied.
    """

    method: str
    opset: int
    ok: bool
    verdict: str = ""
    reason: str = ""
    repairs: list[str] = msgspec.field(default_factory=list)
    kept: bool = False
    notes: list[str] = msgspec.field(default_factory=list)


class RepairRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that fired: the hazard it answers, whether it is exact, the nodes it rewrote."""

    rule: str
    hazard: str
    exact: bool
    nodes: list[str]


class ArtifactRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The artifact: its format, how it was made, its files and repairs.

    ``sqnr_db`` is what the artifact must reach if it holds other numbers than the source (quantized TFLite).
    """

    format: str
    method: str
    opset: int
    files: list[BundleFile]
    attempts: list[AttemptRecord]
    repairs: list[RepairRecord] = msgspec.field(default_factory=list)
    sqnr_db: float | None = None


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the boundary, by its name in the artifact, the source and MNN.

    ``name`` is the artifact's, ``source_name`` the source's, ``mnn_name`` and ``mnn_dtype`` MNN's; ``layout``
    is the dimension format that MNN must be given; ``quantization`` says what its integers stand for.
    """

    name: str
    source_name: str
    mnn_name: str
    dtype: str
    mnn_dtype: str
    shape: list[Extent]
    layout: str
    range: list[float] | None = None
    quantization: Quantized | None = None


class DimRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``proven`` lists the sizes that passed in the artifact's runtime and in MNN, never a range."""

    min: int | None
    max: int | None
    proven: list[int]
    constraint: str = ""


class SignatureRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The model's inputs and outputs, in order, and its dynamic dimensions by name."""

    inputs: list[TensorRecord]
    outputs: list[TensorRecord]
    dims: dict[str, DimRecord]


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored case: an npz of ``inputs/NAME`` and ``outputs/NAME``, by the signature's names.

    ``origin`` says which source its inputs came from, ``dims`` the size of every dynamic dimension in it.
    """

    path: str
    sha256: str
    size: int
    origin: str
    dims: dict[str, int]

    def __post_init__(self) -> None:
        require_name(self.path)


class KnownFault(msgspec.Struct, frozen=True, kw_only=True):
    """A node that MNN computes wrong, known by its operator: the rule, the node, what happens."""

    rule: str
    node: str
    hazard: str


class AgainstLow(msgspec.Struct, frozen=True, kw_only=True):
    """Why an app must not set precision ``low`` where MNN computes in half precision.

    Attributes:
        targets: those at that precision on which the model ran, and was wrong.
        known: the nodes that are known to be wrong there, if it did not run there.
        unknown: why they could not be looked for; empty: they were.
        instead: the precisions to set.
    """

    targets: list[str] = msgspec.field(default_factory=list)
    known: list[KnownFault] = msgspec.field(default_factory=list)
    unknown: str = ""
    instead: list[str] = msgspec.field(default_factory=lambda: ["high", "normal"])


class RuntimeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How MNN's runtime was set when the model was proven; an app that sets it otherwise gets other numbers.

    ``hints`` are values of MNN's Interpreter::HintMode by name; empty: MNN's defaults. ``against_low`` says
    what is known against precision ``low``; None: nothing is.
    """

    backend: str = "CPU"
    precision: str = "high"
    threads: int = 1
    hints: dict[str, int] = msgspec.field(default_factory=dict)
    against_low: AgainstLow | None = None


class TargetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A target that was asked for; its check is in the evidence, under the target's name.

    Attributes:
        target: its text form.
        engine: the version of MNN that ran there; empty: it did not run.
        arithmetic: what it computed in: float32, float16, or float32 with coarser functions.
        hints: how the runtime was set there, as in RuntimeRecord.
        cases: the cases that it ran, by their indexes.
    """

    target: str
    engine: str = ""
    arithmetic: str = ""
    hints: dict[str, int] = msgspec.field(default_factory=dict)
    cases: list[int] = msgspec.field(default_factory=list)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The record.

    ``files`` lists every file of the bundle but the manifest and the report; ``metrics`` are the task metrics
    asked for.
    """

    schema: str
    verdict: Verdict
    source: SourceRecord
    artifact: ArtifactRecord
    mnn: BundleFile | None
    signature: SignatureRecord
    cases: list[CaseRecord]
    tolerance: Tolerance
    evidence: list[Check]
    tools: dict[str, str]
    runtime: RuntimeRecord = msgspec.field(default_factory=RuntimeRecord)
    files: list[BundleFile] = msgspec.field(default_factory=list)
    metrics: list[Metric] = msgspec.field(default_factory=list)
    targets: list[TargetRecord] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        paths = {case.path for case in self.cases}
        if len(paths) != len(self.cases):
            raise ValueError(f"{len(self.cases)} cases are in {len(paths)} files")
        if not is_engine(self.engine):  # it names a directory that code is taken from
            raise ValueError(f"{self.engine!r} is not a version of MNN")

    @property
    def engine(self) -> str:
        """The version of MNN that was asked for to convert and to prove it; empty: none was."""
        return str(self.source.options.get("engine", ""))

    @property
    def budget(self) -> float | None:
        """The SQNR in dB that was granted with ``--budget``; None if none was."""
        asked = self.source.options.get("precision")
        budget = asked.get("budget") if isinstance(asked, dict) else None
        return float(budget) if isinstance(budget, int | float) else None

    def to_bytes(self) -> bytes:
        """Return the manifest as canonical JSON: equal manifests give equal bytes."""
        return canonical_json(self)


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle's directory.

    Raises:
        UsageError: there is no such directory, or it is not a bundle.
        RefusedError: its manifest can't be read, or is of another schema.
    """
    path = bundle / FILE_NAME
    if not bundle.is_dir():
        aside = left_beside(Path(os.path.realpath(bundle)), ".old")
        back = (
            f"a killed run was replacing this bundle; put it back: mv {shlex.quote(str(aside[0]))}"
            f" {shlex.quote(str(bundle))}"
            if aside
            else ""
        )
        raise UsageError(
            "there is no bundle at this path",
            seen=str(bundle),
            next=back or "give the directory that `mnnprep prepare -o DIR` wrote",
        )
    if not path.is_file():
        raise UsageError(
            "this directory is not a bundle: it has no manifest.json",
            seen=str(bundle),
            next="give the directory that `mnnprep prepare -o DIR` wrote",
        )
    if (size := path.stat().st_size) > LARGEST:
        raise RefusedError(
            "the bundle's manifest is larger than any that prepare writes",
            seen=f"{bundle.name}: {size} bytes",
            next="prepare the model again",
        )
    try:
        data = msgspec.json.decode(path.read_bytes())
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            tools = data.get("tools") if isinstance(data, dict) else None
            maker = tools.get("mnnprep") if isinstance(tools, dict) else None
            remedy = (
                f"read it with mnnprep {maker}, which made it"
                if isinstance(maker, str)
                else "prepare the model again"
            )
            raise RefusedError(
                f"the bundle's manifest has another schema than {SCHEMA}, which this version reads",
                seen=str(schema),
                next=remedy,
            )
        return msgspec.convert(data, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(
            "the bundle's manifest could not be read",
            seen=f"{path.name}: {error}",
            next="prepare the model again",
        ) from error
