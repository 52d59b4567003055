"""TensorFlow graphs for faults that show for some values alone: small, and right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


class Declared(NamedTuple):
    """What is declared of a graph: names, dtypes and sizes of its inputs, and their values."""

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    ranges: dict[str, tuple[float, float]]


class Weights:
    """Constants of one seed, in proportion to what they add up."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Any:
        scale = 1.0 / np.sqrt(np.prod(shape[:-1]))
        return tf.constant((self._random.standard_normal(shape) * scale * 1.3).astype(np.float32))


def _image(low: float, high: float) -> Declared:
    return Declared((("x", "float32", (2, 16, 16, 3)),), {"x": (low, high)})


def _rows(width: int, low: float, high: float) -> Declared:
    return Declared((("x", "float32", (4, width)),), {"x": (low, high)})


def _conv(x: Any, w: Weights, before: int, after: int, stride: int = 1) -> Any:
    return tf.nn.conv2d(x, w(3, 3, before, after), stride, "SAME") + w(after)


def _dense(x: Any, w: Weights, before: int, after: int) -> Any:
    return tf.matmul(x, w(before, after)) + w(after)


def _relu6(x: Any, w: Weights) -> Any:
    y = tf.nn.relu6(2.0 * _conv(x, w, 3, 8))
    y = tf.nn.relu6(2.0 * _conv(y, w, 8, 12, 2))
    return _dense(tf.reduce_mean(y, [1, 2]), w, 12, 4)


def _gated(x: Any, w: Weights) -> Any:
    y = _conv(x, w, 3, 8, 2)
    y = y * tf.nn.relu6(y + 3.0) / 6.0
    gate = tf.sigmoid(tf.reduce_mean(y, [1, 2], keepdims=True) * w(1, 1, 1, 8))
    return _dense(tf.reduce_mean(_conv(y * gate, w, 8, 8, 2), [1, 2]), w, 8, 3)


def _dense_net(x: Any, w: Weights) -> Any:
    y = tf.tanh(_dense(x, w, 10, 16))
    y = tf.nn.leaky_relu(_dense(y, w, 16, 16), 0.1)
    return tf.nn.softmax(_dense(y, w, 16, 4))


def _text(ids: Any, w: Weights) -> Any:
    rows = tf.gather(w(500, 8) * 10.0, ids)
    return _dense(tf.nn.relu(_dense(tf.reduce_mean(rows, 1), w, 8, 12)), w, 12, 3)


def _detector(x: Any, w: Weights) -> Any:
    y = tf.nn.relu(_conv(x, w, 3, 8, 2))
    scores = tf.sigmoid(4.0 * _conv(y, w, 8, 2))
    sizes = tf.exp(tf.minimum(_conv(y, w, 8, 2), 4.0))
    return tf.concat([tf.where(scores > 0.6, scores, tf.zeros_like(scores)), sizes], 3)


def _buckets(x: Any, w: Weights) -> Any:
    above = [tf.cast(x >= bound, tf.float32) for bound in (-1.5, 0.0, 0.75, 2.0)]
    inside = tf.where(x < 2.5, x, tf.zeros_like(x))
    return _dense(tf.concat([*above, inside], 1), w, 40, 4)


def _ratio(x: Any, w: Weights) -> Any:
    y = tf.nn.relu(_dense(x, w, 10, 16))
    top, bottom = _dense(y, w, 16, 6), _dense(y, w, 16, 6)
    return top / (tf.abs(bottom) + 0.05) + tf.math.log(tf.abs(top) + 1.0)


GRAPHS: dict[str, tuple[Declared, Callable[[Any, Weights], Any]]] = {
    "relu6": (_image(0.0, 1.0), _relu6),
    "gated": (_image(-2.2, 2.7), _gated),
    "dense": (_rows(10, -3.0, 3.0), _dense_net),
    "text": (Declared((("ids", "int32", (2, 12)),), {"ids": (0.0, 499.0)}), _text),
    "detector": (_image(0.0, 1.0), _detector),
    "buckets": (_rows(8, -4.0, 4.0), _buckets),
    "ratio": (_rows(10, -2.0, 2.0), _ratio),
}


def write(name: str, path: Path) -> Path:
    """The graph *name* as a frozen ``.pb``."""
    declared, call = GRAPHS[name]
    graph = tf.Graph()
    with graph.as_default():
        ((field, dtype, shape),) = declared.inputs
        tf.identity(call(v1.placeholder(dtype, shape, field), Weights(sum(map(ord, name)))), name="out")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path
