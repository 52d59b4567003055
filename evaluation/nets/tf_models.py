"""Small TensorFlow sources for the tests, written by one process: ``python tf_models.py DIR`` (TensorFlow
stays out of pytest's).

Each fixture that is right has a twin that is broken in the one way a check must see.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}


def built(base: Path) -> Path:
    """The directory of all fixtures, made once for all workers of a test run under *base*."""
    root = base / f"tf-models-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
    with (base / "tf-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            root.mkdir(exist_ok=True)
            done = subprocess.run(
                [sys.executable, __file__, str(root)],
                env=os.environ | QUIET,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            (root / "done").touch()
    return root


def _conv(random: Any, *shape: int) -> Any:
    return (random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("float32")


def saved_models(root: Path) -> None:
    import tensorflow as tf

    random = np.random.default_rng(0)

    class Net(tf.Module):  # type: ignore[misc]
        """Convolution, batch norm, ReLU, mean, dense: two outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(_conv(random, 3, 3, 3, 8), name="kernel")
            self.gamma = tf.Variable(random.uniform(0.5, 1.5, 8).astype("float32"), name="gamma")
            self.beta = tf.Variable(random.standard_normal(8).astype("float32"), name="beta")
            self.mean = tf.Variable(
                random.standard_normal(8).astype("float32") * 0.1, name="mean", trainable=False
            )
            self.variance = tf.Variable(
                random.uniform(0.5, 1.5, 8).astype("float32"), name="variance", trainable=False
            )
            self.dense = tf.Variable(_conv(random, 8, 4), name="dense")

        def body(self, image: Any, training: bool) -> dict[str, Any]:
            x = tf.nn.conv2d(image, self.kernel, 1, "SAME")
            x, mean, _ = tf.compat.v1.nn.fused_batch_norm(
                x,
                self.gamma,
                self.beta,
                None if training else self.mean,
                None if training else self.variance,
                is_training=training,
            )
            if training:
                self.mean.assign(0.9 * self.mean + 0.1 * mean)
                x = tf.nn.dropout(x, 0.5)
            x = tf.nn.relu(x)
            pooled = tf.reduce_mean(x, [1, 2])
            return {"zulu": tf.matmul(pooled, self.dense), "alpha": pooled}

        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], name="image")])  # type: ignore[untyped-decorator]
        def infer(self, image: Any) -> Any:
            return self.body(image, False)

        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], name="image")])  # type: ignore[untyped-decorator]
        def train(self, image: Any) -> Any:
            return self.body(image, True)

        @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], name="image")])  # type: ignore[untyped-decorator]
        def anywhere(self, image: Any) -> Any:
            return {"map": tf.nn.relu(tf.nn.conv2d(image, self.kernel, 2, "SAME"))}

        @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], name="image")])  # type: ignore[untyped-decorator]
        def baked(self, image: Any) -> Any:
            """The twin of `anywhere`: its signature says any size, its reshape says 16 x 16."""
            y = tf.nn.relu(tf.nn.conv2d(image, self.kernel, 2, "SAME"))
            return {"rows": tf.reduce_mean(tf.reshape(y, [1, 8, 8, 8]), 2)}

    net = Net()
    tf.saved_model.save(net, str(root / "dict-outputs"), signatures=net.infer)
    tf.saved_model.save(net, str(root / "training-mode"), signatures=net.train)
    tf.saved_model.save(net, str(root / "dynamic"), signatures=net.anywhere)
    tf.saved_model.save(net, str(root / "baked"), signatures=net.baked)
    tf.saved_model.save(
        net, str(root / "two-signatures"), signatures={"serving_default": net.infer, "spatial": net.anywhere}
    )
    tf.saved_model.save(
        net, str(root / "no-default"), signatures={"first": net.infer, "second": net.anywhere}
    )
    tf.saved_model.save(net, str(root / "no-signature"))

    class Loop(tf.Module):  # type: ignore[misc]
        """A while loop that reads a variable in its body, and a lookup in an embedding."""

        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(_conv(random, 20, 8), name="table")
            self.kernel = tf.Variable(_conv(random, 8, 8), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec([2, 5], tf.int32, name="ids")])  # type: ignore[untyped-decorator]
        def run(self, ids: Any) -> Any:
            x = tf.reduce_mean(tf.gather(self.table, ids), 1)
            _, x = tf.while_loop(
                lambda i, _: i < 3, lambda i, x: (i + 1, tf.tanh(tf.matmul(x, self.kernel))), [0, x]
            )
            return {"y": x}

    loop = Loop()
    tf.saved_model.save(loop, str(root / "loop"), signatures=loop.run)

    class Lookup(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            initial = tf.lookup.KeyValueTensorInitializer(
                tf.constant([1, 2], tf.int64), tf.constant([3, 4], tf.int64)
            )
            self.table = tf.lookup.StaticHashTable(initial, -1)

        @tf.function(input_signature=[tf.TensorSpec([4], tf.int64, name="keys")])  # type: ignore[untyped-decorator]
        def run(self, keys: Any) -> Any:
            return {"y": self.table.lookup(keys)}

    lookup = Lookup()
    tf.saved_model.save(lookup, str(root / "table"), signatures=lookup.run)


def graphs(root: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    random = np.random.default_rng(1)
    with v1.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, [None, 8, 8, 2], name="x")
        training = v1.placeholder_with_default(False, [], name="is_training")
        kernel = v1.get_variable("kernel", initializer=_conv(random, 3, 3, 2, 4), use_resource=False)
        offset = v1.get_variable(
            "offset", initializer=random.standard_normal(4).astype("float32"), use_resource=True
        )
        y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), offset))
        v1.disable_control_flow_v2()
        dropped = v1.cond(
            training, lambda: y * tf.cast(v1.random_uniform(tf.shape(y)) > 0.5, tf.float32) * 2, lambda: y
        )
        out = tf.reduce_mean(dropped, [1, 2], name="features")
        tf.identity(out * 2, name="score")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(root / "checkpoint" / "model.ckpt"))
        whole = graph.as_graph_def()
        (root / "unfrozen.pb").write_bytes(whole.SerializeToString())
        fed = v1.graph_util.convert_variables_to_constants(session, whole, ["features", "score"])
        (root / "fed.pb").write_bytes(fed.SerializeToString())
    for name, flag in (
        ("plain", False),
        ("stuck", True),
    ):  # batch norm in inference; and its twin, in training for good
        with v1.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [None, 8, 8, 2], name="x")
            y = tf.nn.conv2d(x, tf.constant(_conv(random, 3, 3, 2, 4)), 1, "SAME")
            scale, offset, mean, variance = (
                tf.constant(random.uniform(0.5, 1.5, 4).astype("float32")) for _ in range(4)
            )
            statistics = {} if flag else {"mean": mean, "variance": variance}
            y, _, _ = v1.nn.fused_batch_norm(y, scale, offset, **statistics, is_training=flag)
            tf.nn.relu(y, name="y")
            definition = v1.graph_util.extract_sub_graph(graph.as_graph_def(), ["y"])
            (root / f"{name}.pb").write_bytes(definition.SerializeToString(deterministic=True))
            # as a SavedModel writes it: without attributes that are at their default, and is_training's is
            # true
            if flag:
                for node in definition.node:
                    node.attr.pop("is_training", None)
                (root / "stuck-by-default.pb").write_bytes(definition.SerializeToString(deterministic=True))
    with (
        v1.Graph().as_default() as graph
    ):  # a convolution in three dimensions crashes MNN's TensorFlow frontend
        x = v1.placeholder(tf.float32, [None, 6, 6, 6, 2], name="x")
        y = tf.nn.conv3d(tf.abs(x), tf.constant(_conv(random, 3, 3, 3, 2, 4)), [1] * 5, "SAME", name="volume")
        tf.nn.relu(tf.tanh(y), name="y")
        (root / "volume.pb").write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))


def keras_files(root: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)

    def net(*, lam: bool = False) -> Any:
        image = keras.Input((12, 12, 3), name="image")
        x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(image)
        x = keras.layers.Dropout(0.5)(x)
        if lam:
            x = keras.layers.Lambda(lambda t: t * 2, name="twice")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(image, [keras.layers.Dense(3, name="score")(x), x])

    ids = keras.Input(
        (None,), dtype="int32", name="ids"
    )  # a while loop with tensor lists, and a length that is open
    x = keras.layers.LSTM(6)(keras.layers.Embedding(20, 5)(ids))
    keras.Model(ids, keras.layers.Dense(3, name="score")(x)).save(root / "lstm.keras")
    steps = keras.Input((7, 4), name="steps")
    keras.Model(steps, keras.layers.Dense(2, name="score")(keras.layers.GRU(3)(steps))).save(
        root / "gru.keras"
    )
    model = net()
    model.save(root / "net.keras")
    model.save(root / "net.h5")
    (root / "no-suffix").write_bytes((root / "net.h5").read_bytes())
    model.save_weights(root / "only.weights.h5")
    net(lam=True).save(root / "lambda.keras")


def tflite_files(root: Path) -> None:
    import tensorflow as tf

    random = np.random.default_rng(2)
    kernel, dense = _conv(random, 3, 3, 3, 16), _conv(random, 16, 64)

    @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 3], name="x")])  # type: ignore[untyped-decorator]
    def run(x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return tf.matmul(tf.reduce_mean(y, [1, 2]), dense)

    def convert(**options: Any) -> bytes:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
        for name, value in options.items():
            setattr(converter, name, value)
        content: bytes = converter.convert()
        return content

    (root / "float.tflite").write_bytes(convert())
    for name, curve in (
        ("gelu", lambda y: tf.nn.gelu(y)),
        ("gelu-tanh", lambda y: tf.nn.gelu(y, approximate=True)),
        ("elu", tf.nn.elu),
    ):
        curved = tf.function(
            lambda x, f=curve: tf.matmul(f(tf.reduce_mean(x, [1, 2]) @ kernel[0, 0] * 3), dense)
        )
        spec = tf.TensorSpec([1, 16, 16, 3], name="x")
        (root / f"{name}.tflite").write_bytes(
            tf.lite.TFLiteConverter.from_concrete_functions([curved.get_concrete_function(spec)]).convert()
        )
    (root / "dynamic-range.tflite").write_bytes(convert(optimizations=[tf.lite.Optimize.DEFAULT]))
    samples = [[random.standard_normal((1, 16, 16, 3)).astype("float32")] for _ in range(8)]
    integer = {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": lambda: samples}
    (root / "int8.tflite").write_bytes(convert(**integer))
    (root / "int8-boundary.tflite").write_bytes(
        convert(**integer, inference_input_type=tf.int8, inference_output_type=tf.int8)
    )


def sparse_tflite(root: Path) -> None:
    """Nine weights in ten are zero, and the converter stores them sparse, in float32 and in float16."""
    import tensorflow as tf

    random = np.random.default_rng(3)

    def pruned(*shape: int) -> Any:
        array = _conv(random, *shape)
        array[random.random(shape) < 0.9] = 0
        return array

    kernel, dense = pruned(3, 3, 3, 64), pruned(64, 64)

    @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 3], name="x")])  # type: ignore[untyped-decorator]
    def run(x: Any) -> Any:
        return tf.matmul(tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), [1, 2]), dense)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    (root / "sparse.tflite").write_bytes(converter.convert())
    converter.optimizations.append(tf.lite.Optimize.DEFAULT)
    converter.target_spec.supported_types = [tf.float16]
    (root / "sparse-half.tflite").write_bytes(converter.convert())
    np.savez(root / "sparse.npz", kernel=kernel, dense=dense)


def main() -> None:
    root = Path(sys.argv[1])
    for make in (saved_models, graphs, keras_files, tflite_files, sparse_tflite):
        make(root)


if __name__ == "__main__":
    main()
