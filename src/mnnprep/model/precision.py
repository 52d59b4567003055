"""How the converted model keeps its weights, and how near it must then come."""

from __future__ import annotations

import math

import msgspec

from mnnprep.errors import UsageError

HALF_SQNR = 50.0  # dB: weights as float16
QUANTIZED_SQNR = 30.0  # dB: weights as integers; less only where the caller says so


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """How the converted model keeps its weights.

    As they are, as float16, or as integers of ``weight_bits`` (8 or 4; 0: not).

    ``budget`` is the least SQNR, in dB, at which it is still accepted, also on targets that compute in half
    precision; None stands for the kind's own.
    """

    fp16: bool = False
    weight_bits: int = 0
    budget: float | None = None

    @property
    def reduced(self) -> bool:
        """Whether the weights are kept at less than float32."""
        return self.fp16 or bool(self.weight_bits)

    @property
    def sqnr_db(self) -> float | None:
        """The SQNR to reach; None if float32's own tolerance holds."""
        if not self.reduced:
            return None
        return self.budget if self.budget is not None else (QUANTIZED_SQNR if self.weight_bits else HALF_SQNR)


def make_precision(fp16: bool = False, weight_bits: int = 0, budget: float | None = None) -> Precision:
    """``--fp16``, ``--weight-bits`` and ``--budget``, checked.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    precision = Precision(fp16=fp16, weight_bits=weight_bits, budget=budget)
    require_precision(precision)
    return precision


def require_precision(precision: Precision, *, half: bool = False) -> None:
    """Require a precision that does not contradict itself; *half*: the model is run in half precision too.

    Raises:
        UsageError: it does.
    """
    weight_bits, budget = precision.weight_bits, precision.budget
    if weight_bits not in (0, 4, 8):
        raise UsageError("--weight-bits takes 8 or 4", seen=str(weight_bits), next="give --weight-bits 8")
    if precision.fp16 and weight_bits:
        raise UsageError(
            "the weights are kept as float16 or as integers, not both",
            seen=f"--fp16 --weight-bits {weight_bits}",
            next="give one of them",
        )
    if budget is not None and not (precision.reduced or half):
        raise UsageError(
            "--budget goes with --fp16, --weight-bits or a target of low precision",
            seen=f"{budget:g} dB",
            next="leave it out: float32 has its own tolerance",
        )
    if budget is not None and not 0 < budget < math.inf:
        raise UsageError(
            "--budget takes an SQNR above 0 dB, so that the error is smaller than the signal",
            seen=f"{budget:g} dB",
            next="give for example --budget 30",
        )
