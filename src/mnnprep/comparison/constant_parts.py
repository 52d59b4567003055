"""Parameters that a source reads in parts, or computes with before any input has a say.

An exporter folds what depends on no input: position embeddings lose a row, a class token takes one in, a
normalized weight is stored as it comes out.  The parameter itself is then nowhere in the artifact, and all of
it that can reach an output is.  A :class:`Trail` holds what one run of the source made of its parameters
alone; :func:`held` follows it from a parameter to the places where an input comes in:

* a part that is in the artifact ends the search there: bit by bit if values were only moved, else to within
  a few roundings; in its order, its axes permuted at most, since a part is no stack of gates;
* a part that meets an input, decides something or is an output must be there itself;
* every other part must be held by those that are made of it.  One that nothing reads does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.comparison.folded_weights import close
from mnnprep.comparison.layouts import bits, layouts

Array = npt.NDArray[Any]


@dataclass
class Part:
    """A value made of parameters alone.

    ``computed`` says whether arithmetic made it, ``used`` whether more than other parts read it; ``readers``
    are the parts that do, by their number in the trail.
    """

    value: Array
    computed: bool
    used: bool = False
    readers: set[int] = field(default_factory=set)


@dataclass
class Trail:
    """What one run made of the parameters ``roots``, each the number of its part; ``parts`` in order."""

    parts: list[Part] = field(default_factory=list)
    roots: dict[str, int] = field(default_factory=dict)


def held(trail: Trail, artifact: Mapping[str, Array]) -> set[str]:
    """The parameters of *trail* of which all that reaches an output is in *artifact*."""
    stored = _Stored(artifact)
    verdicts: dict[int, bool | None] = {}  # None: nothing reads it
    for number in reversed(range(len(trail.parts))):  # the readers of a part come after it
        part = trail.parts[number]
        read = [v for v in (verdicts[r] for r in part.readers) if v is not None]
        if not part.used and not read:
            verdicts[number] = None
        else:
            verdicts[number] = (not part.used and all(read)) or stored.holds(part)
    return {name for name, number in trail.roots.items() if verdicts[number]}


class _Stored:
    """The artifact's tensors, by dtype and number of elements."""

    def __init__(self, artifact: Mapping[str, Array]) -> None:
        self._alike: dict[tuple[str, int], list[Array]] = {}
        for array in artifact.values():
            self._alike.setdefault((str(array.dtype), array.size), []).append(array)

    def holds(self, part: Part) -> bool:
        """Whether one of them is the part, its axes permuted at most."""
        value = part.value
        candidates = self._alike.get((str(value.dtype), value.size), [])
        return any(_same(layout, c, part) for c in candidates for layout in layouts(value))


def _same(layout: Array, candidate: Array, part: Part) -> bool:
    if np.array_equal(bits(layout), bits(candidate)):
        return True
    if not part.computed or layout.dtype.kind != "f":
        return False
    return close(layout.astype(np.float64).reshape(-1), candidate.astype(np.float64).reshape(-1))
