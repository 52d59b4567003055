"""An MNN model as JSON and back: one step in a worker, and the file put in place when it is whole."""

from __future__ import annotations

import os
from pathlib import Path

from mnnprep.commands.reading import kind_aside
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.mnn_file.backend import TO_TEXT
from mnnprep.mnn.convert import WEIGHTS_SUFFIX
from mnnprep.model.files import atomic_write, file_ref
from mnnprep.model.messages import TextJob, TextWritten
from mnnprep.model.request import Limits
from mnnprep.safety.leftovers import claimed
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.pool import Workers


def convert_json(
    source: Path, target: Path, *, force: bool = False, limits: Limits | None = None
) -> TextWritten:
    """Write the model *source* as JSON, or the JSON *source* as a model, to *target*.

    A JSON source has a name that ends in ``.json``.

    Raises:
        UsageError: there is no source, the target's name says the wrong thing, the target exists (without
        *force*), or another run
            is writing it.
        RefusedError: the source is not an MNN model or JSON, or one that MNN can't read.
    """
    limits = limits or Limits()
    from_json = source.suffix.lower() == ".json"
    _require_places(source, target, ".mnn" if from_json else ".json", force)
    if not from_json and (kind := kind_aside(source, limits)) != "mnn":
        raise RefusedError(
            "only an MNN model has this form",
            seen=f"{source.name}: {kind}",
            next="prepare the model first, and give its model.mnn",
        )
    with claimed(Path(os.path.realpath(target))), Workers(limits) as workers:
        place = str(source.absolute())
        text = str(workers.directory("text") / target.name)
        job = TextJob(source=place, target=text, from_json=from_json, beside=[place + WEIGHTS_SUFFIX])
        try:
            written = workers.run(TO_TEXT, job)
        except StepFailed as failure:
            if failure.error is not None:
                raise failure.error from failure
            if failure.fate == "reply":
                raise internal(failure, "the model could not be written") from failure
            raise RefusedError(
                f"MNN's converter {failure.reason}",
                seen=failure.log[-500:],
                next="compare the file with its original",
            ) from failure
        with atomic_write(target) as file, open(written.file.path, "rb") as made:
            while chunk := made.read(1 << 20):
                file.write(chunk)
    return TextWritten(file_ref(target))


def _require_places(source: Path, target: Path, wanted: str, force: bool) -> None:
    """Raise UsageError where *source* can't be read, or *target* can't be written as a *wanted* file."""
    if not source.is_file():
        raise UsageError(
            "there is no file at this path",
            seen=str(source),
            next="give a .mnn model, or a .json made from one",
        )
    if target.suffix.lower() != wanted:
        raise UsageError(
            f"the target must be a {wanted} file", seen=str(target), next=f"give -o {target.stem}{wanted}"
        )
    if target.exists() and not force:
        raise UsageError(
            "the target already exists",
            seen=str(target),
            next="replace it with --force, or give another name",
        )
    if not target.parent.is_dir():
        raise UsageError(
            "there is no directory for the target", seen=str(target.parent), next="make it first"
        )
