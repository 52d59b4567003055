"""Which nodes of an ONNX graph behave as in training, by their operators' history in docs/Changelog.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mnnprep.formats.onnx.summary import Leftover


@dataclass
class ScannedNode:
    """A node of a scan: ``place`` is where it stands, ``integers`` its attributes of one integer."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    name: str = ""
    op_type: str = ""
    domain: str = ""
    place: str = ""
    attributes: list[tuple[int, int]] = field(default_factory=list)
    integers: dict[str, int] = field(default_factory=dict)


# Operators whose results follow from more than their inputs: a body, or chance.
NOT_OF_INPUTS = frozenset({"If", "Loop", "Scan", "SequenceMap", "Bernoulli", "Multinomial"})


class TrainingScope:
    """A graph with its subgraphs, or a local function: what decides its Dropouts' training_mode.

    ``booleans`` are its constants that are a single boolean, ``inputs`` the names of what it is given,
    ``stored`` those of its initializers.
    """

    def __init__(self, opsets: Mapping[str, int], leftovers: list[Leftover]) -> None:
        self.opset = opsets.get("", 0)
        self.leftovers = leftovers
        self.booleans: dict[str, bool] = {}
        self.inputs: set[str] = set()
        self.stored: set[str] = set()
        self._dropouts: list[tuple[str, str]] = []  # (place, name of the training_mode input)
        self._made: dict[str, ScannedNode] = {}
        self._twice: set[str] = set()  # names that two bodies have
        self._normalized: list[tuple[ScannedNode, str]] = []  # batch statistics, and why they are training

    def note(self, node: ScannedNode) -> None:
        """Note *node*, and whether it behaves as in training."""
        for name in filter(None, node.outputs):
            if self._made.setdefault(name, node) is not node:
                self._twice.add(name)
        if node.domain == "ai.onnx.preview.training":
            self._leave(node, "an operator of a training algorithm")
        if node.domain or node.op_type not in ("Dropout", "BatchNormalization"):
            return
        if self.opset < 7:
            if not node.integers.get("is_test", 0):
                self._leave(node, f"is_test is 0, which is training in opset {self.opset}")
        elif node.op_type == "Dropout":
            if self.opset >= 12 and len(node.inputs) > 2 and node.inputs[2]:
                self._dropouts.append((node.place, node.inputs[2]))
        elif self.opset >= 14:
            if node.integers.get("training_mode", 0):
                self._normalized.append((node, "training_mode is 1"))
        elif any(node.outputs[1:]):
            more = ", ".join(filter(None, node.outputs[1:]))
            self._normalized.append((node, f"it also gives {more}, which is training in opset {self.opset}"))

    def _leave(self, node: ScannedNode, reason: str) -> None:
        self.leftovers.append(Leftover(node.op_type, node.place, reason))

    def close(self) -> None:
        """Decide the Dropouts and the batch statistics, now that all constants of the scope are known.

        Statistics of constants are the same at inference: weights that are standardized.
        """
        for node, reason in self._normalized:
            if not self._is_constant(node.inputs[0] if node.inputs else ""):
                self._leave(node, reason)
        for place, name in self._dropouts:
            value = self.booleans.get(name)
            if value is None:
                source = "an input" if name in self.inputs else "computed when the net runs"
                self.leftovers.append(Leftover("Dropout", place, f"its training_mode ({name}) is {source}"))
            elif value:
                self.leftovers.append(Leftover("Dropout", place, "training_mode is true"))

    def _is_constant(self, name: str) -> bool:
        """Whether *name* follows from stored tensors alone; one that no node makes may be given."""
        waiting, seen = [name], set[str]()
        while waiting:
            last = waiting.pop()
            if last in seen or not last:
                continue
            seen.add(last)
            if last in self.inputs or last in self._twice:
                return False
            node = self._made.get(last)
            if node is None and last in self.stored:
                continue
            if node is None:
                return False
            if node.domain or node.op_type in NOT_OF_INPUTS or node.op_type.startswith("Random"):
                return False
            waiting += node.inputs
        return bool(name)
