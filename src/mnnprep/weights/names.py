"""How much text the names of a checkpoint's tensors may add up to.

A name is the keys that lead to a tensor, or to a container that may hold tensors.  A pickle says a key once
and uses it a million times, so that the names of a small file can take any time and memory to write out.
"""

from __future__ import annotations

from mnnprep.weights.pickle_scan import PickleError

TOGETHER = 1 << 28  # characters: a million tensors with names of 256


class NameBudget:
    """The text of the names written out so far."""

    def __init__(self) -> None:
        self._length = 0

    def add(self, length: int) -> None:
        """Enter a name of *length* characters.

        Raises:
            PickleError: the name is one too many.
        """
        self._length += length
        if self._length > TOGETHER:
            raise PickleError(f"the names of its tensors take more than {TOGETHER >> 20} MiB")
