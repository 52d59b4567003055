"""The instrumented run: how large and how small the values of an ONNX model get.

The values of the main graph are made outputs, in parts of at most PART bytes, so that memory stays bounded in
large nets: each part is a run of its own, whose arrays are reduced to a few numbers and dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.comparison.tolerance import chunks
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.half import referring
from mnnprep.formats.onnx.net import OnnxNet, open_session
from mnnprep.formats.onnx.outline import sizes_at
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.formats.onnx.sums import Twin, adds_up
from mnnprep.model.files import Arrays
from mnnprep.model.half import HalfType, rounded
from mnnprep.model.magnitudes import Magnitude, Measured, Moved, Sum
from mnnprep.model.messages import CaseFile
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.model.running import case_inputs
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]
PART = 1 << 28  # bytes of values in one run
UNKNOWN = 1 << 24  # bytes that a value of unknown size is taken for


class MagnitudesJob(msgspec.Struct, frozen=True, kw_only=True):
    """Measure the values of ``model`` on ``cases``.

    With ``other``, a model with the same names of values that computes them otherwise, compare the values of
    both; its inputs and initializers are rounded to ``rounding`` if that is said, without those in ``exact``.
    ``part`` is the most bytes of values that are held at a time. The model refers to the files ``beside``.
    """

    model: ReadPath
    cases: list[CaseFile]
    directory: WritePath
    other: ReadPath = ""
    rounding: HalfType | None = None
    exact: list[str] = msgspec.field(default_factory=list)
    beside: list[ReadPath] = msgspec.field(default_factory=list)
    part: int = PART

    def rounded(self, name: str, array: Array) -> Array:
        """Return an input or initializer as the other model is given it."""
        return array if self.rounding is None or name in self.exact else rounded(array, self.rounding)


def magnitudes(job: MagnitudesJob) -> Measured:
    """Measure the inputs, the initializers and the results of the main graph.

    Raises:
        RefusedError: onnxruntime can't load the model.
        Refused: it does not take the inputs.
    """
    doing("measuring the values of the model")
    found = _Found()
    for name, tensor in graphs.tensors_of(job.model).items():
        found.add(name, tensor)
        if job.other:
            found.compare(name, tensor, job.rounded(name, tensor))
    inputs = [case_inputs(case.file.path) for case in job.cases]
    for arrays in inputs:
        for name, value in arrays.items():
            found.add(name, value)
            if job.other:
                found.compare(name, value, job.rounded(name, value))
    model = referring(Path(job.model))
    names = [o for node in model.graph.node if not _stored(node.op_type) for o in node.output if o]
    for part in _parts(names, skeleton(job.model), inputs[:1], job.part):
        _measure(model, job, part, inputs, found)
    return found.measured(
        [graphs.label(n) for n in model.graph.node if any(True for _ in graphs.subgraphs(n))]
    )


def _stored(operator: str) -> bool:
    return operator == "Constant"  # measured as a tensor


def _parts(names: list[str], model: ModelProto, inputs: Sequence[Arrays], most: int) -> Iterator[list[str]]:
    """Return *names* in parts of at most *most* bytes, by the sizes that the first case's shapes give."""
    sizes = sizes_at(model, {n: a.shape for arrays in inputs for n, a in arrays.items()})
    part: list[str] = []
    held = 0
    for name in names:
        size = sizes.get(name, UNKNOWN)
        if part and held + size > most:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def _measure(
    model: ModelProto, job: MagnitudesJob, names: list[str], inputs: Sequence[Arrays], found: _Found
) -> None:
    """Run the model, and the other one, for the values *names*."""
    wanted = set(names)
    opset = graphs.opset_of(model)
    nodes = [n for n in model.graph.node if adds_up(n) and n.output[0] in wanted]
    twins = [Twin(node, number, opset) for number, node in enumerate(nodes)]
    path = Path(job.directory) / "measured.onnx"
    beside = str(Path(job.model).parent.absolute())
    session = _session(model, names, twins, path, beside)
    other = _other(job, names, path, beside)
    for arrays in inputs:
        outputs = [*names, *(o for twin in twins for o in twin.outputs)]
        values = dict(zip(outputs, OnnxNet.compute(session, arrays, outputs), strict=True))
        for name in names:
            if isinstance(values[name], np.ndarray):
                found.add(name, values[name])
        for twin in twins:
            largest, *shapes = (values[name] for name in twin.outputs)
            sizes = [tuple(map(int, shape)) for shape in shapes]
            found.add_sum(twin, float(largest), sizes, values[twin.name].shape)
        if other is None:
            continue
        given = {n: job.rounded(n, a) for n, a in arrays.items()}
        common = [n for n in names if isinstance(values[n], np.ndarray) and values[n].dtype.kind == "f"]
        held = {o.name for o in other.get_outputs()}
        common = [n for n in common if n in held]
        for name, value in zip(common, OnnxNet.compute(other, given, common) if common else [], strict=True):
            found.compare(name, values.pop(name), value)


def _session(
    model: ModelProto, names: Sequence[str], twins: Sequence[Twin], path: Path, beside: str
) -> InferenceSession:
    stated = {o.name for o in model.graph.output}
    extra = type(model)()
    for twin in twins:
        extra.graph.node.extend(twin.nodes())
    for name in [*names, *(o for twin in twins for o in twin.outputs)]:
        if name not in stated:
            extra.graph.output.add(name=name)
    path.write_bytes(model.SerializeToString() + extra.SerializePartialToString())
    try:
        return open_session(str(path), optimize=False, data_directory=beside)
    finally:
        path.unlink()


def _other(job: MagnitudesJob, names: Sequence[str], path: Path, beside: str) -> InferenceSession | None:
    if not job.other:
        return None
    model = graphs.load_graph(job.other)
    made = {o for node in model.graph.node for o in node.output}
    return _session(model, [n for n in names if n in made], (), path, beside)


class _Found:
    """The numbers that are kept of each value."""

    def __init__(self) -> None:
        self._largest: dict[str, float] = {}
        self._least: dict[str, float] = {}
        self._infinite: set[str] = set()
        self._sums: dict[str, Sum] = {}
        self._moves: dict[str, list[float]] = {}  # power, noise, infinite, vanished

    def add(self, name: str, value: Array) -> None:
        """Add a value in one case; one that is not floating counts for nothing."""
        if value.dtype.kind != "f":
            return
        flat = value.reshape(-1)
        largest, least = self._largest.get(name, 0.0), self._least.get(name, math.inf)
        for chunk in chunks(flat.size):
            sizes = np.abs(flat[chunk])
            finite = np.isfinite(sizes)
            if not finite.all():
                self._infinite.add(name)
                sizes = sizes[finite]
            largest = max(largest, float(sizes.max(initial=0.0)))
            least = min(least, float(sizes[sizes > 0].min(initial=math.inf)))
        self._largest[name], self._least[name] = largest, least

    def add_sum(
        self, twin: Twin, largest: float, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]
    ) -> None:
        """Add a sum in one case."""
        terms = twin.terms(shapes, result)
        before = self._sums.get(twin.name, Sum(0, 0.0))
        total = twin.magnitudes(largest, terms)
        whole = total if math.isfinite(total) else 0.0
        self._sums[twin.name] = Sum(max(before.terms, terms), max(before.magnitudes, whole))

    def compare(self, name: str, value: Array, other: Array) -> None:
        """Add a value as both models compute it in one case."""
        if value.dtype.kind != "f" or other.shape != value.shape:
            return
        move = self._moves.setdefault(name, [0.0, 0.0, 0, 0])
        first, second = value.reshape(-1), other.reshape(-1)
        for chunk in chunks(first.size):
            a, b = first[chunk].astype(np.float64), second[chunk].astype(np.float64)
            there = np.isfinite(a)
            lost = there & ~np.isfinite(b)
            both = there & ~lost
            move[2] += int(np.count_nonzero(lost))
            move[3] += int(np.count_nonzero((b == 0) & (a != 0)))
            with np.errstate(over="ignore"):
                move[0] += float(np.square(a[there]).sum())
                move[1] += float(np.square(a[both] - b[both]).sum()) + float(np.square(a[lost]).sum())

    def measured(self, left_out: list[str]) -> Measured:
        """All of it."""
        values = {
            name: Magnitude(
                largest,
                least if math.isfinite(least := self._least[name]) else 0.0,
                name not in self._infinite,
            )
            for name, largest in self._largest.items()
        }
        moved = {name: Moved(_sqnr(m[0], m[1]), int(m[2]), int(m[3])) for name, m in self._moves.items()}
        return Measured(values=values, sums=self._sums, moved=moved, left_out=left_out)


def _sqnr(power: float, noise: float) -> float | None:
    """The SQNR in dB; None without noise.  The least float stands for minus infinity, which JSON lacks."""
    if noise == 0:
        return None
    if power == 0 or not math.isfinite(noise):
        return -1e9
    return 10 * math.log10(power / noise)


MAGNITUDES = Step.of(magnitudes, RUNTIME)
