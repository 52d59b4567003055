"""Which input or output of a converted model is which of the artifact's.

MNN's ONNX frontend keeps the names; the Torch frontend calls them ``x.1`` and ``42``, in order; the
TensorFlow frontend drops a trailing Identity, so that an output takes the name of what is before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class NameMap(msgspec.Struct, frozen=True):
    """``names`` maps the artifact's names to MNN's, in the artifact's order.

    ``problem`` says why there is no such map.
    """

    names: dict[str, str]
    problem: str = ""


def match_names(artifact: Sequence[str], mnn: Sequence[str], kind: str) -> NameMap:
    """Pair the *artifact*'s names with *mnn*'s: by name if both have it, the rest by position.

    *kind* is ``input`` or ``output``, for the text of ``problem``: the counts don't agree.
    """
    left = [name for name in dict.fromkeys(artifact) if name not in mnn]
    right = [name for name in dict.fromkeys(mnn) if name not in artifact]
    if len(left) != len(right):
        return NameMap(
            {},
            f"the {kind}s can't be matched: the artifact has {_listed(artifact)}, the converted model"
            f" {_listed(mnn)}",
        )
    renamed = dict(zip(left, right, strict=True))
    return NameMap({name: renamed.get(name, name) for name in dict.fromkeys(artifact)})


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
