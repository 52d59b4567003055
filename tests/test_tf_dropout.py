"""Dropout of TF1 graphs: the inputs that say how much is kept are set, and the masks go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.graph_files import in_inference

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def given(name: str, value: float | None) -> Any:
    return (
        v1.placeholder(tf.float32, (), name)
        if value is None
        else v1.placeholder_with_default(value, (), name)
    )


def dropped(x: Any, kept: Any) -> Any:
    return v1.nn.dropout(x, rate=1 - kept)


def dropped_by_rate(x: Any, rate: Any) -> Any:
    return v1.nn.dropout(x, rate=rate)


def dropped_by_floor(x: Any, kept: Any) -> Any:
    """As TensorFlow wrote it before 1.13."""
    return tf.math.divide(x, kept) * tf.floor(kept + v1.random_uniform(tf.shape(x)))


def graph_of(form: Callable[[Any, Any], Any], name: str, value: float | None) -> Any:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, (None, 4), "x")
        tf.identity(form(tf.nn.relu(x), given(name, value)) * 3.0, "y")
        return graph.as_graph_def()


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [
        (dropped, "keep_prob", 1.0),
        (dropped, "keep_prob", None),
        (dropped, "net/dropout_keep_prob", 1.0),
        (dropped_by_rate, "dropout_rate", 0.0),
        (dropped_by_rate, "drop_prob", None),
        (dropped_by_floor, "keep_prob", 1.0),
        (dropped_by_floor, "keep_prob", None),
    ],
)
def test_nothing_is_dropped(form: Callable[[Any, Any], Any], name: str, value: float | None) -> None:
    found = in_inference(graph_of(form, name, value), {"y": "y:0"})
    assert found.feeds == ["x"]
    assert name in found.fixed
    assert any(name in note for note in found.notes)
    alone = graphs.prune(found.graph, ["y"])
    assert not any(graphs.RANDOM.search(node.op) for node in alone.node)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(alone, name="")
        assert np.array_equal(session.run("y:0", {"x:0": X}), np.maximum(X, 0) * np.float32(3))


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [
        (dropped, "keep_prob", 0.5),  # the graph's own default drops: that is for its user to say
        (dropped, "temperature", 1.0),
        (dropped_by_rate, "dropout_rate", 0.3),
    ],
)
def test_what_drops_stays_an_input(form: Callable[[Any, Any], Any], name: str, value: float | None) -> None:
    found = in_inference(graph_of(form, name, value), {"y": "y:0"})
    assert sorted(found.feeds) == sorted(["x", name])
    alone = graphs.prune(found.graph, ["y"])
    assert any(graphs.RANDOM.search(node.op) for node in alone.node)
