"""A node of another domain whose type is also a standard operator's.

Measured with MNN 3.6.1: the domain is not looked at, and the node converts as the standard operator of that
name.
"""

from __future__ import annotations

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView

# Of these domains the operators that share a name with a standard one compute the same.
SAME_MEANING = frozenset({("com.microsoft", "Gelu")})


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, detail=node.domain)
        for node, _ in view.everything
        if node.domain not in STANDARD_DOMAINS
        and (view.supported is None or node.op_type in view.supported)
        and (node.domain, node.op_type) not in SAME_MEANING
    ]


RULE = Rule(
    name="foreign-domain",
    severity="wrong",
    operators=frozenset(),
    find=_find,
    hazard="MNN converts an operator of another domain as the standard one of the same name",
    remedy="replace it by standard operators, or check that it computes the same",
)
