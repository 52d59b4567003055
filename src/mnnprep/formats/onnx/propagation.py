"""Whether ONNX's data propagation stays small in a graph.

With ``data_prop`` ONNX's shape inference keeps the values of integer lists that shapes are made of
(onnx/defs: the operators with a ``PartialDataPropagationFunction``), number by number. Concat adds them up:
thirty nodes that each take the last list twice make a list of 2**30 sizes out of one of four.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

MOST = 1 << 22  # numbers in all lists of a graph together
LONGEST_SHAPE = 64  # dimensions that are counted for a Shape
KEPT = frozenset(
    {"Add", "Sub", "Mul", "Cast", "Identity", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Gather"}
)

Step = tuple[str, Sequence[Hashable], Sequence[Hashable]]  # operator, inputs, outputs


def stays_small(
    steps: Iterable[Step], constants: Mapping[Hashable, int], functions: Mapping[str, int]
) -> bool:
    """Whether the lists that are propagated hold at most MOST numbers together.

    *steps* are the nodes in order, those of bodies included; *constants* the lengths of the stored lists;
    *functions* the Concats in each function of the model's own, by its name.
    """
    lengths = dict(constants)
    total = 0
    for operator, inputs, outputs in steps:
        known = [lengths.get(name) for name in inputs]
        held = [n for n in known if n is not None]
        if operator in ("Shape", "Size"):
            length = LONGEST_SHAPE
        elif operator == "Concat" and len(held) == len(known):
            length = sum(held)
        elif operator in KEPT and held:
            length = max(held)
        elif operator in functions:
            length = max(held, default=LONGEST_SHAPE) << min(functions[operator], 64)
        else:
            continue
        total += length
        if total > MOST:
            return False
        lengths.update(dict.fromkeys(outputs, length))
    return True
