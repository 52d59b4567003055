"""The common form of every loaded TensorFlow source, and the parts that its loaders share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.skeleton import Skeleton, of_function
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs
from mnnprep.model.net import Refused
from mnnprep.model.signature import DTYPES, TensorSpec, dynamic_specs
from mnnprep.safety.error_text import cause

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import (
        ConcreteFunction,
        GraphDef,
        StructuredValue,
        Tensor,
        TensorSpec,
    )


@dataclass
class Loaded:
    """A source in memory, in inference mode.

    ``call`` gives the outputs by name, in order; ``skeleton`` makes the inference graph; ``training`` is what
    of training is left on the way to the outputs; ``keep`` holds what must live as long as ``call``.
    """

    inputs: tuple[TensorSpec, ...]
    call: Callable[[Arrays], Arrays]
    skeleton: Callable[[], Skeleton]
    training: list[str]
    parameters: int = 0
    example: Arrays = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keep: object = None
    function: ConcreteFunction | None = None  # the ConcreteFunction that the source is, if it is one


def from_function(
    function: ConcreteFunction,
    inputs: list[str],
    outputs: list[str],
    specs: tuple[TensorSpec, ...],
    call: Callable[[Arrays], Arrays],
    *,
    keep: object,
) -> Loaded:
    """A source that is a ConcreteFunction; refuses what is not a tensor of numbers."""
    refuse_texts(zip(inputs, function.inputs, strict=False), function.graph.as_graph_def(), "input")
    refuse_texts(zip(outputs, function.outputs, strict=True), None, "output")
    graph = function.graph.as_graph_def()
    roots = [t.op.name for t in function.outputs] + [o.name for o in function.graph.control_outputs]
    return Loaded(
        specs,
        guarded(call),
        lambda: of_function(function, inputs, outputs),
        graphs.leftovers(graph, roots),
        parameters=sum(int(np.prod(v.shape)) for v in function.graph.variables),
        keep=keep,
        function=function,
    )


def guarded(call: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """*call* with TensorFlow's refusals of shapes and values as :class:`Refused`."""

    def run(arrays: Arrays) -> Arrays:
        try:
            return call(arrays)
        except MnnprepError:
            raise
        except Exception as error:  # tf.errors.*, ValueError, TypeError, and whatever a layer raises
            raise Refused(cause(error)) from error

    return run


def refuse_texts(tensors: Iterable[tuple[str, Tensor]], graph: GraphDef | None, role: str) -> None:
    """Refuse a signature with text, naming the input or output and the operator that takes it."""
    for name, tensor in tensors:
        if tensor.dtype.name in DTYPES:
            continue
        users = ""
        if graph is not None:
            found = [n for n in graph.node if tensor.op.name in map(graphs.producer, n.input)]
            users = f", which goes into {found[0].op} {found[0].name}" if found else ""
        raise RefusedError(
            (
                f"the {role} {name} has a type that MNN does not take"
                if role == "input"
                else f"the output {name} has a type that MNN does not give"
            ),
            seen=f"{tensor.dtype.name}{users}",
            next=(
                "save a signature of plain tensors of numbers: text, hash tables and examples are processed"
                " before the net"
            ),
        )


def specs_of(
    tensors: Iterable[tuple[str, Tensor]], wants: InputSpecs, *, batched: bool = False
) -> tuple[TensorSpec, ...]:
    """Return the inputs by the users' names.

    An unknown dimension is named after its place, or ``batch`` if it is the only first one.

    With *batched*, as in Keras, the unknown first dimensions of all inputs are the batch.

    Raises:
        UsageError: an input of unknown rank that ``--input`` does not give.
    """
    declared = {s.name: s for s in wants.inputs}
    stated: list[tuple[str, str, list[int | str | None]]] = []
    for name, tensor in tensors:
        dtype = tensor.dtype.name
        if tensor.shape.rank is None:
            if name not in declared:
                raise UsageError(
                    f"the shape of the input {name} is not known",
                    seen=dtype,
                    next=f"give it with --input '{name}={dtype}[batch,...]'",
                )
            stated.append((name, dtype, list(declared[name].shape)))
            continue
        sizes: list[int | str | None] = [
            None if size is None else int(size) for size in tensor.shape.as_list()
        ]
        stated.append((name, dtype, ["batch", *sizes[1:]] if batched and sizes[:1] == [None] else sizes))
    if not stated:
        raise RefusedError(
            "the model has no input, so nothing can be proven about it", next="save it with its inputs"
        )
    return dynamic_specs(stated, batch="batch")


def example_by_name(example: StructuredValue, names: list[str]) -> Arrays:
    """A factory's example inputs by name; it gives them by name, in order or as one array, or not at all."""
    if example is None:
        return {}
    values = (
        example
        if isinstance(example, dict)
        else dict(zip(names, example if isinstance(example, (tuple, list)) else [example], strict=False))
    )
    return {str(n): np.asarray(v) for n, v in values.items()}
