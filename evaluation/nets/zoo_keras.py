"""The Keras zoo: one net of each family of keras.applications, with seeded weights.

Every public function is a factory, the form that ``mnnprep prepare evaluation/nets/zoo_keras.py:NAME`` takes;
nothing is downloaded. With ``weights=None`` alone these nets are constant to 1e-10 (their batch norms have
mean 0 and variance 1 for signals that shrink from layer to layer), which proves nothing; one pass in training
mode over random images sets the statistics.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from evaluation.nets.zoo_models import Entry

if TYPE_CHECKING:
    import keras

SIZE = 128  # of the images: every family takes it, and small ones keep the zoo short
IMAGES = 8  # in the calibration pass


def _net(name: str) -> keras.Model:
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    options: dict[str, Any] = {"weights": None, "input_shape": (SIZE, SIZE, 3), "classifier_activation": None}
    if "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    model = build(**options)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the statistics of the one pass
    model(np.random.default_rng(0).standard_normal((IMAGES, SIZE, SIZE, 3)).astype("float32"), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def mobilenet() -> keras.Model:
    return _net("MobileNet")


def mobilenet_v2() -> keras.Model:
    return _net("MobileNetV2")


def mobilenet_v3() -> keras.Model:
    return _net("MobileNetV3Small")


def efficientnet() -> keras.Model:
    return _net("EfficientNetB0")


def efficientnet_v2() -> keras.Model:
    return _net("EfficientNetV2B0")


def resnet() -> keras.Model:
    return _net("ResNet50")


def resnet_v2() -> keras.Model:
    return _net("ResNet50V2")


def densenet() -> keras.Model:
    return _net("DenseNet121")


def nasnet() -> keras.Model:
    return _net("NASNetMobile")


def xception() -> keras.Model:
    return _net("Xception")


def inception() -> keras.Model:
    return _net("InceptionV3")


def convnext_tiny() -> keras.Model:
    return _net("ConvNeXtTiny")


ZOO = tuple(
    Entry(name, "keras", (), ())
    for name in (
        "mobilenet",
        "mobilenet_v2",
        "mobilenet_v3",
        "efficientnet",
        "efficientnet_v2",
        "resnet",
        "resnet_v2",
        "densenet",
        "nasnet",
        "xception",
        "inception",
        "convnext_tiny",
    )
)
