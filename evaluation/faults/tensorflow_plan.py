"""Keras files, SavedModels, frozen graphs and TFLite files for the fault benchmark, right and spoiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evaluation.faults import judge
from evaluation.faults.plan import WEIGHTS, Row, converts, instead_of, wrapper


def _nets() -> dict[str, tuple[tuple[int, ...], Callable[[Any], list[Any]]]]:
    """Name: the shape of an input, and a function from keras.layers to the layers."""
    image = (12, 12, 3)
    return {
        "keras_conv": (
            image,
            lambda L: [
                L.Conv2D(6, 3, activation="relu"),
                L.BatchNormalization(),
                L.Conv2D(6, 3),
                L.GlobalAveragePooling2D(),
                L.Dense(4),
            ],
        ),
        "keras_dense": (
            (10,),
            lambda L: [
                L.Dense(16, activation="tanh"),
                L.Dense(16, activation="relu"),
                L.Dense(16),
                L.Dense(3, activation="softmax"),
            ],
        ),
        "keras_separable": (
            image,
            lambda L: [
                L.SeparableConv2D(8, 3, padding="same"),
                L.ReLU(6.0),
                L.MaxPooling2D(2),
                L.Conv2D(4, 1),
                L.Flatten(),
                L.Dense(3),
            ],
        ),
        "keras_pooled": (
            image,
            lambda L: [
                L.Conv2D(4, 3, padding="same"),
                L.AveragePooling2D(2),
                L.LeakyReLU(negative_slope=0.1),
                L.Conv2D(4, 3),
            ],
        ),
        "keras_up": (
            image,
            lambda L: [
                L.Conv2D(4, 3, 2, padding="same"),
                L.UpSampling2D(2),
                L.Activation("sigmoid"),
                L.Conv2D(2, 1),
            ],
        ),
        "keras_transposed": (
            image,
            lambda L: [L.Conv2DTranspose(4, 3, 2, padding="same"), L.ELU(), L.Conv2D(2, 3)],
        ),
        "keras_padded": (
            image,
            lambda L: [L.ZeroPadding2D(1), L.DepthwiseConv2D(3), L.Activation("swish"), L.Conv2D(3, 1)],
        ),
        "keras_norm": (
            (10,),
            lambda L: [L.Dense(8), L.LayerNormalization(), L.Activation("gelu"), L.Dense(4)],
        ),
    }


def build(name: str, *, fault: str = "") -> Any:
    """A Keras model with seeded weights; *fault* is a change to its layers' weights or calls."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(sum(map(ord, name)))
    shape, layers = _nets()[name]
    image = keras.Input(shape, name="image")
    x = image
    for made in layers(keras.layers):
        layer = made
        if fault == "activation" and getattr(layer, "activation", None) in (
            keras.activations.relu,
            keras.activations.tanh,
        ):
            layer.activation = keras.activations.sigmoid
        if fault == "pooling" and isinstance(layer, keras.layers.MaxPooling2D):
            layer = keras.layers.AveragePooling2D(2)
        training = fault == "training" and isinstance(layer, keras.layers.BatchNormalization)
        x = layer(x, training=True) if training else layer(x)
        if fault == "dropout" and isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            x = keras.layers.Dropout(0.3)(x, training=True)
    model = keras.Model(image, x)
    random = np.random.default_rng(len(name))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [random.uniform(0.5, 1.5, w.shape).astype("float32") for w in layer.get_weights()]
            )
        elif layer.get_weights():
            layer.set_weights(
                [
                    w + 0.1 * random.standard_normal(w.shape).astype("float32") if w.ndim == 1 else w
                    for w in layer.get_weights()
                ]
            )
    weights = model.get_weights()
    large = [i for i, w in enumerate(weights) if w.ndim > 1]
    if fault == "weight":
        weights[large[-1]] = weights[large[-1]] * 1.01
    elif fault == "first_weight":
        weights[large[0]] = weights[large[0]] * 1.01
    elif fault == "swap":
        a, b = next(
            (a, b)
            for n, a in enumerate(large)
            for b in large[n + 1 :]
            if weights[a].shape == weights[b].shape
        )
        weights[a], weights[b] = weights[b], weights[a]
    elif fault == "bias":
        weights[-1] = weights[-1] * 0
    elif fault == "transposed":
        a = next(i for i in large if weights[i].ndim == 4 and weights[i].shape[0] == weights[i].shape[1])
        weights[a] = weights[a].swapaxes(0, 1)
    elif fault:
        if fault not in ("activation", "pooling", "training", "dropout"):
            raise LookupError(fault)
        return model
    model.set_weights(weights)
    return model


def unseeded() -> Any:
    """A factory that draws its weights anew whenever it is called: what is exported is not what was the
    reference.
    """
    import keras
    import numpy as np

    model = build("keras_dense")
    random = np.random.default_rng()
    model.set_weights(
        [w + 0.2 * random.standard_normal(w.shape).astype("float32") for w in model.get_weights()]
    )
    keras.utils.clear_session()
    return model


def factory(name: str) -> Any:
    return build(name)


KINDS = {
    "weight": WEIGHTS,
    "first_weight": WEIGHTS,
    "swap": "weights_swapped",
    "bias": "constant_changed",
    "transposed": "weights_transposed",
    "activation": "activation_changed",
    "pooling": "pooling_changed",
    "training": "eval_not_called",
    "dropout": "dropout_functional",
}
SPOILED = (
    ("keras_conv", "weight"),
    ("keras_conv", "transposed"),
    ("keras_conv", "training"),
    ("keras_conv", "activation"),
    ("keras_dense", "swap"),
    ("keras_dense", "first_weight"),
    ("keras_dense", "dropout"),
    ("keras_separable", "pooling"),
    ("keras_separable", "bias"),
    ("keras_pooled", "weight"),
    ("keras_up", "transposed"),
    ("keras_norm", "first_weight"),
)


def frozen(model: Any, path: Path) -> None:
    """A Keras model as a frozen GraphDef with the input ``image`` and the output ``out``."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec([None, *model.input_shape[1:]], name="image")
    function = tf.function(lambda image: tf.identity(model(image), name="out")).get_concrete_function(spec)
    path.write_bytes(
        convert_variables_to_constants_v2(function).graph.as_graph_def().SerializeToString(deterministic=True)
    )


def lite(model: Any, path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec([1, *model.input_shape[1:]], name="image")
    function = tf.function(lambda image: model(image)).get_concrete_function(spec)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())


def runner(name: str) -> judge.Net:
    model = build(name)
    return lambda arrays: [model(next(iter(arrays.values()))).numpy()]


WRITERS: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "keras": ("{}.keras", lambda m, p: m.save(p)),
    "savedmodel": ("{}-saved", lambda m, p: m.export(p, verbose=False)),
    "frozen": ("{}.pb", frozen),
    "tflite": ("{}.tflite", lite),
    "h5": ("{}.h5", lambda m, p: m.save(p)),
}


def tensorflow_rows(root: Path) -> Iterator[Row]:
    directory = root / "tensorflow"
    directory.mkdir(exist_ok=True)

    def written(kind: str, name: str, fault: str = "") -> str:
        pattern, write = WRITERS[kind]
        path = directory / pattern.format(f"{name}-{fault}" if fault else name)
        if not path.exists():
            write(build(name, fault=fault), path)
        return str(path)

    kinds = list(WRITERS)
    names = list(_nets())
    for number, name in enumerate(names):
        for kind in dict.fromkeys((kinds[number % len(kinds)], "tflite")):
            path = written(kind, name)
            options = (
                []
                if kind == "tflite"
                else ["--dim", "batch=1:4", "--input", _text(name)]
                if kind == "none"
                else []
            )
            reference = {"tflite": path} if kind == "tflite" else {"tensorflow": name}
            yield Row(
                f"clean-{kind}-{name}",
                "clean",
                "clean",
                kind,
                name,
                "prepare",
                [path, *options],
                reference=reference,
            )
    for number, (name, fault) in enumerate(SPOILED):
        training = fault in ("training", "dropout")
        for kind in ("keras", "savedmodel") if training else (kinds[number % 4], kinds[(number + 1) % 4]):
            files = written(kind, name), written(kind, name, fault)
            command = [files[1]] if training else list(files)
            how = "prepare" if training else "compare"
            moved = moved_by(name, fault, inference=kind == "keras")
            yield Row(
                f"{kind}-{name}-{fault}-{how}", "fault", KINDS[fault], kind, name, how, command, moved=moved
            )
        if training:
            continue
        moved = moved_by(name, fault, inference=True)
        files = written("tflite", name), written("tflite", name, fault)
        if converts(files[0], "TFLITE"):  # what MNN takes from neither file is compared with nothing
            script = wrapper(root / "wrappers", f"tflite-{name}-{fault}", instead_of(files[1]))
            command = [files[0], "--method", "copy", "--mnnconvert", script]
            yield Row(
                f"tflite-{name}-{fault}-convert",
                "fault",
                KINDS[fault],
                "tflite",
                name,
                "prepare",
                command,
                moved=moved,
            )
        if number % 2:
            files = written("frozen", name), written("frozen", name, fault)
            script = wrapper(root / "wrappers", f"frozen-{name}-{fault}", instead_of(files[1]))
            command = [files[0], "--method", "freeze", "--mnnconvert", script]
            yield Row(
                f"frozen-{name}-{fault}-convert",
                "fault",
                KINDS[fault],
                "frozen",
                name,
                "prepare",
                command,
                moved=moved,
            )
    command = [f"{__file__}:unseeded"]
    yield Row("keras-unseeded", "fault", "weights_redrawn", "tf-factory", "keras_dense", "prepare", command)
    yield Row(
        "keras-unseeded-compare",
        "fault",
        "weights_redrawn",
        "tf-factory",
        "keras_dense",
        "compare",
        [*command, *command],
    )


def moved_by(name: str, fault: str, *, inference: bool) -> float:
    """How far the spoiled model is from the right one; with *inference*, called with ``training=False``,
    which overrules what a file says.
    """
    right, wrong = build(name), build(name, fault=fault)
    options = {"training": False} if inference else {}
    inputs = (_text(name).replace("batch", "2"),)
    return judge.moved(
        lambda a: [right(a["image"]).numpy()],
        lambda a: [wrong(a["image"], **options).numpy()],
        judge.searched(inputs),
    )


def _text(name: str) -> str:
    return f"image=float32[batch,{','.join(map(str, _nets()[name][0]))}]"
