"""Fifteen float nets in Keras, small and seeded: what the quantizers are given.

Their weights are random; the layers' gains are those of He's initialization, so that no activation vanishes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IMAGE = (16, 16, 3)


def _layers() -> Any:
    import keras

    return keras.layers


def plain(x: Any) -> Any:
    """Convolutions with ReLU, a global mean and a classifier."""
    k = _layers()
    x = k.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = k.Conv2D(16, 3, strides=2, activation="relu", padding="same")(x)
    return k.Dense(10)(k.GlobalAveragePooling2D()(x))


def classifier(x: Any) -> Any:
    """With max pooling and a softmax."""
    k = _layers()
    x = k.MaxPooling2D()(k.Conv2D(12, 3, activation="relu")(x))
    return k.Dense(6, activation="softmax")(k.Flatten()(x))


def depthwise(x: Any) -> Any:
    """Separable convolutions with ReLU6, as MobileNet has them."""
    k = _layers()
    for filters in (8, 12):
        x = k.ReLU(6.0)(k.DepthwiseConv2D(3, padding="same")(x))
        x = k.ReLU(6.0)(k.Conv2D(filters, 1)(x))
    return x


def residual(x: Any) -> Any:
    """An Add of two branches whose scales are not equal."""
    k = _layers()
    x = k.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = k.Conv2D(8, 3, padding="same")(x)
    return k.Conv2D(4, 1)(k.ReLU()(k.Add()([x, y])))


def concatenated(x: Any) -> Any:
    """A Concatenate of branches of several scales."""
    k = _layers()
    a = k.Conv2D(4, 1, activation="relu")(x)
    b = k.Conv2D(6, 3, padding="same")(x)
    c = k.AveragePooling2D(3, strides=1, padding="same")(x)
    return k.Conv2D(5, 1)(k.Concatenate()([a, b, c]))


def gated(x: Any) -> Any:
    """Squeeze and excitation: a sigmoid that multiplies channels."""
    k = _layers()
    x = k.Conv2D(8, 3, padding="same", activation="relu")(x)
    gate = k.Conv2D(8, 1, activation="sigmoid")(k.GlobalAveragePooling2D(keepdims=True)(x))
    return k.Conv2D(4, 1)(k.Multiply()([x, gate]))


def perceptron(x: Any) -> Any:
    """Dense layers."""
    k = _layers()
    x = k.Dense(32, activation="relu")(x)
    return k.Dense(8)(k.Dense(32, activation="relu")(x))


def saturating(x: Any) -> Any:
    """Tanh and sigmoid: what TFLite computes by tables."""
    k = _layers()
    x = k.Dense(24, activation="tanh")(x)
    return k.Dense(8, activation="sigmoid")(k.Dense(16, activation="tanh")(x))


def decoder(x: Any) -> Any:
    """Down and up again, with a bilinear Resize."""
    k = _layers()
    y = k.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    y = k.UpSampling2D(2, interpolation="bilinear")(y)
    return k.Conv2D(3, 3, padding="same")(k.Concatenate()([x, y]))


def deconvolution(x: Any) -> Any:
    """A transposed convolution."""
    k = _layers()
    x = k.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    return k.Conv2DTranspose(4, 2, strides=2)(x)


def sequence(x: Any) -> Any:
    """Convolutions in one dimension."""
    k = _layers()
    x = k.Conv1D(8, 3, padding="same", activation="relu")(x)
    return k.Dense(6)(k.GlobalMaxPooling1D()(k.Conv1D(12, 3, activation="relu")(x)))


def leaky(x: Any) -> Any:
    """LeakyRelu and PRelu."""
    k = _layers()
    x = k.LeakyReLU(negative_slope=0.2)(k.Conv2D(8, 3, padding="same")(x))
    x = k.PReLU(shared_axes=[1, 2], alpha_initializer="he_uniform")(k.Conv2D(6, 3, padding="same")(x))
    return k.Conv2D(4, 1)(x)


def swish(x: Any) -> Any:
    """Hard swish, as MobileNetV3 has it."""
    k = _layers()
    x = k.Activation("hard_swish")(k.Conv2D(8, 3, padding="same")(x))
    return k.Dense(5)(k.Flatten()(k.AveragePooling2D(4)(x)))


def normalized(x: Any) -> Any:
    """Batch normalization between convolutions, and a padding of its own."""
    k = _layers()
    x = k.ZeroPadding2D(1)(x)
    x = k.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = k.ReLU()(k.BatchNormalization(gamma_initializer="he_uniform", beta_initializer="he_normal")(x))
    return k.Conv2D(6, 3, padding="same")(x)


def attention(x: Any) -> Any:
    """One head of attention: products of activations, softmax."""
    k = _layers()
    q, key, value = k.Dense(8)(x), k.Dense(8)(x), k.Dense(8)(x)
    weights = k.Softmax()(k.Dot(axes=2)([q, key]))
    return k.Dense(6)(k.Add()([x, k.Dot(axes=(2, 1))([weights, value])]))


NETS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "plain": (plain, IMAGE),
    "classifier": (classifier, IMAGE),
    "depthwise": (depthwise, IMAGE),
    "residual": (residual, IMAGE),
    "concatenated": (concatenated, IMAGE),
    "gated": (gated, IMAGE),
    "perceptron": (perceptron, (20,)),
    "saturating": (saturating, (20,)),
    "decoder": (decoder, IMAGE),
    "deconvolution": (deconvolution, IMAGE),
    "sequence": (sequence, (24, 4)),
    "leaky": (leaky, IMAGE),
    "swish": (swish, IMAGE),
    "normalized": (normalized, IMAGE),
    "attention": (attention, (12, 8)),
}


def built(name: str) -> Any:
    """The Keras model *name*, its batch fixed at 1."""
    import keras

    make, shape = NETS[name]
    keras.utils.set_random_seed(list(NETS).index(name))
    x = keras.Input(batch_shape=(1, *shape), name="x")
    return keras.Model(x, make(x))
