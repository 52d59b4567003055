"""The cost of a lower precision of the weights, in figures for people to decide by.

The verdict is `mnn_compare`'s.
"""

from __future__ import annotations

import numpy as np

from mnnprep.comparison.noise import real
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, Status
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.precision import Precision
from mnnprep.model.running import case_outputs


def precision_cost(
    cases: list[CaseFile], ran: RunResult, compared: Check, precision: Precision, size: int
) -> Check:
    """Make the ``precision`` check.

    It states how the weights are kept, the worst SQNR (in dB, of an output over all cases) and error, the
    size in bytes, and how often the largest element of a row is the same as in the reference (``same_top1``
    of ``rows``: over the real samples if there are any, for outputs of the form [rows, classes]).
    """
    kept = f"{precision.weight_bits}-bit integers" if precision.weight_bits else "float16"
    rows = same = 0
    samples = [case for case in cases if real(case.origin)]
    for case in samples or cases:
        result = ran.outputs.get(str(case.index))
        actual = load_arrays(result.path) if result else {}
        for name, reference in case_outputs(case.file.path).items():
            other = actual.get(name)
            scores = reference.ndim == 2 and reference.shape[1] > 1 and reference.dtype.kind == "f"
            if scores and other is not None and other.shape == reference.shape:
                rows += reference.shape[0]
                same += int(np.count_nonzero(reference.argmax(-1) == other.argmax(-1)))
    numbers: dict[str, Figure] = {"weights": kept, "bytes": size, "least_sqnr_db": precision.sqnr_db or 0.0}
    numbers |= {
        name: compared.numbers[name]
        for name in ("sqnr_db", "max_abs", "max_rel", "cosine")
        if name in compared.numbers
    }
    over_all = [
        float(v)
        for name, v in compared.numbers.items()
        if name.startswith("sqnr_db:") and isinstance(v, float)
    ]
    if over_all:
        numbers["sqnr_db"] = min(over_all)
    if rows:
        numbers |= {"rows": rows, "same_top1": same, "same_top1_share": same / rows}
    if compared.status is Status.PASSED:
        return catalog.PRECISION.passed(subject=kept, numbers=numbers)
    reason = (
        f"with weights as {kept} the outputs are below {precision.sqnr_db or 0:g} dB; accept less with"
        " --budget, or keep more bits"
    )
    return catalog.PRECISION.failed(reason, subject=kept, numbers=numbers)
