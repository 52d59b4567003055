"""The typed functions behind the command line, for notebooks and programs.

>>> import mnnprep
>>> result = mnnprep.prepare("model.onnx", "out")            # doctest: +SKIP
>>> result.verdict.value, result.artifact.method             # doctest: +SKIP
('proven', 'copy')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mnnprep.attempt.task_metrics import at_hand
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.auditing.device import device_outputs
from mnnprep.commands.bisect import bisect as _bisect
from mnnprep.commands.check import check_file
from mnnprep.commands.check_report import CheckReport
from mnnprep.commands.compare import Comparison
from mnnprep.commands.compare import compare as _compare
from mnnprep.commands.doctor import Doctor, diagnose
from mnnprep.commands.inspect import Inspection, inspect_file
from mnnprep.commands.kit import Kit
from mnnprep.commands.kit import kit as _kit
from mnnprep.commands.reading import SECONDS as READING_SECONDS
from mnnprep.commands.sign import sign as _sign
from mnnprep.commands.sign import verify_signed as _verify
from mnnprep.commands.verify import Verification
from mnnprep.diagnose.bisecting.record import Bisection
from mnnprep.errors import UsageError
from mnnprep.model.derived_options import CHECK, COMPARE, CheckOptions, CompareOptions
from mnnprep.model.flags import takes
from mnnprep.model.forms import Asked
from mnnprep.model.metrics import Metric, make_metrics
from mnnprep.model.options import PREPARE, PrepareOptions, request_of
from mnnprep.model.request import DEFAULT_TIMEOUT, Limits
from mnnprep.model.target import Target, parse_targets
from mnnprep.text import Progress

if TYPE_CHECKING:
    from mnnprep.weights.writer import Consolidated


def _silent(_: str) -> None:
    pass


def _metrics(given: str | Asked | Iterable[str | Asked], functions: dict[str, Asked]) -> tuple[Metric, ...]:
    """One metric or several; those that are functions are put into *functions* by their keys."""
    several = (given,) if isinstance(given, str) or callable(given) else tuple(given)
    return make_metrics(several, functions)


@takes(PREPARE)
def prepare(
    source: Any,
    output: str | os.PathLike[str],
    *,
    example: Any = None,
    force: bool = False,
    tell: Progress = _silent,
    **options: Unpack[PrepareOptions],
) -> Manifest | None:
    """Prepare *source* for MNN, prove the result and write the bundle *output*.

    *source* is a path, a factory (``file.py:callable``, ``package.module:callable``) or a live
    ``torch.nn.Module``.  A live module is exported from this process, with its parameters gathered to
    the CPU; it comes back as it was: training flags, device, dtype, requires_grad, hooks, RNG state.
    Its inputs are given by *inputs*, or by *example* (a tensor, a tuple, or a dict by parameter name).
    If its parameters are shards in a running process group, every rank must call this; rank 0
    prepares, the others get None.

    *force* replaces a bundle that is there; *tell* is called with each stage's one-line news.  The options
    are those of ``mnnprep prepare``; what repeats there is a list here, or a mapping if it has names.

    Returns the bundle's manifest, whatever its verdict.

    Raises:
        UsageError: the call is wrong.
        RefusedError: the source can't be taken, or nothing could be made of it.
        TypeError: an option is unknown.
    """
    from mnnprep.commands.prepare import prepare as run
    from mnnprep.commands.prepare import prepare_live

    functions: dict[str, Asked] = {}
    live = not isinstance(source, (str, os.PathLike))
    wanted = _metrics(options.get("metrics", ()), functions)
    request = request_of("" if live else os.fspath(source), {**options, "metrics": wanted})
    if not live and example is not None:
        raise UsageError(
            "example inputs go with a live module",
            seen=request.source,
            next="give real inputs of a file or factory with samples=",
        )
    with at_hand(functions):
        if live:
            return prepare_live(request, source, example, Path(output), force=force, tell=tell)
        return run(request, Path(output), force=force, tell=tell)


def inspect(path: str | os.PathLike[str], *, timeout: float = READING_SECONDS, memory: int = 0) -> Inspection:
    """Say what the file at *path* is, from its bytes: nothing of it is loaded or executed.

    *timeout* is in seconds, *memory* in bytes (0: three quarters of what is free).

    Raises:
        UsageError: there is nothing at *path*.
        RefusedError: the file is not a model or is damaged, or reading it takes longer or more memory than
            that.
    """
    return inspect_file(os.fspath(path), limits=Limits(timeout=timeout, memory=memory))


@takes(CHECK)
def check(
    model: str | os.PathLike[str],
    *,
    rules_only: bool = False,
    timeout: float = READING_SECONDS,
    memory: int = 0,
    **options: Unpack[CheckOptions],
) -> CheckReport:
    """Say what MNN will refuse, crash on or get wrong in the file *model*, without executing it.

    *timeout*, *memory*: as for :func:`inspect`. With ``targets=["arm64:low"]`` the graph of an ONNX file is
    run, in a confined worker; the other options say on which inputs, as for :func:`prepare`.

    Raises as :func:`mnnprep.commands.check.check_file`; TypeError where an option is unknown.
    """
    request = request_of(os.fspath(model), options, CHECK)
    return check_file(
        os.fspath(model),
        rules_only=rules_only,
        limits=Limits(timeout=timeout, memory=memory),
        targets=request.targets,
        wants=request.wants,
    )


def verify(
    bundle: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] = "",
    metrics: str | Asked | Iterable[str | Asked] = (),
    targets: str | Iterable[str] = (),
    outputs: str | os.PathLike[str] = "",
    device: str = "",
    precision: str = "",
    timeout: float = DEFAULT_TIMEOUT,
    tell: Progress = _silent,
) -> Verification:
    """Prove a bundle again, from the bundle alone, and on *targets* such as ``arm64:low``.

    *metrics* are as in :func:`prepare`; *key* is the public key that it must be signed with. *outputs* is
    what the program of :func:`kit` wrote on the device called *device*, held to the same rules; with
    *precision* they must be of that one.

    Raises as :func:`mnnprep.commands.sign.verify_signed`.
    """
    functions: dict[str, Asked] = {}
    wanted = _metrics(metrics, functions)
    with at_hand(functions):
        return _verify(
            Path(bundle),
            Path(key) if key else None,
            metrics=wanted,
            targets=parse_targets((targets,) if isinstance(targets, str) else targets),
            device=device_outputs(os.fspath(outputs), device, precision),
            limits=Limits(timeout=timeout),
            tell=tell,
        )


def kit(bundle: str | os.PathLike[str], output: str | os.PathLike[str]) -> Kit:
    """Write what runs a bundle's model and cases on a device to the new directory *output*.

    Raises as :func:`mnnprep.commands.kit.kit`.
    """
    return _kit(Path(bundle), Path(output))


def run(
    bundle: str | os.PathLike[str],
    inputs: Iterable[Mapping[str, Any]],
    target: str = "host",
    *,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[dict[str, Any]]:
    """Run a bundle's model on each of *inputs* (arrays by name), on *target*; the outputs of each by name.

    Raises as :func:`mnnprep.commands.run.run`; UsageError where *target* can't be read.
    """
    from mnnprep.commands.run import run as _run

    given = [dict(arrays) for arrays in inputs]
    return _run(Path(bundle), given, Target.parse(target), limits=Limits(timeout=timeout))


def sign(bundle: str | os.PathLike[str], key: str | os.PathLike[str]) -> Path:
    """Sign a bundle with a private key; the path of the signature.

    Raises as :func:`mnnprep.commands.sign.sign`.
    """
    return _sign(Path(bundle), Path(key))


def consolidate(
    source: Any,
    output: str | os.PathLike[str] | None,
    *,
    ema: bool = False,
    at: str = "",
    strip: Iterable[str] = (),
    drop: Iterable[str] = (),
    rename: Iterable[str] = (),
    join: Iterable[str] = (),
    base: str | os.PathLike[str] = "",
    dtype: str = "",
    counters: bool = True,
    factory: str = "",
    factory_args: Mapping[str, object] | None = None,
    hashed: bool = True,
    force: bool = False,
    timeout: float = READING_SECONDS,
    memory: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Consolidated | None:
    """Gather the weights of *source* into the safetensors file *output*.

    With None, only say what would be written.

    *source* is a checkpoint (a file, an index, a directory or an fsspec URL) or a live ``torch.nn.Module``;
    if the module's parameters are shards in a running process group, every rank must call this: rank 0
    writes, the others get None.
    *rename* are texts like ``"regex=>name"``, *join* like ``"regex=>axis"``; the rest is as in ``mnnprep
    consolidate --help``.
    *timeout* (seconds) and *memory* (bytes; 0: three quarters of what is free) are limits of reading the
    checkpoint, not of copying it.  *progress* is called with the bytes done and those of the whole.

    Raises:
        UsageError: the call is wrong.
        RefusedError: the checkpoint can't be taken or the disk is too small.
    """
    from mnnprep.commands.consolidate import consolidate as run
    from mnnprep.commands.consolidate import consolidate_live
    from mnnprep.commands.consolidation import Options

    options = Options(
        ema=ema,
        at=at,
        strip=tuple(strip),
        drop=tuple(drop),
        rename=tuple(rename),
        join=tuple(join),
        base=os.fspath(base),
        dtype=dtype,
        counters=counters,
        factory=factory,
        factory_args={n: str(v) for n, v in (factory_args or {}).items()},
    )
    target = None if output is None else Path(output)
    if isinstance(source, (str, os.PathLike)):
        path, limits = os.fspath(source), Limits(timeout=timeout, memory=memory)
        return run(path, target, options, hashed=hashed, force=force, progress=progress, limits=limits)
    return consolidate_live(source, target, options, hashed=hashed, force=force, progress=progress)


@takes(COMPARE)
def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    tell: Progress = _silent,
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Run two models of any two formats on the same cases and compare every output.

    A factory with a checkpoint is written ``FACTORY+CHECKPOINT``. The options mean what they mean in
    :func:`prepare`; *tell* is called with each stage's one-line news.

    Raises as :func:`mnnprep.commands.compare.compare`; TypeError where an option is unknown.
    """
    functions: dict[str, Asked] = {}
    wanted = _metrics(options.get("metrics", ()), functions)
    request = request_of("", {**options, "metrics": wanted}, COMPARE)
    with at_hand(functions):
        return _compare(
            os.fspath(first),
            os.fspath(second),
            wants=request.wants,
            limits=request.limits,
            trust=request.trust,
            signature=request.signature,
            outputs=request.outputs,
            metrics=request.metrics,
            tell=tell,
        )


def bisect(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    case: int | None = None,
    mnnconvert: str | os.PathLike[str] = "",
    target: str = "",
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = 0,
    tell: Progress = _silent,
) -> Bisection:
    """Find the first node of a bundle's ONNX artifact that leaves the reference in MNN.

    It looks at the stored cases, or at one *case* of them; MNN runs on *target*, such as ``arm64:low``.

    *output* is a new directory for a piece of the model that shows it. Raises as
    :func:`mnnprep.commands.bisect.bisect`.
    """
    directory = None if output is None else Path(output)
    limits = Limits(timeout=timeout, memory=memory)
    return _bisect(
        Path(bundle),
        case=case,
        output=directory,
        mnnconvert=os.fspath(mnnconvert),
        target=Target.parse(target) if target else None,
        limits=limits,
        tell=tell,
    )


def doctor(mnnconvert: str | os.PathLike[str] = "") -> Doctor:
    """Report what is installed, which formats work, and what to install for the others."""
    return diagnose(os.fspath(mnnconvert))
