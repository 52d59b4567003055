"""Which nodes of an artifact have an operator that MNN refuses, by name or by its list of operators."""

from __future__ import annotations

from mnnprep.attempt.results import Artifact
from mnnprep.mnn.convert import Converted
from mnnprep.mnn.frontends import OPERATORS, OperatorsJob
from mnnprep.model.messages import LocateJob
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

SHOWN = 5


def refused_nodes(workers: Workers, artifact: Artifact, converted: Converted, converter: str) -> list[str]:
    """The artifact's nodes of the operators that MNN refused: at most SHOWN, and how many there are more."""
    kind = artifact.format
    known: list[str] = []
    try:
        if not converted.refused_ops and kind.silent:
            known = workers.run(OPERATORS, OperatorsJob(frontend=kind.frontend, converter=converter)).names
        if not (kind.locate and (converted.refused_ops or known)):
            return []
        job = LocateJob(model=artifact.model, operators=converted.refused_ops, known=known)
        return cut_short(workers.run(kind.locate, job).nodes)
    except StepFailed:
        return []


def cut_short(nodes: list[str]) -> list[str]:
    """The first SHOWN of *nodes*, and how many there are more."""
    return nodes[:SHOWN] + ([f"and {len(nodes) - SHOWN} more"] if len(nodes) > SHOWN else [])
