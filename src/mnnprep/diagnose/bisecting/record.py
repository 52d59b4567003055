"""The record of a bisection."""

from __future__ import annotations

import msgspec

from mnnprep.diagnose.bisecting.finding import Growth


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `bisect`.

    ``outcome`` is one of:

    - ``agrees``: MNN computes what the artifact computes, in every case that was run;
    - ``node``: one node, wrong when it runs alone on the reference's values;
    - ``fused``: nodes that MNN made one of, right one by one;
    - ``context``: nodes that are wrong only together with those around them (the repro holds all of them);
    - ``gradual``: no node makes the error alone, it grows (``growth``);
    - ``stale``: the bundle's converted model is wrong, one converted now is right;
    - ``unresolved``: see ``reason``.

    ``failure`` says how MNN fails: ``differs``, ``refused``, ``crash``, ``time``, ``memory`` or ``error``;
    empty if it agrees. ``nodes`` are operator and name, ``where`` the body of control flow they are in.
    ``excess`` is how many times the tolerance the value ``value`` is off in the whole model, ``upstream``
    what the node takes, ``alone`` the value when its node gets the reference's values; None if there is no
    number.  ``made_here``: the error is made by these nodes and did not come from upstream.
    ``artifact_differs`` lists the cases where the artifact itself, in onnxruntime, is not what the source
    computed: no fault of MNN's. ``explained`` and ``unexplained`` are the other failing cases that the same
    nodes do and do not account for. ``cause`` is why half precision is not enough there, in a line.
    """

    bundle: str
    outcome: str
    failure: str = ""
    nodes: list[str] = msgspec.field(default_factory=list)
    where: str = ""
    value: str = ""
    case: int | None = None
    reason: str = ""
    message: str = ""
    made_here: bool = False
    excess: float | None = None
    upstream: float | None = None
    alone: float | None = None
    growth: list[Growth] = msgspec.field(default_factory=list)
    artifact_differs: list[int] = msgspec.field(default_factory=list)
    explained: list[int] = msgspec.field(default_factory=list)
    unexplained: list[int] = msgspec.field(default_factory=list)
    model_nodes: int = 0
    conversions: int = 0
    runs: int = 0
    memory_ratio: float | None = None
    cause: str = ""
    repro: list[str] = msgspec.field(default_factory=list)
