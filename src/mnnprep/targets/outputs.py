"""What a kit's program wrote on a device, read back as runs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError, UsageError
from mnnprep.mnn.run import NARROWED_OUTPUTS, MnnRunJob
from mnnprep.mnn.settings import Settings
from mnnprep.model.files import Arrays, FileRef, file_ref, load_arrays, read_array, save_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.target import MODES

RECORD = "run.txt"
FORMAT = "mnnprep-run 1"
ERROR = "error.txt"
PASSES = ("shared", "fresh")
LONGEST = 1 << 12  # bytes of a text that the program writes
ENDED = "the program ended before it had written this case: MNN crashed there, or it was stopped"
COPY_AGAIN = "copy the directory again, whole; or run the program again, into a new directory"


class DeviceRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The two runs on a device: all cases in one module, and each in a module of its own.

    ``bundle`` is the sha256 of the manifest that the kit was made from, ``engine`` MNN's version there.
    """

    bundle: str
    settings: Settings
    engine: str
    shared: RunResult
    fresh: RunResult


def read_outputs(directory: Path, job: MnnRunJob) -> DeviceRuns:
    """Return the runs that the program of *job*'s kit left in *directory*.

    Their arrays go to the job's directory. A case that failed on the device, or that the program did not come
    to, is an error of its run.

    Raises:
        UsageError: there is no such directory, or it is not what the program writes.
        RefusedError: it holds other files, or lacks some that the program had written, or one is damaged:
            that says nothing of the device.
    """
    facts, whole = _record(directory)
    stray = _stray(directory, job)
    if stray:
        raise RefusedError(
            "the outputs hold a file that the kit's program does not write", seen=stray, next=COPY_AGAIN
        )
    shared, fresh = (_read_pass(directory / name, job, whole) for name in PASSES)
    return DeviceRuns(
        bundle=facts["bundle"], settings=_settings(facts), engine=facts["engine"], shared=shared, fresh=fresh
    )


def _record(directory: Path) -> tuple[dict[str, str], bool]:
    """The facts of ``run.txt``, and whether the program came to its end."""
    path = directory / RECORD
    if not path.is_file():
        raise UsageError(
            f"there are no outputs of a kit's program at this path: no {RECORD}",
            seen=str(directory),
            next="give the directory that the program wrote with -o",
        )
    with path.open("rb") as file:
        first, *lines = file.read(LONGEST).decode(errors="replace").splitlines() or [""]
    facts = dict(line.partition(" ")[::2] for line in lines)
    if first != FORMAT or not {"bundle", "backend", "precision", "memory", "threads", "engine"} <= set(facts):
        raise UsageError(
            f"{RECORD} is not what the kit's program writes", seen=first, next="run the kit's program again"
        )
    return facts, "end" in facts


def _settings(facts: dict[str, str]) -> Settings:
    for name in ("precision", "memory"):
        if facts[name] not in MODES:
            raise UsageError(
                f"{RECORD} states a {name} that MNN does not have",
                seen=facts[name],
                next="run the kit's program again",
            )
    if not facts["threads"].isdecimal():
        raise UsageError(
            f"{RECORD} states no number of threads", seen=facts["threads"], next="run the kit's program again"
        )
    return Settings(
        backend=facts["backend"],
        precision=facts["precision"],
        memory=facts["memory"],
        threads=int(facts["threads"]),
    )


def _stray(directory: Path, job: MnnRunJob) -> str:
    """The first thing in *directory* that the program does not write; empty if there is none."""
    names = {ERROR, *(f"{place}.npy" for place in range(len(job.output_names)))}
    cases = {str(case.index) for case in job.cases}
    allowed = {RECORD} | {f"{p}/{case}/{name}" for p in PASSES for case in cases for name in names}
    for folder, folders, files in os.walk(directory):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            place = path.relative_to(directory).as_posix()
            if place not in allowed or not path.is_file() or path.is_symlink():
                return place
    return ""


def _read_pass(directory: Path, job: MnnRunJob, whole: bool) -> RunResult:
    outputs: dict[str, FileRef] = {}
    errors: dict[str, str] = {}
    narrowed: dict[str, str] = {}
    target = Path(job.directory) / directory.name
    target.mkdir(parents=True, exist_ok=True)
    for case in job.cases:
        key = str(case.index)
        arrays, error = _read_case(directory / key, list(job.output_names), whole)
        if error:
            errors[key] = error
            continue
        save_arrays(target / f"{key}.npz", arrays)
        outputs[key] = file_ref(target / f"{key}.npz")
        narrowed |= _narrowed(case, arrays)
    return RunResult(outputs=outputs, errors=errors, narrowed=narrowed)


def _read_case(directory: Path, names: list[str], whole: bool) -> tuple[Arrays, str]:
    """The outputs of one case, or why the device did not give them.

    Raises:
        RefusedError: a file that the program had written is missing or damaged.
    """
    told = directory / ERROR
    if told.exists():
        with told.open("rb") as file:
            return {}, file.read(LONGEST).decode(errors="replace").strip() or "no reason was given"
    arrays: Arrays = {}
    for place, name in enumerate(names):
        path = directory / f"{place}.npy"
        where = "/".join(path.parts[-3:])
        if not path.exists():
            if whole:
                raise RefusedError(
                    "an output that the program wrote is missing", seen=f"{where} ({name})", next=COPY_AGAIN
                )
            return {}, ENDED
        try:
            with path.open("rb") as file:
                arrays[name] = read_array(file, path.stat().st_size)
        except (ValueError, EOFError) as error:
            if not whole:
                return {}, ENDED
            raise RefusedError(
                "an output that came back is damaged", seen=f"{where} ({name}): {error}", next=COPY_AGAIN
            ) from error
    return arrays, ""


def _narrowed(case: CaseFile, arrays: Arrays) -> dict[str, str]:
    """The outputs whose dtype is the documented narrowing of the reference's; others are a difference."""
    references = load_arrays(case.file.path, "outputs/")
    wanted = {name: references[key].dtype.name for name in arrays if (key := f"outputs/{name}") in references}
    return {
        name: given
        for name, dtype in wanted.items()
        if NARROWED_OUTPUTS.get(dtype) == (given := arrays[name].dtype.name)
    }
