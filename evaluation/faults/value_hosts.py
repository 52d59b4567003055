"""The nets of the faults by value, in each format, and the faults planted in each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.faults import judge
from evaluation.faults.judge import Arrays
from evaluation.faults.value_inputs import Inputs, Ranges, climbed, odd, ordinary, wild
from evaluation.faults.value_onnx import WAYS, OnnxGraph, Planted, Rewrite
from evaluation.nets import value_nets
from evaluation.places import NETS
from mnnprep.model.messages import InputSpecs
from mnnprep.model.request import Request

FORMATS = {"onnx": 100, "torch": 60, "tensorflow": 40}  # with the faults in each, of 200
WILD = 40  # inputs
DRAWN = 12  # ordinary inputs: beyond what these reach lies what random ones hardly find
RARE = 1  # of the ordinary inputs show a fault at most
CLIMB = 120  # steps
SPECIAL = 0.5  # of the faults are at operators of their own kind, as far as a net has them
TRIES = 40  # for one fault


class Graph(Protocol):
    """A graph of a format: ``names`` are its floating values."""

    names: list[str]

    def values(self, names: Sequence[str], arrays: Arrays) -> Arrays: ...

    def scalars(self) -> list[float]: ...

    def save(self, planted: Planted, path: Path) -> None: ...

    def bent(self, kind: str, value: str, bound: float, end: float, by: float, way: str) -> Rewrite: ...

    def special(self, random: np.random.Generator) -> Iterator[Planted]: ...


@dataclass(frozen=True)
class Fault:
    """A planted fault: the file that has it."""

    kind: str
    place: str
    file: Path


@dataclass
class Host:
    """A net in one format."""

    name: str
    format: str
    work: Path
    inputs: Inputs
    ranges: Ranges
    source: str
    arguments: dict[str, str] = field(default_factory=dict)

    def request(self) -> Request:
        wants = InputSpecs(ranges=dict(self.ranges))
        return Request(source=self.source, factory_args=self.arguments, wants=wants)

    def faults(self, artifact: Path, count: int, seed: int) -> Iterator[Fault]:
        """The first *count* faults in *artifact* that move an output, by a generator of this *seed*."""
        random = np.random.default_rng([seed, *map(ord, self.name + self.format)])
        graph = self._graph(artifact)
        reach = Reach(self, graph)
        specials = list(graph.special(random))
        random.shuffle(specials)  # type: ignore[arg-type]
        made = 0
        for number in range(count * TRIES):
            if made == count:
                return
            if specials and random.random() < SPECIAL:
                planted, seen = specials.pop(), None
            else:
                planted, seen = reach.fault(random)
            if planted is None:
                continue
            file = self.work / f"{self.format}-{self.name}-{number}{artifact.suffix}"
            graph.save(planted, file)
            if (
                self._shown(artifact, file) <= RARE
                and self._moved(graph, artifact, file, seen) >= judge.LEAST
            ):
                made += 1
                yield Fault(planted.kind, planted.place, file)

    def _graph(self, artifact: Path) -> Graph:
        if self.format != "tensorflow":
            return OnnxGraph(artifact)
        from evaluation.faults.value_tensorflow import TensorFlowGraph

        return TensorFlowGraph(artifact)

    def _net(self, path: Path) -> judge.Net:
        if self.format != "tensorflow":
            return judge.onnx_single(str(path))
        from evaluation.faults.value_tensorflow import net

        return net(path)

    def _shown(self, artifact: Path, file: Path) -> int:
        """How many of the ordinary inputs show the fault."""
        right, wrong = self._net(artifact), self._net(file)
        drawn = (ordinary(self.inputs, self.ranges, seed) for seed in range(DRAWN))
        return sum(judge.moved(right, wrong, iter([trial])) >= 1.0 for trial in drawn)

    def _moved(self, graph: Graph, artifact: Path, file: Path, seen: Arrays | None) -> float:
        """By how many tolerances the fault moves an output, on inputs made to show it."""
        right, wrong = self._net(artifact), self._net(file)
        trials = [wild(self.inputs, self.ranges, seed) for seed in range(WILD)]
        trials += odd(self.inputs, self.ranges, graph.scalars())
        trials += [] if seen is None else [seen]
        found = [judge.moved(right, wrong, iter([trial])) for trial in trials if finite(right, trial)]
        return max(found, default=0.0)


def finite(net: judge.Net, trial: Arrays) -> bool:
    return all(np.isfinite(a).all() for a in net(trial) if a.dtype.kind == "f")


class Reach:
    """How far the values inside a net get, on ordinary inputs, wild ones, and such that climb."""

    def __init__(self, host: Host, graph: Graph) -> None:
        self._host, self._graph = host, graph
        names = graph.names
        drawn = (ordinary(host.inputs, host.ranges, seed) for seed in range(DRAWN))
        self._drawn = [graph.values(names, arrays) for arrays in drawn]
        tried = (wild(host.inputs, host.ranges, seed) for seed in range(WILD))
        self._wild = [(arrays, graph.values(names, arrays)) for arrays in tried]

    def fault(self, random: np.random.Generator) -> tuple[Planted | None, Arrays | None]:
        """A fault in a part of a value's range that ordinary inputs hardly reach, and an input that does."""
        host, name = self._host, str(random.choice(self._graph.names))
        kind = str(random.choice(["beyond", "beyond", "below", "between", "mean"]))
        sign = -1.0 if kind == "below" else 1.0

        def height(values: Any) -> float:
            top = float((sign * (values.mean(-1) if kind == "mean" else values)).max())
            return top if np.isfinite(top) else -np.inf

        usual = max(height(drawn[name]) for drawn in self._drawn)
        start = max(self._wild, key=lambda pair: height(pair[1][name]))[0]
        seen = climbed(
            host.inputs,
            host.ranges,
            start,
            lambda arrays: height(self._graph.values([name], arrays)[name]),
            CLIMB if random.random() < 0.5 else 0,
            int(random.integers(1 << 30)),
        )
        most = height(self._graph.values([name], seen)[name])
        if not most > usual + 0.02 * abs(usual) + 1e-3:
            return None, None
        bound = usual + random.uniform(0.05, 0.8) * (most - usual)
        end = bound + random.uniform(0.3, 1.0) * (most - bound)
        words = f"{name} {sign * bound:.3g} of {sign * usual:.3g} to {sign * most:.3g}"
        way = str(random.choice(WAYS))
        rewrite = self._graph.bent(kind, name, sign * bound, end, 0.5 * (most - usual), way)
        return Planted(kind, words, rewrite), seen


def hosts(work: Path, formats: Sequence[str] = tuple(FORMATS)) -> list[Host]:
    """Every net in every format, its files below *work*."""
    found = []
    for name, (declared, _) in value_nets.NETS.items():
        if "onnx" in formats:
            path = export(name, work / f"{name}.onnx")
            found.append(Host(name, "onnx", work, declared.inputs, declared.ranges, str(path)))
        if "torch" in formats:
            factory = f"{NETS / 'value_nets.py'}:made"
            arguments = {"model": name}
            found.append(Host(name, "torch", work, declared.inputs, declared.ranges, factory, arguments))
    if "tensorflow" in formats:
        from evaluation.nets import value_graphs

        for name, (declared, _) in value_graphs.GRAPHS.items():
            path = value_graphs.write(name, work / f"{name}.pb")
            found.append(Host(name, "tensorflow", work, declared.inputs, declared.ranges, str(path)))
    return found


def export(name: str, path: Path) -> Path:
    """A net as an ONNX file, as PyTorch's tracing exporter writes it."""
    import torch

    declared, net = value_nets.build(name)
    with redirect_stdout(io.StringIO()):
        torch.onnx.export(
            net,
            value_nets.example(declared),
            str(path),
            input_names=[i[0] for i in declared.inputs],
            opset_version=13,
            dynamo=False,
        )
    return path
