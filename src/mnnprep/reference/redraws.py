"""Drawing a case again whose inputs leave the source without numbers.

A mask that hides every key of a row gives NaN, in most frameworks by 0/0 of a softmax: what an export gives
there says nothing.  Whether True means kept or ignored is the model's affair, so that the masks of a redrawn
case are tried in either polarity, as padding makes them: a run along the last axis, never all hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mnnprep.model.files import Arrays
from mnnprep.model.net import Case, Net
from mnnprep.model.signature import Range, TensorSpec
from mnnprep.reference.inputs import is_mask, run_mask, synthesize

MOST_REDRAWS = 8  # of one case
MOST_FAILURES = 2  # cases of which no redraw is finite: after these the source is taken as it is
STEP = 1001  # between the seeds of two draws of one case


@dataclass
class Redraws:
    """What became of the cases that were not finite, by their origins."""

    mended: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """Whether no further case is to be drawn again."""
        return len(self.failed) >= MOST_FAILURES

    def reason(self) -> str:
        """That some cases are not finite, whatever was drawn; empty if none is."""
        if not self.failed:
            return ""
        return (
            f"the source's outputs are not finite for {', '.join(self.failed)}, nor for any of {MOST_REDRAWS}"
            " other draws of each; say which values the inputs have with --range, or give real ones with"
            " --samples"
        )


def draws(
    specs: tuple[TensorSpec, ...],
    sizes: Mapping[str, int],
    seed: int,
    ranges: Mapping[str, Range],
    scale: float = 1.0,
) -> Iterator[tuple[str, Arrays]]:
    """The MOST_REDRAWS inputs to try in place of those of *seed*, each with what it is."""
    binary = [s for s in specs if is_binary(s, ranges.get(s.name)) and s.shape]
    for attempt in range(1, MOST_REDRAWS + 1):
        inverted = bool(binary) and attempt % 2 == 1
        other = seed + STEP * (attempt // 2 if binary else attempt)
        arrays = synthesize(specs, sizes, other, ranges, scale)
        for position, spec in enumerate(binary):
            rng = np.random.Generator(np.random.PCG64([other, len(specs) + position]))
            mask = run_mask(arrays[spec.name].shape, rng)
            arrays[spec.name] = (mask ^ inverted).astype(spec.dtype)
        yield f"seed {other}" + (", masks inverted" if inverted else ""), arrays


def is_binary(spec: TensorSpec, interval: Range | None) -> bool:
    """Whether an input holds 0 and 1 alone, by its dtype, its name or its range."""
    kind = np.dtype(spec.dtype).kind
    return kind == "b" or (interval is None and is_mask(spec)) or (kind in "iu" and interval == (0.0, 1.0))


def has_numbers(net: Net, case: Case, *, masked: bool) -> bool:
    """Whether the outputs of *case* hold no NaN, and are finite somewhere.

    With *masked*, those in float64 too, if the framework can: it may take another of its kernels there, which
    guards a row that is all hidden where the first does not, or the other way round.
    """
    if not _numbers(case.outputs):
        return False
    precise = net.run_precise(case.inputs) if masked else None
    return precise is None or _numbers(precise)


def _numbers(outputs: Arrays) -> bool:
    floats = [a for a in outputs.values() if a.dtype.kind == "f" and a.size]
    return all(not np.isnan(a).any() and np.isfinite(a).any() for a in floats)
