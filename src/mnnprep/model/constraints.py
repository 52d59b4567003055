"""A source's demands on a dimension's size beyond its declared range, found by trying.

A net may take only multiples of 32, sizes from a kernel's on, sizes up to its position table's, or two
dimensions that are equal. That is not a fault of anything made from it, but whoever ships it must know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from mnnprep.model.signature import Dim

STEPS = (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 96, 128)  # by which a size may have to change
MULTIPLES = (1, 2, 3, 5)  # steps away from the base that must all be taken
JOINT_STEPS = (1, 2, 4, 8, 16, 32, 64)
Takes = Callable[[dict[str, int]], bool]


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint on sizes: ``size % modulus == remainder``, from ``least`` to ``most``.

    None stands for nothing found. If ``partner`` names another dimension, ``size == its size + offset`` as
    well.
    """

    modulus: int = 1
    remainder: int = 0
    least: int | None = None
    most: int | None = None
    partner: str = ""
    offset: int = 0

    def admits(self, size: int) -> bool:
        """Whether *size* itself satisfies it; a partner's size is not looked at."""
        return (
            size % self.modulus == self.remainder
            and (self.least is None or size >= self.least)
            and (self.most is None or size <= self.most)
        )

    def nearest(self, size: int, dim: Dim) -> int | None:
        """Return the admitted size of *dim* that is nearest to *size*, the larger of two.

        None when there is none near.
        """
        low = self.least if self.least is not None else 0
        bounded = max(low, size) if self.most is None else min(self.most, max(low, size))
        around = sorted(
            range(max(0, bounded - self.modulus), bounded + self.modulus + 1),
            key=lambda s: (abs(s - bounded), -s),
        )
        return next((s for s in around if self.admits(s) and dim.admits(s)), None)

    def moved(self, name: str, size: int) -> dict[str, int]:
        """The sizes to set so that dimension *name* has *size*: its own, and its partner's."""
        return {name: size} | ({self.partner: size - self.offset} if self.partner else {})

    def words(self, name: str) -> str:
        """Return the constraint on dimension *name* as an app developer reads it.

        Such as ``height % 32 == 0, height >= 64``.
        """
        parts = [f"{name} % {self.modulus} == {self.remainder}"] if self.modulus > 1 else []
        parts += [f"{name} >= {self.least}"] if self.least is not None else []
        parts += [f"{name} <= {self.most}"] if self.most is not None else []
        sign = f" {'+' if self.offset > 0 else '-'} {abs(self.offset)}" if self.offset else ""
        parts += [f"{name} == {self.partner}{sign}"] if self.partner else []
        return ", ".join(parts)


def fitting(
    takes: Takes, dim: Dim, base: dict[str, int], refused: list[int], constraint: Constraint | None
) -> tuple[int, int] | None:
    """Return the range to declare in place of *dim*'s own, of which the source refuses *refused*.

    None if that is no more than the constraint's multiples, or sizes that two dimensions must have in common:
    a range is a promise of its ends, not of what lies between them.
    """
    assert dim.min is not None and dim.max is not None
    found = constraint or _limits(takes, Constraint(), dim, base, refused)
    ends = found.least or dim.min, found.most or dim.max
    range_ = max(dim.min, ends[0]), min(dim.max, ends[1])
    return range_ if constraint is None or range_ != (dim.min, dim.max) else None


def discover(
    takes: Takes, dim: Dim, base: dict[str, int], taken: list[int], refused: list[int], others: list[Dim]
) -> Constraint | None:
    """Find a constraint under which the source takes sizes of *dim*.

    The source takes the sizes *base*. The constraint explains why those *refused* are.

    *takes* says whether the source computes at given sizes of all dimensions, *taken* are sizes at which it
    did.  The constraint is sufficient, as far as was tried; a source may take sizes beside it.  None when
    nothing simple explains all that was refused.
    """
    found = _alone(takes, dim, base) or next(
        filter(None, (_with(takes, dim, other, base) for other in others if other.name != dim.name)), None
    )
    if found is None:
        return None
    found = _limits(takes, found, dim, base, refused)
    multiples = [s for s in taken if s % found.modulus == found.remainder]
    return (
        found
        if all(map(found.admits, multiples)) and (found.partner or not any(map(found.admits, refused)))
        else None
    )


def sum_of(takes: Takes, dim: Dim, base: dict[str, int], others: list[Dim]) -> str:
    """The sum of two of *others* that the size of *dim* has to be, such as ``past+new``; empty if it is none.

    The source takes the sizes *base*, and none where only one of the three is another.
    """
    for one, other in itertools.combinations([d for d in others if d.name != dim.name], 2):
        sizes = [base[d.name] for d in (dim, one, other)]
        if sizes[0] != sizes[1] + sizes[2]:
            continue
        together = all(
            takes(base | {dim.name: sizes[0] + 1, part.name: base[part.name] + 1}) for part in (one, other)
        )
        if together and not any(takes(base | {d.name: base[d.name] + 1}) for d in (dim, one, other)):
            return f"{one.name}+{other.name}"
    return ""


def _alone(takes: Takes, dim: Dim, base: dict[str, int]) -> Constraint | None:
    """The smallest step by which the size may change, as a modulus; None when it can't be changed alone."""
    size = base[dim.name]
    for step in STEPS:
        sides = [
            [s for k in MULTIPLES if (s := size + sign * k * step) > 0 and dim.admits(s)] for sign in (1, -1)
        ]
        enough = 2 if size % step else 1  # one more size is little to go by, but where the base is a multiple
        if any(len(side) >= enough and all(takes(base | {dim.name: s}) for s in side) for side in sides):
            return Constraint(modulus=step, remainder=size % step)
    return None


def _with(takes: Takes, dim: Dim, other: Dim, base: dict[str, int]) -> Constraint | None:
    """The same for two dimensions that change together."""
    size, offset = base[dim.name], base[dim.name] - base[other.name]
    for step in JOINT_STEPS:
        near = next(
            (
                s
                for s in (size + step, size - step)
                if s > max(0, offset) and dim.admits(s) and other.admits(s - offset)
            ),
            None,
        )
        if near is not None and takes(base | {dim.name: near, other.name: near - offset}):
            return Constraint(modulus=step, remainder=size % step, partner=other.name, offset=offset)
    return None


def _limits(
    takes: Takes, found: Constraint, dim: Dim, base: dict[str, int], refused: list[int]
) -> Constraint:
    """Return *found* with the smallest and the largest size that the source takes.

    It does so if the source refused one beyond the base.
    """
    size = base[dim.name]
    steps = {
        -1: [s for s in refused if s < size and found.admits(s)],
        1: [s for s in refused if s > size and found.admits(s)],
    }
    if found.partner:
        ends = {-1: dim.min, 1: dim.max}
        steps = {
            sign: [nearest]
            for sign, end in ends.items()
            if end is not None and (nearest := found.nearest(end, dim)) not in (None, size)
        }
    for sign, beyond in steps.items():
        if not beyond:
            continue
        good, bad = 0, abs((min(beyond) if sign < 0 else max(beyond)) - size) // found.modulus
        if takes(base | found.moved(dim.name, size + sign * bad * found.modulus)):
            continue
        while bad - good > 1:
            middle = (good + bad) // 2
            if takes(base | found.moved(dim.name, size + sign * middle * found.modulus)):
                good = middle
            else:
                bad = middle
        end = size + sign * good * found.modulus
        found = msgspec.structs.replace(found, **({"least": end} if sign < 0 else {"most": end}))
    return found
