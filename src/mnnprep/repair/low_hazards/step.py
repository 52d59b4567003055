"""The step that runs an ONNX model on cases, and tells what precision ``low`` will do to it in MNN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.magnitudes import MagnitudesJob, magnitudes
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.magnitudes import Magnitude, Measured
from mnnprep.model.messages import CaseFile
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.repair.low_hazards.as_mnn import only_integers, write_low
from mnnprep.repair.low_hazards.corners import corner_cases
from mnnprep.repair.low_hazards.findings import OVERFLOW, Place, find
from mnnprep.repair.support.reading import line_in
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from onnx import NodeProto


class LowJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run ``model`` on ``cases``, in float32 and rounded as MNN rounds at precision ``low``.

    It refers to the files ``beside``.  ``ranges`` are those that were declared for its inputs: at their
    corners it is run, too, to see what overflows there.
    """

    model: ReadPath
    cases: list[CaseFile]
    directory: WritePath
    beside: list[ReadPath] = msgspec.field(default_factory=list)
    ranges: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)


class LowFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A place that half precision breaks; the fields are those of `repair.steps.Finding`."""

    rule: str
    hazard: str
    remedy: str
    node: str
    operator: str
    detail: str
    source: str


class LowFindings(msgspec.Struct, frozen=True, kw_only=True):
    """The findings, the ``magnitudes`` behind them, and the nodes whose bodies were not looked into.

    ``sqnr_db`` is that of the worst output as far as rounding alone goes; None if no output moves.
    """

    findings: list[LowFinding]
    magnitudes: dict[str, Magnitude]
    left_out: list[str]
    sqnr_db: float | None


def low_hazards(job: LowJob) -> LowFindings:
    """Find what precision ``low`` breaks in the main graph.

    Raises:
        RefusedError: onnxruntime can't load the model, or the type of a value is unknown.
    """
    doing("rounding the model as MNN does")
    other = write_low(Path(job.model), Path(job.directory))
    found = _measured(job, job.cases, other)
    corners = corner_cases(job.model, job.cases, job.ranges, Path(job.directory))
    at_corners = _measured(job, corners, other) if corners else None
    other.unlink()
    graph = skeleton(job.model).graph
    outputs = [m.sqnr_db for o in graph.output if (m := found.moved.get(o.name)) and m.sqnr_db is not None]
    findings = [_finding(place) for place in find(graph, found)]
    if at_corners is not None:
        findings += _only_there(find(graph, at_corners), {f.node for f in findings})
    return LowFindings(
        findings=findings,
        magnitudes=found.values,
        left_out=found.left_out,
        sqnr_db=min(outputs, default=None),
    )


def _measured(job: LowJob, cases: list[CaseFile], other: Path) -> Measured:
    return magnitudes(
        MagnitudesJob(
            model=job.model,
            cases=cases,
            directory=job.directory,
            other=str(other),
            rounding="float16",
            exact=only_integers(skeleton(job.model).graph),
        )
    )


def _only_there(places: Iterable[Place], told: set[str]) -> list[LowFinding]:
    """What overflows at the corners of the ranges, without the nodes that were *told* of.

    Nothing else counts there: an input of equal numbers, which no user has, loses its bits in every norm.
    """
    return [
        msgspec.structs.replace(finding, detail=f"{finding.detail}, at a corner of the declared ranges")
        for place in places
        if place.hazard is OVERFLOW and (finding := _finding(place)).node not in told
    ]


def _finding(place: Place) -> LowFinding:
    return LowFinding(
        rule=place.hazard.name,
        hazard=place.hazard.hazard,
        remedy=place.hazard.remedy,
        node=place.name,
        operator="" if place.node is None else place.node.op_type,
        detail=place.detail,
        source="" if place.node is None else line_in(_texts(place.node)),
    )


def _texts(node: NodeProto) -> Iterator[str]:
    yield from (entry.value for entry in node.metadata_props if entry.key.endswith("stack_trace"))
    yield node.doc_string


LOW_HAZARDS = Step.of(low_hazards, RUNTIME)
