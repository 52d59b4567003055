"""The cases that are lost in the source's own rounding.

If rounding moves an output by more than may be allowed, no comparison says anything: such a case is *lost in
noise*.
A synthesized one is set aside and named; a real one (``--samples``) is what the model is for, so it stands,
and the proof fails.
"""

from __future__ import annotations

from collections.abc import Mapping

from mnnprep.comparison.tolerance import Array, Tolerance, peak_of
from mnnprep.model.messages import ORIGIN

LEAST_CASES = 3  # fewer prove nothing


def lost_in_noise(tolerance: Tolerance, case: int, outputs: Mapping[str, Array]) -> str:
    """The outputs of a case that are lost in the noise, with it; empty if none does."""
    found = [n for n, a in outputs.items() if a.dtype.kind == "f" and tolerance.lost_in_noise(n, a, case)]
    shares = {n: tolerance.noise_of(n, case) / peak_of(outputs[n].reshape(-1)) for n in found}
    return ", ".join(f"noise of {share:.2g} of the largest value in {name}" for name, share in shares.items())


def real(origin: str) -> bool:
    """Whether a case of this origin holds real inputs: those of ``--samples``."""
    return origin.startswith(ORIGIN)
