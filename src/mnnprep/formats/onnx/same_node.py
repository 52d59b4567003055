"""Whether two exports of one source have a node in common, word for word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mnnprep.formats.onnx import graph
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.model.reach import ReadPath
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from onnx import ModelProto


class SameNodeJob(msgspec.Struct, frozen=True):
    """Look for the node ``label`` (as :func:`mnnprep.formats.onnx.graph.label`) in two models."""

    label: str
    first: ReadPath
    second: ReadPath


class SameNode(msgspec.Struct, frozen=True):
    """``same``: both models have the node, and it says and means the same in both."""

    same: bool


def same_node(job: SameNodeJob) -> SameNode:
    """Compare operator, attributes, and the names of inputs and outputs."""
    first, second = (_said(graph.load_graph(path), job.label) for path in (job.first, job.second))
    return SameNode(first is not None and first == second)


def _said(model: ModelProto, label: str) -> bytes | None:
    """The bytes of the node *label* without the line of code that it is from; None if there is none."""
    for node in graph.all_nodes(model.graph):
        if graph.label(node) == label:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            newer = node.op_type in graph.READ_BY_OPSET and graph.opset_of(model) >= 13
            said: bytes = node.SerializeToString(deterministic=True)
            return bytes([newer]) + said
    return None


SAME_NODE = Step.of(same_node, RUNTIME)
