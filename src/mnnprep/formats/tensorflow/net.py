"""A loaded TensorFlow source, and a frozen graph, as nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.loaded import Loaded, guarded
from mnnprep.formats.tensorflow.skeleton import Skeleton
from mnnprep.model.files import Arrays
from mnnprep.model.net import Case, Refused
from mnnprep.model.signature import Dim, Range
from mnnprep.model.steps import Step

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import Session

LOOKUPS = {
    "GatherV2": 0,
    "Gather": 0,
    "ResourceGather": 0,
}  # operator -> the input that is the table; the next is the index
INDEX_PRESERVING = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "StridedSlice"}
)
SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})

ROUNDING = ("FakeQuantWithMinMax", "QuantizeAndDequantize", "QuantizeV2")  # operators' names begin so


class TensorFlowNet:
    """A TensorFlow or Keras model as a :class:`mnnprep.model.net.Net`."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.inputs = loaded.inputs
        self.example = loaded.example
        self.dims: tuple[Dim, ...] = ()

    @cached_property
    def skeleton(self) -> Skeleton:
        """The inference graph without its values."""
        return self.loaded.skeleton()

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs in TensorFlow."""
        return self.loaded.call(inputs)

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """Return None: a graph's dtypes are fixed.

        Its noise is that of one-ulp changes of the inputs.
        """
        return None  # a graph's dtypes are fixed: the noise is that of one-ulp changes of the inputs

    def steps(self, cases: Sequence[Case]) -> dict[str, Step]:
        """The steps of the floating outputs that a rounded value decides; they have no scale of their own."""
        rounded: set[str] = set()
        for node in graphs.in_order(self.skeleton.graph):
            if node.op.startswith(ROUNDING) or not rounded.isdisjoint(map(graphs.producer, node.input)):
                rounded.add(node.name)
        outputs = cases[0].outputs
        return {n: Step(0.0) for n in self.skeleton.outputs if n in rounded and outputs[n].dtype.kind == "f"}

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """The ranges of integer inputs that look up constant tables."""
        if not any(s.dtype.startswith(("int", "uint")) for s in self.inputs):
            return {}
        return index_bounds(self.skeleton)

    def insensitive(self) -> dict[str, str]:
        """Name the outputs that do not depend on the inputs' values, with the reason."""
        return insensitive_outputs(self.skeleton)


def index_bounds(skeleton: Skeleton) -> dict[str, Range]:
    """For every input that indexes a constant through Gather: its valid range."""
    nodes = graphs.nodes_of(skeleton.graph)
    origin = {name: name for name in skeleton.inputs}
    bounds: dict[str, Range] = {}
    for node in graphs.in_order(skeleton.graph):
        data = [graphs.producer(i) for i in node.input]
        if node.op in INDEX_PRESERVING and data and data[0] in origin:
            origin[node.name] = origin[data[0]]
        elif node.op in LOOKUPS and data[1] in origin:
            table = nodes[data[0]]
            while table.op == "Identity":
                table = nodes[graphs.producer(table.input[0])]
            if table.op == "Const" and table.attr["value"].tensor.tensor_shape.dim:
                size = table.attr["value"].tensor.tensor_shape.dim[0].size
                name = origin[data[1]]
                bounds[name] = (0.0, float(min(size - 1, bounds.get(name, (0, size - 1))[1])))
    return bounds


def insensitive_outputs(skeleton: Skeleton) -> dict[str, str]:
    """The outputs that depend on no value of any input, only on shapes or on constants."""
    reached, shaped = set(skeleton.inputs), set[str]()
    for node in graphs.in_order(skeleton.graph):
        names = {graphs.producer(i) for i in node.input}
        if names & reached and node.op not in SHAPE_ONLY:
            reached.add(node.name)
        elif names & (reached | shaped):
            shaped.add(node.name)
    return {
        o: "depends on shapes alone" if o in shaped else "is a constant"
        for o in skeleton.outputs
        if o not in reached
    }


def open_frozen(path: str, inputs: list[str], outputs: list[str]) -> Callable[[Arrays], Arrays]:
    """A function from arrays to arrays that runs the frozen graph in a file, on one thread."""
    from mnnprep.formats.tensorflow.graph_files import open_session, read_graph

    require("tensorflow")
    return session_call(open_session(read_graph(path), trust=False), inputs, outputs)


def session_call(session: Session, inputs: list[str], outputs: list[str]) -> Callable[[Arrays], Arrays]:
    """A function from arrays to arrays that runs the graph of *session*, by the names of its nodes."""

    def call(arrays: Arrays) -> Arrays:
        try:
            fetches = {n: session.graph.get_tensor_by_name(f"{n}:0") for n in outputs}
            feeds = {session.graph.get_tensor_by_name(f"{n}:0"): arrays[n] for n in inputs}
        except KeyError as error:
            raise Refused(f"the graph lacks the name {error}") from error
        values: Arrays = session.run(fetches, feeds)
        return {n: values[n] for n in outputs}

    return guarded(call)
