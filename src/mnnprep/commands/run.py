"""`run`: a bundle's model on inputs of one's own, on this machine or on a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnnprep.bundle.intact import IntactFiles
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.commands.bundle_workers import bundle_workers
from mnnprep.commands.verify import mnn_job
from mnnprep.errors import RefusedError, UsageError
from mnnprep.mnn.run import MnnRunJob
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.request import Limits
from mnnprep.model.target import Target
from mnnprep.targets.environment import Unavailable, expand
from mnnprep.targets.run import start
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers


def run(
    bundle: Path, inputs: Sequence[Arrays], target: Target | None = None, *, limits: Limits | None = None
) -> list[Arrays]:
    """Run the bundle's converted model on each of *inputs*, on *target*; return the outputs of each.

    Inputs and outputs go by the names of the bundle's signature, in its dtypes; an output has MNN's dtype.

    Raises:
        UsageError: there is no bundle at this path, or an input is not of its signature.
        RefusedError: the bundle is damaged or has no model, the target can't run here, or MNN fails.
    """
    with bundle_workers(bundle, read_manifest(bundle), limits) as workers:
        return run_in(workers, bundle, inputs, target or Target())


def run_in(workers: Workers, bundle: Path, inputs: Sequence[Arrays], target: Target) -> list[Arrays]:
    """:func:`run` in *workers*, which may read the bundle. Raises as that."""
    manifest = read_manifest(bundle)
    if manifest.mnn is None:
        raise RefusedError(
            "the bundle has no converted model",
            seen=manifest.verdict.value,
            next="prepare the model again; the report says what is in the way",
        )
    IntactFiles(bundle, manifest).path(manifest.mnn.path)
    _require_signature(manifest, inputs)
    (there,) = expand([target], manifest.engine)[-1:]
    job = _job(workers, bundle, manifest, inputs)
    started = start(workers, there, job, every=True)
    if started.running is None:
        raise RefusedError("the target can't run here", seen=str(there), next=started.missing)
    try:
        ran = started.running.result().value
    except Unavailable as error:
        raise RefusedError("the target can't run here", seen=str(there), next=str(error)) from error
    except StepFailed as failure:
        raise failure.error or RefusedError(
            f"MNN failed on {there}",
            seen=describe(failure),
            next="`mnnprep verify` says whether the bundle's own cases run there",
        ) from failure
    if ran.errors:
        index, reason = min(ran.errors.items())
        raise RefusedError(
            f"MNN did not run input {index} on {there}",
            seen=reason,
            next="give inputs of the sizes that the report names as proven",
        )
    return [load_arrays(ran.outputs[str(number)].path) for number in range(len(inputs))]


def _require_signature(manifest: Manifest, inputs: Sequence[Arrays]) -> None:
    wanted = {tensor.name: tensor.dtype for tensor in manifest.signature.inputs}
    for number, arrays in enumerate(inputs):
        found = {name: str(array.dtype) for name, array in arrays.items()}
        if found != wanted:
            raise UsageError(
                f"input {number} is not of the bundle's signature",
                seen=", ".join(f"{name} {dtype}" for name, dtype in found.items()) or "nothing",
                next=f"give {', '.join(f'{name} {dtype}' for name, dtype in wanted.items())}",
            )


def _job(workers: Workers, bundle: Path, manifest: Manifest, inputs: Sequence[Arrays]) -> MnnRunJob:
    given = workers.directory("given")
    cases = []
    for number, arrays in enumerate(inputs):
        path = given / f"{number}.npz"
        save_arrays(path, {f"inputs/{name}": array for name, array in arrays.items()})
        cases.append(CaseFile(index=number, origin="given", dims={}, file=file_ref(path)))
    return mnn_job(bundle, manifest, workers.directory("mnn"), cases=cases)
