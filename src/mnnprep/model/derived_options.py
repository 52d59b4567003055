"""The options of `compare` and `check`, which are among those of `prepare`."""

from __future__ import annotations

from typing import Annotated, TypedDict

from mnnprep.model.flags import flags_of
from mnnprep.model.forms import Metrics, PathLike, Texts
from mnnprep.model.options import PREPARE, Intervals, Sizes


class CompareOptions(TypedDict, total=False):
    """The options of `compare` beside the two models: those of `prepare`, some with a help of their own."""

    inputs: Annotated[Texts, "An input of FIRST, as 'x=float32[batch,224,224,3]'."]
    dims: Sizes
    ranges: Intervals
    samples: PathLike
    preprocess: Texts
    sample_limit: int
    signature: str
    outputs: Texts
    metrics: Metrics
    seed: int
    timeout: float
    trust: Annotated[
        bool, "Let the sources execute code and operators with side effects that their files hold."
    ]


COMPARE = flags_of(CompareOptions, PREPARE)


class CheckOptions(TypedDict, total=False):
    """The options of `check` that say where the model is to run and on which inputs; those of `prepare`."""

    targets: Annotated[
        Texts,
        "What it gets wrong there: arm64:low, phone (repeatable). ONNX is run, confined.",
    ]
    inputs: Texts
    dims: Sizes
    ranges: Intervals
    samples: PathLike
    preprocess: Texts
    sample_limit: int
    seed: int


CHECK = flags_of(CheckOptions, PREPARE)
