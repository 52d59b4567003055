"""The options of `prepare`.

From one table follow the command line, the Python functions, the request and the recorded command.

A new option is an entry of :class:`PrepareOptions` and the field of the request that it fills.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, TypedDict

from mnnprep.model.flags import Flag, flags_of
from mnnprep.model.forms import (
    ABSOLUTE_PATH,
    ARGUMENTS,
    BARE,
    DIMS,
    INPUTS,
    METRICS,
    NAMES,
    NUMBER,
    PATH,
    RANGES,
    RECIPES,
    SEVERAL,
    SIZE,
    TARGETS,
    TEXT,
    WHOLE,
    Metrics,
    PathLike,
    Texts,
)

if TYPE_CHECKING:
    from mnnprep.model.flags import Flags
    from mnnprep.model.request import Request

Sizes = Mapping[str, tuple[int, int]] | Texts | None
Intervals = Mapping[str, tuple[float, float]] | Texts | None
Arguments = Mapping[str, object] | Texts | None


class PrepareOptions(TypedDict, total=False):
    """The options of `prepare` beside the source and the target, in the order of ``--help``."""

    weights: Annotated[
        PathLike,
        Flag(
            "--weights",
            PATH,
            "Weights for a factory: a state dict, checkpoint or safetensors file.",
            note="If they don't fit in memory, the factory is exported without them, and they are streamed.",
            default="",
            metavar="CKPT",
        ),
    ]
    to: Annotated[
        str,
        Flag(
            "--to",
            TEXT,
            "The artifact's format (default: the source's first, then the next).",
            default="",
            metavar="FORMAT",
        ),
    ]
    method: Annotated[
        str, Flag("--method", TEXT, "How the artifact is made.", default="auto", metavar="NAME")
    ]
    opset: Annotated[
        int,
        Flag(
            "--opset",
            WHOLE,
            "The ONNX opset to start from; 13, 17, 11, 15 and 18 follow until MNN takes one.",
            default=13,
            least=9,
            most=30,
        ),
    ]
    inputs: Annotated[
        Texts,
        Flag(
            "--input",
            INPUTS,
            "An input, as 'x=float32[batch,3,224,224]'; a name or ? is dynamic.",
            fills="wants.inputs",
            default=(),
            metavar="SPEC",
        ),
    ]
    dims: Annotated[
        Sizes,
        Flag(
            "--dim",
            DIMS,
            "The range of a dynamic dimension.",
            note="By name: (least, largest), both included.",
            fills="wants.dims",
            default=(),
            metavar="NAME=MIN:MAX",
        ),
    ]
    ranges: Annotated[
        Intervals,
        Flag(
            "--range",
            RANGES,
            "The range of an input's values.",
            note="By the input's name: (lowest, highest).",
            fills="wants.ranges",
            default=(),
            metavar="NAME=LOW:HIGH",
        ),
    ]
    samples: Annotated[
        PathLike,
        Flag(
            "--samples",
            ABSOLUTE_PATH,
            "Real inputs: .npz, .npy, .jpg, .png or .wav, or a directory of them.",
            fills="wants.samples",
            default="",
            metavar="FILE|DIR",
        ),
    ]
    preprocess: Annotated[
        Texts,
        Flag(
            "--preprocess",
            RECIPES,
            "How an image or a .wav becomes an input, as 'size=256,crop=224,scale=255'.",
            fills="wants.preprocess",
            default=(),
            metavar="SPEC",
        ),
    ]
    sample_limit: Annotated[
        int,
        Flag(
            "--sample-limit",
            WHOLE,
            "The most sample files to take, evenly spaced by name.",
            fills="wants.sample_limit",
            default=64,
            least=1,
        ),
    ]
    factory_args: Annotated[
        Arguments,
        Flag(
            "--factory-arg",
            ARGUMENTS,
            "An argument for the factory.",
            note="By name, the value as a text.",
            default=(),
            metavar="KEY=VALUE",
        ),
    ]
    signature: Annotated[
        str,
        Flag(
            "--signature",
            TEXT,
            "The signature of a SavedModel (default: serving_default).",
            default="",
            metavar="NAME",
        ),
    ]
    outputs: Annotated[
        Texts,
        Flag(
            "--outputs",
            NAMES,
            "The output nodes of a TensorFlow graph or TF1 checkpoint.",
            default=(),
            metavar="NODE,NODE",
        ),
    ]
    tflite_precision: Annotated[
        str,
        Flag(
            "--precision",
            TEXT,
            "Of a TFLite artifact's weights; int8 needs --samples.",
            note="'float16' or 'int8'.",
            default="",
            choices=("float16", "int8"),
        ),
    ]
    seed: Annotated[
        int,
        Flag("--seed", WHOLE, "The seed of synthesized inputs.", fills="wants.seed", default=0, least=0),
    ]
    repairs: Annotated[
        Iterable[str] | None,
        Flag(
            "--repair",
            SEVERAL,
            "Apply this repair rule wherever its pattern is, and no other (repeatable).",
            note="Empty: no rule; None: those that the artifact needs.",
            metavar="RULE",
            without=("--no-repair", "Apply no repair rule."),
        ),
    ]
    static: Annotated[
        bool,
        Flag(
            "--static",
            BARE,
            "Resolve the converted model's shapes for the one size that it takes.",
            default=False,
        ),
    ]
    fp16: Annotated[
        bool,
        Flag(
            "--fp16",
            BARE,
            "Keep the converted model's weights as float16.",
            fills="precision.fp16",
            default=False,
        ),
    ]
    weight_bits: Annotated[
        int,
        Flag(
            "--weight-bits",
            WHOLE,
            "Keep the converted model's weights as integers of 8 or 4 bits.",
            note="0: not.",
            fills="precision.weight_bits",
            default=0,
            choices=("8", "4"),
        ),
    ]
    budget: Annotated[
        float | None,
        Flag(
            "--budget",
            NUMBER,
            "The least SQNR accepted with --fp16 (default 50), --weight-bits or at low precision (30).",
            note="In dB; it replaces float32's tolerance.",
            fills="precision.budget",
            metavar="DB",
        ),
    ]
    metrics: Annotated[
        Metrics,
        Flag(
            "--metric",
            METRICS,
            "top1, top5, cosine, sqnr, mse, iou or file.py:function.",
            note=(
                "'cosine=0.999' requires a value. A function of this process is called in it with"
                " (reference, outputs) of a case and returns a number; see mnnprep.attempt.task_metrics."
            ),
            default=(),
            metavar="NAME[=VALUE]",
        ),
    ]
    targets: Annotated[
        Texts,
        Flag(
            "--target",
            TARGETS,
            "Prove it there too: arm64, arm64:low, host:low, phone, engines (repeatable).",
            default=(),
            metavar="TARGET",
        ),
    ]
    engine: Annotated[
        str,
        Flag(
            "--engine",
            TEXT,
            "The MNN to convert with and to prove in, as 3.2.0 (default: the installed one).",
            note="It is added by `mnnprep target add host,engine=3.2.0`.",
            default="",
            metavar="VERSION",
        ),
    ]
    mnnconvert: Annotated[
        PathLike,
        Flag(
            "--mnnconvert",
            ABSOLUTE_PATH,
            "Another MNNConvert (env: MNNPREP_MNNCONVERT).",
            default="",
            metavar="PATH",
            env="MNNPREP_MNNCONVERT",
        ),
    ]
    timeout: Annotated[
        float,
        Flag(
            "--timeout",
            NUMBER,
            "Time limit in seconds for any one step.",
            fills="limits.timeout",
            default=1800.0,
            least=1,
            recorded=False,  # it decides whether there is a result, not which
        ),
    ]
    time_budget: Annotated[
        float,
        Flag(
            "--time-budget",
            NUMBER,
            "Seconds after the first attempt in which others are begun; 0: no limit.",
            default=120.0,
            least=0,
        ),
    ]
    memory: Annotated[
        int | str,
        Flag(
            "--memory",
            SIZE,
            "Limit of resident memory for any one step, as 8GB (default: three quarters of what is free).",
            note="A number is in bytes.",
            fills="limits.memory",
            default=0,
            metavar="SIZE",
        ),
    ]
    proof_memory: Annotated[
        int | str,
        Flag(
            "--proof-memory",
            SIZE,
            "The same for the proof, if the weights don't fit in --memory and are streamed.",
            note="0: as memory.",
            fills="limits.proof_memory",
            default=0,
            metavar="SIZE",
        ),
    ]
    trust: Annotated[
        bool,
        Flag(
            "--trust",
            BARE,
            "Let the source execute code and operators with side effects that its file holds.",
            default=False,
        ),
    ]


PREPARE = flags_of(PrepareOptions)


def request_of(source: str, options: Mapping[str, object], flags: Flags = PREPARE) -> Request:
    """The request for *source* with *options*, as the command line or Python has them; None: not given.

    Raises:
        UsageError: an option can't be read, or two contradict each other.
        TypeError: an option is not among *flags*.
    """
    from msgspec.structs import replace

    from mnnprep.model.request import Request, require_consistent

    if unknown := sorted(set(options) - set(flags)):
        raise TypeError(f"no such option: {', '.join(unknown)}")
    filled: dict[str, dict[str, object]] = {"": {}}
    for name, flag in flags.items():
        if (given := options.get(name)) is not None:
            group, field = flag.place
            filled.setdefault(group, {})[field] = flag.form.read(given)
    plain = Request(source=source)
    own = filled.pop("")
    parts = {group: replace(getattr(plain, group), **fields) for group, fields in filled.items()}
    request = replace(plain, **own, **parts)
    require_consistent(request)
    return request
