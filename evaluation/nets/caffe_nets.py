"""Small Caffe nets, written on the spot as text with seeded weights, in any of Caffe's three versions.

The binary files are encoded here, field by field, and not by the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, Sequence[np.ndarray]]


class Small(NamedTuple):
    """A net: the body of its prototxt behind the input, the shape of the input, the shapes of its layers'
    blobs.
    """

    body: str
    shape: tuple[int, ...] = (1, 4, 6, 8)
    blobs: Mapping[str, Sequence[tuple[int, ...]]] = {}
    positive: tuple[str, ...] = ()  # LAYER.INDEX of blobs that must be above 0


def layer(name: str, kind: str, bottoms: str = "data", tops: str = "", **groups: str) -> str:
    """One V2 layer; bottoms and tops are separated by spaces, the keywords are parameter messages as text."""
    ports = "".join(f'  bottom: "{b}"\n' for b in bottoms.split()) + "".join(
        f'  top: "{t}"\n' for t in (tops or name).split()
    )
    parameters = "".join(f"  {group} {{ {text} }}\n" for group, text in groups.items())
    return f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{ports}{parameters}}}\n'


def header(shape: Sequence[int], name: str = "small") -> str:
    return f'name: "{name}"\ninput: "data"\n' + "".join(f"input_dim: {size}\n" for size in shape)


def weights(small: Small, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Seeded float32 blobs for the layers of *small*."""
    rng = np.random.default_rng(seed)
    made: dict[str, list[np.ndarray]] = {}
    for name, shapes in small.blobs.items():
        made[name] = []
        for index, shape in enumerate(shapes):
            array = rng.standard_normal(shape).astype(np.float32) * 0.5
            made[name].append(np.abs(array) + 0.5 if f"{name}.{index}" in small.positive else array)
    return made


def write(directory: Path, small: Small, name: str = "net", *, seed: int = 0) -> Path:
    """Write *small* as ``name.prototxt`` and ``name.caffemodel``; the path of the prototxt."""
    stored = weights(small, seed) or {"without": []}  # Caffe stores every layer, also those without blobs
    return write_text(directory, header(small.shape) + small.body, caffemodel(stored), name)


def write_text(directory: Path, prototxt: str, model: bytes, name: str = "net") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.caffemodel").write_bytes(model)
    path = directory / f"{name}.prototxt"
    path.write_text(prototxt)
    return path


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def blob(
    array: np.ndarray,
    *,
    legacy: bool = False,
    double: bool = False,
    gradient: bool = False,
    shape: Sequence[int] | None = None,
) -> bytes:
    """A BlobProto; *legacy* has num, channels, height and width in place of a shape; *shape* is what it
    claims to be.
    """
    sizes = list(array.shape if shape is None else shape)
    if legacy:
        sizes = [1] * (4 - len(sizes)) + sizes
        head = b"".join(number(i + 1, size) for i, size in enumerate(sizes))
    else:
        head = field(7, field(1, b"".join(map(varint, sizes))))
    data = field(8, array.astype("<f8").tobytes()) if double else field(5, array.astype("<f4").tobytes())
    return head + data + (field(6, np.ones_like(array, "<f4").tobytes()) if gradient else b"")


def caffemodel(
    layers: Arrays, types: Mapping[str, str] | None = None, *, name: str = "small", **blobs: Any
) -> bytes:
    """A V2 caffemodel; the keywords are those of :func:`blob`."""
    encoded = [
        field(1, n.encode())
        + field(2, (types or {}).get(n, "").encode())
        + b"".join(field(7, blob(a, **blobs)) for a in arrays)
        for n, arrays in layers.items()
    ]
    return field(1, name.encode()) + b"".join(field(100, e) for e in encoded)


def caffemodel_v1(layers: Arrays, types: Mapping[str, int], *, name: str = "small", **blobs: Any) -> bytes:
    """A V1 caffemodel: types by number, blobs with four sizes unless the keywords say otherwise."""
    options = {"legacy": True, **blobs}
    encoded = [
        field(4, n.encode()) + number(5, types[n]) + b"".join(field(6, blob(a, **options)) for a in arrays)
        for n, arrays in layers.items()
    ]
    return field(1, name.encode()) + b"".join(field(2, e) for e in encoded)


def caffemodel_v0(layers: Arrays, types: Mapping[str, str], *, name: str = "small") -> bytes:
    """A V0 caffemodel: each layer's connection holds a flat layer."""
    encoded = [
        field(
            1,
            field(1, n.encode())
            + field(2, types[n].encode())
            + b"".join(field(50, blob(a, legacy=True)) for a in arrays),
        )
        for n, arrays in layers.items()
    ]
    return field(1, name.encode()) + b"".join(field(2, e) for e in encoded)


def huge_blob(layer: str, sizes: Sequence[int]) -> bytes:
    """A V2 caffemodel of one layer whose blob claims *sizes* and holds three numbers."""
    body = field(7, field(1, b"".join(map(varint, sizes)))) + field(5, struct.pack("<3f", 1, 2, 3))
    return field(100, field(1, layer.encode()) + field(7, body))


def conv(
    name: str,
    outputs: int,
    extra: str = "kernel_size: 3",
    bottoms: str = "data",
    kind: str = "Convolution",
    tops: str = "",
) -> str:
    return layer(name, kind, bottoms, tops, convolution_param=f"num_output: {outputs} {extra}")


CONV = {"conv": [(4, 4, 3, 3), (4,)]}
PRIOR = (
    "min_size: 3 max_size: 6 aspect_ratio: 2 flip: true clip: false variance: 0.1 variance: 0.1 variance: 0.2"
    " variance: 0.2"
)


def _detector(classes: int, keep: int) -> Small:
    """Location and confidence by convolutions over a 6 x 8 map with four boxes a place, then
    DetectionOutput.
    """
    body = (
        conv("loc", 16, "kernel_size: 1")
        + layer("loc_perm", "Permute", "loc", permute_param="order: 0 order: 2 order: 3 order: 1")
        + layer("loc_flat", "Flatten", "loc_perm", flatten_param="axis: 1")
        + conv("conf", 4 * classes, "kernel_size: 1")
        + layer("conf_perm", "Permute", "conf", permute_param="order: 0 order: 2 order: 3 order: 1")
        + layer("conf_flat", "Flatten", "conf_perm", flatten_param="axis: 1")
        + layer("prior", "PriorBox", "conf data", prior_box_param=PRIOR)
        + layer(
            "conf_rows", "Reshape", "conf_flat", reshape_param=f"shape {{ dim: 0 dim: -1 dim: {classes} }}"
        )
        + layer("conf_soft", "Softmax", "conf_rows", softmax_param="axis: 2")
        + layer("conf_out", "Flatten", "conf_soft", flatten_param="axis: 1")
        + layer(
            "detection_out",
            "DetectionOutput",
            "loc_flat conf_out prior",
            detection_output_param=(
                f"num_classes: {classes} share_location: true background_label_id: 0 nms_param {{"
                f" nms_threshold: 0.45 top_k: 100 }} code_type: CENTER_SIZE keep_top_k: {keep}"
                " confidence_threshold: 0.25"
            ),
        )
    )
    return Small(
        body, (1, 4, 6, 8), {"loc": [(16, 4, 1, 1), (16,)], "conf": [(4 * classes, 4, 1, 1), (4 * classes,)]}
    )


NETS: dict[str, Small] = {
    "convolution": Small(conv("conv", 4), blobs=CONV),
    "convolution-grouped": Small(
        conv("conv", 4, "kernel_size: 3 pad: 1 stride: 2 group: 2"), blobs={"conv": [(4, 2, 3, 3), (4,)]}
    ),
    "convolution-dilated": Small(
        conv("conv", 4, "kernel_size: 3 pad: 2 dilation: 2 bias_term: false"), blobs={"conv": [(4, 4, 3, 3)]}
    ),
    "convolution-oblong": Small(
        conv("conv", 4, "kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 stride_h: 1 stride_w: 2"),
        blobs={"conv": [(4, 4, 1, 3), (4,)]},
    ),
    "deconvolution": Small(
        conv("up", 3, "kernel_size: 4 stride: 2 pad: 1", kind="Deconvolution"),
        blobs={"up": [(4, 3, 4, 4), (3,)]},
    ),
    "deconvolution-odd": Small(
        conv("up", 3, "kernel_size: 3 stride: 2 pad: 1", kind="Deconvolution"),
        blobs={"up": [(4, 3, 3, 3), (3,)]},
    ),
    "deconvolution-grouped": Small(
        conv("up", 4, "kernel_size: 4 stride: 2 pad: 1 group: 4 bias_term: false", kind="Deconvolution"),
        blobs={"up": [(4, 1, 4, 4)]},
    ),
    "deconvolution-odd-depthwise": Small(
        conv("up", 4, "kernel_size: 3 stride: 2 pad: 1 group: 4", kind="Deconvolution"),
        (1, 4, 8, 8),
        {"up": [(4, 1, 3, 3), (4,)]},
    ),
    "pooling-max": Small(
        layer("pool", "Pooling", pooling_param="pool: MAX kernel_size: 3 stride: 2"), (1, 4, 6, 8)
    ),
    "pooling-max-padded": Small(
        layer("pool", "Pooling", pooling_param="pool: MAX kernel_size: 3 stride: 2 pad: 1"), (1, 4, 7, 8)
    ),
    "pooling-average": Small(
        layer("pool", "Pooling", pooling_param="pool: AVE kernel_size: 3 stride: 2"), (1, 4, 6, 8)
    ),
    "pooling-average-padded": Small(
        layer("pool", "Pooling", pooling_param="pool: AVE kernel_size: 3 stride: 2 pad: 1"), (1, 4, 7, 8)
    ),
    "pooling-global": Small(layer("pool", "Pooling", pooling_param="pool: AVE global_pooling: true")),
    "inner-product": Small(
        layer("fc", "InnerProduct", inner_product_param="num_output: 5"), blobs={"fc": [(5, 192), (5,)]}
    ),
    "inner-product-transposed": Small(
        layer("fc", "InnerProduct", inner_product_param="num_output: 5 transpose: true bias_term: false"),
        blobs={"fc": [(192, 5)]},
    ),
    "scale": Small(layer("scale", "Scale", scale_param="bias_term: true"), blobs={"scale": [(4,), (4,)]}),
    "scale-two": Small(
        conv("conv", 4, "kernel_size: 1")
        + layer("scale", "Scale", "data gate", scale_param="axis: 0").replace("gate", "conv"),
        blobs={"conv": [(4, 4, 1, 1), (4,)]},
    ),
    "bias": Small(layer("bias", "Bias", bias_param="axis: 1"), blobs={"bias": [(4,)]}),
    "batch-norm": Small(
        layer("bn", "BatchNorm", batch_norm_param="use_global_stats: true eps: 0.001"),
        blobs={"bn": [(4,), (4,), (1,)]},
        positive=("bn.1", "bn.2"),
    ),
    "relu": Small(layer("relu", "ReLU")),
    "relu-leaky": Small(layer("relu", "ReLU", relu_param="negative_slope: 0.1")),
    "prelu": Small(layer("prelu", "PReLU"), blobs={"prelu": [(4,)]}),
    "prelu-shared": Small(
        layer("prelu", "PReLU", prelu_param="channel_shared: true"), blobs={"prelu": [(1,)]}
    ),
    "elu": Small(layer("elu", "ELU", elu_param="alpha: 1.0")),
    "sigmoid": Small(layer("sigmoid", "Sigmoid")),
    "tanh": Small(layer("tanh", "TanH")),
    "absval": Small(layer("abs", "AbsVal")),
    "bnll": Small(layer("bnll", "BNLL")),
    "power": Small(layer("power", "Power", power_param="power: 2 scale: 0.5 shift: 1")),
    "power-linear": Small(layer("power", "Power", power_param="scale: 0.5 shift: 1")),
    "exp": Small(layer("exp", "Exp", exp_param="base: 2 scale: 0.5 shift: 0.1")),
    "log": Small(
        layer("abs", "AbsVal")
        + layer("more", "Power", "abs", power_param="shift: 1")
        + layer("log", "Log", "more")
    ),
    "log-base": Small(
        layer("abs", "AbsVal") + layer("log", "Log", "abs", log_param="base: 10 scale: 2 shift: 1")
    ),
    "eltwise-sum": Small(
        conv("conv", 4, "kernel_size: 1")
        + layer("sum", "Eltwise", "data conv", eltwise_param="operation: SUM coeff: 1 coeff: -0.5"),
        blobs={"conv": [(4, 4, 1, 1), (4,)]},
    ),
    "eltwise-product": Small(
        conv("conv", 4, "kernel_size: 1")
        + layer("prod", "Eltwise", "data conv", eltwise_param="operation: PROD"),
        blobs={"conv": [(4, 4, 1, 1), (4,)]},
    ),
    "eltwise-max": Small(
        conv("conv", 4, "kernel_size: 1")
        + layer("max", "Eltwise", "data conv", eltwise_param="operation: MAX"),
        blobs={"conv": [(4, 4, 1, 1), (4,)]},
    ),
    "concat": Small(
        conv("conv", 4, "kernel_size: 1") + layer("cat", "Concat", "data conv"),
        blobs={"conv": [(4, 4, 1, 1), (4,)]},
    ),
    "slice": Small(
        layer("cut", "Slice", "data", "a b", slice_param="axis: 1 slice_point: 1")
        + conv("conv", 2, "kernel_size: 1", "b"),
        blobs={"conv": [(2, 3, 1, 1), (2,)]},
    ),
    "crop": Small(
        conv("conv", 2)
        + layer("crop", "Crop", "data conv", crop_param="axis: 2 offset: 1")
        + layer("both", "Concat", "crop conv"),
        blobs={"conv": [(2, 4, 3, 3), (2,)]},
    ),
    "reshape": Small(layer("rows", "Reshape", reshape_param="shape { dim: 0 dim: -1 dim: 8 }")),
    "flatten": Small(layer("flat", "Flatten")),
    "permute": Small(layer("perm", "Permute", permute_param="order: 0 order: 2 order: 3 order: 1")),
    "normalize": Small(
        layer("norm", "Normalize", norm_param="across_spatial: false channel_shared: false"),
        blobs={"norm": [(4,)]},
    ),
    "normalize-all": Small(
        layer("norm", "Normalize", norm_param="across_spatial: true channel_shared: true"),
        blobs={"norm": [(1,)]},
    ),
    "lrn": Small(layer("lrn", "LRN", lrn_param="local_size: 3 alpha: 0.5 beta: 0.75")),
    "lrn-k": Small(layer("lrn", "LRN", lrn_param="local_size: 3 alpha: 0.5 beta: 0.75 k: 2")),
    "lrn-within": Small(
        layer("lrn", "LRN", lrn_param="local_size: 3 alpha: 0.5 beta: 0.75 norm_region: WITHIN_CHANNEL")
    ),
    "softmax": Small(layer("prob", "Softmax")),
    "interp": Small(layer("interp", "Interp", interp_param="height: 11 width: 15")),
    "interp-zoom": Small(layer("interp", "Interp", interp_param="zoom_factor: 2")),
    "upsample": Small(layer("up", "Upsample", upsample_param="scale: 2")),
    "reduction": Small(layer("sum", "Reduction", reduction_param="operation: SUM axis: 1")),
    "reduction-mean": Small(layer("mean", "Reduction", reduction_param="operation: MEAN axis: 2 coeff: 2")),
    "prior-box": Small(
        conv("conv", 4) + layer("prior", "PriorBox", "conv data", prior_box_param=PRIOR), blobs=CONV
    ),
    "detection-output": _detector(2, 20),
    "detection-output-classes": _detector(4, 20),
}
