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


class TrainingScope:
    """A graph with its subgraphs, or a local function: what decides its Dropouts' training_mode.

    ``booleans`` are its constants that are a single boolean, ``inputs`` the names of what it is given.
    """

    def __init__(self, opsets: Mapping[str, int], leftovers: list[Leftover]) -> None:
        self.opset = opsets.get("", 0)
        self.leftovers = leftovers
        self.booleans: dict[str, bool] = {}
        self.inputs: set[str] = set()
        self._dropouts: list[tuple[str, str]] = []  # (place, name of the training_mode input)

    def note(self, node: ScannedNode) -> None:
        """Note *node* if it behaves as in training."""
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
                self._leave(node, "training_mode is 1")
        elif any(node.outputs[1:]):
            more = ", ".join(filter(None, node.outputs[1:]))
            self._leave(node, f"it also gives {more}, which is training in opset {self.opset}")

    def _leave(self, node: ScannedNode, reason: str) -> None:
        self.leftovers.append(Leftover(node.op_type, node.place, reason))

    def close(self) -> None:
        """Decide the Dropouts, now that all constants of the scope are known."""
        for place, name in self._dropouts:
            value = self.booleans.get(name)
            if value is None:
                source = "an input" if name in self.inputs else "computed when the net runs"
                self.leftovers.append(Leftover("Dropout", place, f"its training_mode ({name}) is {source}"))
            elif value:
                self.leftovers.append(Leftover("Dropout", place, "training_mode is true"))
