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
from typing import TYPE_CHECKING, Any

from mnnprep.attempt.task_metrics import at_hand
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.bisect import Bisection
from mnnprep.commands.bisect import bisect as _bisect
from mnnprep.commands.check import CheckReport, check_file
from mnnprep.commands.compare import Comparison
from mnnprep.commands.compare import compare as _compare
from mnnprep.commands.doctor import Doctor, diagnose
from mnnprep.commands.inspect import Inspection, inspect_file
from mnnprep.commands.reading import SECONDS as READING_SECONDS
from mnnprep.commands.sign import sign as _sign
from mnnprep.commands.sign import verify_signed as _verify
from mnnprep.commands.verify import Verification
from mnnprep.errors import UsageError
from mnnprep.model.messages import DEFAULT_SAMPLE_LIMIT
from mnnprep.model.metrics import Metric, make_metrics
from mnnprep.model.precision import make_precision
from mnnprep.model.request import DEFAULT_TIMEOUT, Limits, Request, make_wants

if TYPE_CHECKING:
    from mnnprep.weights.writer import Consolidated

Tell = Callable[[str], None]
Asked = Callable[..., Any]


def _silent(_: str) -> None:
    pass


def _metrics(given: str | Asked | Iterable[str | Asked], functions: dict[str, Asked]) -> tuple[Metric, ...]:
    """One metric or several; those that are functions are put into *functions* by their keys."""
    several = (given,) if isinstance(given, str) or callable(given) else tuple(given)
    return make_metrics(several, functions)


def _texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """One text or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def prepare(
    source: Any,
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = "",
    to: str = "",
    method: str = "auto",
    opset: int = 13,
    inputs: Iterable[str] = (),
    dims: Mapping[str, tuple[int, int]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    samples: str | os.PathLike[str] = "",
    preprocess: str | Iterable[str] = (),
    sample_limit: int = DEFAULT_SAMPLE_LIMIT,
    example: Any = None,
    factory_args: Mapping[str, object] | None = None,
    seed: int = 0,
    static: bool = False,
    fp16: bool = False,
    weight_bits: int = 0,
    budget: float | None = None,
    metrics: str | Asked | Iterable[str | Asked] = (),
    mnnconvert: str | os.PathLike[str] = "",
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = 0,
    proof_memory: int = 0,
    trust: bool = False,
    force: bool = False,
    repairs: Iterable[str] | None = None,
    signature: str = "",
    outputs: Iterable[str] = (),
    tflite_precision: str = "",
    tell: Tell = _silent,
) -> Manifest | None:
    """Prepare *source* for MNN, prove the result and write the bundle *output*.

    *source* is a path, a factory (``file.py:callable``, ``package.module:callable``) or a live
    ``torch.nn.Module``.  A live module is exported from this process, with its parameters gathered to
    the CPU; it comes back as it was: training flags, device, dtype, requires_grad, hooks, RNG state.
    Its inputs are given by *inputs*, or by *example* (a tensor, a tuple, or a dict by parameter name).
    Where its parameters are shards in a running process group, every rank must call this; rank 0
    prepares, the others get None.

    *inputs* are texts like ``"x=float32[batch,3,224,224]"``; *dims* maps a dynamic dimension to its
    range, both ends included; *ranges* maps an input to the values it takes; *samples* is a path to real
    inputs, of which at most
    *sample_limit* files are taken, and *preprocess* has texts like ``"size=256,crop=224,scale=255"`` for
    images; *memory* is in bytes (0: no limit) and *timeout* in seconds, for every step; a factory whose
    *weights* don't fit is exported without them, which are then streamed from the checkpoint, and
    *proof_memory* (0: as *memory*) is what the proof may use; *tell* is called with each stage's one-line
    news.
    *static* resolves the converted model's shapes for its one size.  *fp16* or *weight_bits* (8 or 4) keep
    its weights so; it must then reach an SQNR of *budget* dB (None: 50 for float16, 30 for integers) in place
    of float32's tolerance.
    *metrics* are task metrics (``"top1"``, ``"cosine=0.999"``, ``"file.py:function"``) or functions of this
    process, which are called in it with ``(reference, outputs)`` of a case and return a number; see
    :mod:`mnnprep.attempt.task_metrics`.
    *repairs* names the repair rules to apply wherever their pattern is, and no other (empty: none; None:
    those that the artifact needs).
    *signature* is a SavedModel's, *outputs* the end nodes of a TensorFlow graph or checkpoint,
    *tflite_precision* ``float16`` or ``int8`` of a TFLite artifact.

    Returns the bundle's manifest, whatever its verdict.

    Raises:
        UsageError: the call is wrong.
        RefusedError: the source can't be taken, or nothing could be made of it.
    """
    from mnnprep.commands.prepare import prepare as run
    from mnnprep.commands.prepare import prepare_live

    wants = make_wants(
        tuple(inputs),
        tuple(f"{n}={low}:{high}" for n, (low, high) in (dims or {}).items()),
        tuple(f"{n}={low}:{high}" for n, (low, high) in (ranges or {}).items()),
        os.fspath(samples),
        seed,
        _texts(preprocess),
        sample_limit,
    )
    functions: dict[str, Asked] = {}
    live = not isinstance(source, (str, os.PathLike))
    request = Request(
        source="" if live else os.fspath(source),
        weights=os.fspath(weights),
        to=to,
        method=method,
        opset=opset,
        wants=wants,
        factory_args={n: str(v) for n, v in (factory_args or {}).items()},
        trust=trust,
        mnnconvert=os.path.abspath(mnnconvert) if mnnconvert else "",
        limits=Limits(timeout=timeout, memory=memory, proof_memory=proof_memory),
        precision=make_precision(fp16, weight_bits, budget),
        static=static,
        metrics=_metrics(metrics, functions),
        repairs=None if repairs is None else tuple(repairs),
        signature=signature,
        outputs=tuple(outputs),
        tflite_precision=tflite_precision,
    )
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
    Raises UsageError when there is nothing, RefusedError when it is no model or a damaged one, or takes
    longer or more than that.
    """
    return inspect_file(os.fspath(path), limits=Limits(timeout=timeout, memory=memory))


def check(
    model: str | os.PathLike[str],
    *,
    rules_only: bool = False,
    timeout: float = READING_SECONDS,
    memory: int = 0,
) -> CheckReport:
    """Say what MNN will refuse, crash on or get wrong in the file *model*; nothing of it is executed.
    *timeout*, *memory*: as for :func:`inspect`.

    Raises as :func:`mnnprep.commands.check.check_file`.
    """
    return check_file(os.fspath(model), rules_only=rules_only, limits=Limits(timeout=timeout, memory=memory))


def verify(
    bundle: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] = "",
    metrics: str | Asked | Iterable[str | Asked] = (),
    timeout: float = DEFAULT_TIMEOUT,
    tell: Tell = _silent,
) -> Verification:
    """Prove a bundle again, from the bundle alone; *metrics* as in :func:`prepare`, *key* the public key that
    it must be signed with.

    Raises as :func:`mnnprep.commands.sign.verify_signed`.
    """
    functions: dict[str, Asked] = {}
    wanted = _metrics(metrics, functions)
    with at_hand(functions):
        return _verify(
            Path(bundle),
            Path(key) if key else None,
            metrics=wanted,
            limits=Limits(timeout=timeout),
            tell=tell,
        )


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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Consolidated | None:
    """Gather the weights of *source* into the safetensors file *output*; with None, only say what would be
    written.

    *source* is a checkpoint (a file, an index, a directory or an fsspec URL) or a live ``torch.nn.Module``;
    where the module's
    parameters are shards in a running process group, every rank must call this: rank 0 writes, the others get
    None.
    *rename* are texts like ``"regex=>name"``, *join* like ``"regex=>axis"``; the rest is as in ``mnnprep
    consolidate --help``.
    *progress* is called with the bytes done and those of the whole.

    Raises UsageError when the call is wrong, RefusedError when the checkpoint can't be taken or the disk is
    too small.
    """
    from mnnprep.commands.consolidate import Options, consolidate_live
    from mnnprep.commands.consolidate import consolidate as run

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
        return run(os.fspath(source), target, options, hashed=hashed, force=force, progress=progress)
    return consolidate_live(source, target, options, hashed=hashed, force=force, progress=progress)


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    inputs: Iterable[str] = (),
    samples: str | os.PathLike[str] = "",
    preprocess: str | Iterable[str] = (),
    sample_limit: int = DEFAULT_SAMPLE_LIMIT,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    metrics: str | Asked | Iterable[str | Asked] = (),
    seed: int = 0,
    timeout: float = DEFAULT_TIMEOUT,
    trust: bool = False,
    tell: Tell = _silent,
) -> Comparison:
    """Run two models of any two formats on the same cases and compare every output.

    Raises as :func:`mnnprep.commands.compare.compare`.
    """
    intervals = tuple(f"{n}={low}:{high}" for n, (low, high) in (ranges or {}).items())
    wants = make_wants(
        tuple(inputs), (), intervals, os.fspath(samples), seed, _texts(preprocess), sample_limit
    )
    functions: dict[str, Asked] = {}
    wanted = _metrics(metrics, functions)
    with at_hand(functions):
        return _compare(
            os.fspath(first),
            os.fspath(second),
            wants=wants,
            limits=Limits(timeout=timeout),
            trust=trust,
            metrics=wanted,
            tell=tell,
        )


def bisect(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    case: int | None = None,
    mnnconvert: str | os.PathLike[str] = "",
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = 0,
    tell: Tell = _silent,
) -> Bisection:
    """The first node of a bundle's ONNX artifact where MNN leaves the reference, over the stored cases or one
    *case* of them.

    *output* is a new directory for a piece of the model that shows it. Raises as
    :func:`mnnprep.commands.bisect.bisect`.
    """
    target = None if output is None else Path(output)
    limits = Limits(timeout=timeout, memory=memory)
    return _bisect(
        Path(bundle), case=case, output=target, mnnconvert=os.fspath(mnnconvert), limits=limits, tell=tell
    )


def doctor(mnnconvert: str | os.PathLike[str] = "") -> Doctor:
    """What is installed, which formats work, and what to install for the others."""
    return diagnose(os.fspath(mnnconvert))
