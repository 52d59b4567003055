"""How deep the dictionaries of a checkpoint may lie in each other, and how much text their keys may add up to.

A tensor's name is the keys that lead to it.  A pickle says a key once and uses it a million times, and nests as deep as it is long,
so that the names of a small file can take any time and memory to write out.
"""

from __future__ import annotations

from mnnprep.weights.opcodes import PickleError

DEEPEST = 500  # a deep net pickled as a module takes about 100
TOGETHER = 1 << 28  # characters: a million tensors with names of 256


class Written:
    """The text of the names written out so far."""

    def __init__(self) -> None:
        self._length = 0

    def add(self, depth: int, length: int) -> None:
        """Enter a name of *length* characters, *depth* dictionaries deep. Raises PickleError for one too many."""
        self._length += length
        if depth > DEEPEST:
            raise PickleError(f"its dictionaries lie more than {DEEPEST} deep in each other")
        if self._length > TOGETHER:
            raise PickleError(f"the names of its tensors take more than {TOGETHER >> 20} MiB")
