"""Caffe: networks that name Python code and files, are deep or endless, or declare more than there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import Canary, field, hostile

HEAD = 'name: "net"\nlayer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
RELU = 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }\n'


def pair(canary: Canary, text: str | bytes, weights: bytes = b"", name: str = "net") -> Path:
    """NAME.prototxt, and the weights beside it."""
    path = canary.model / f"{name}.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    (canary.model / f"{name}.caffemodel").write_bytes(
        weights or field(1, "net") + field(100, [field(1, "r"), field(2, "ReLU")])
    )
    return path


def blob(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    return field(7, [field(7, [field(1, n) for n in shape]), field(5, data)])


CONV = 'layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_size: 3 } }\n'
TEXTS: dict[str, tuple[str, Callable[[Canary], str]]] = {
    "python-layer": (
        "a Python layer whose module lies beside the file",
        lambda c: (
            HEAD
            + f'layer {{ name: "p" type: "Python" bottom: "x" top: "y" python_param {{ module: "evil" layer: "Evil" param_str: "{c.shell}" }} }}\n'
        ),
    ),
    "python-os": (
        "a Python layer of the module os",
        lambda c: (
            HEAD
            + 'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "os" layer: "system" } }\n'
        ),
    ),
    "hdf5-data": (
        "a layer that reads HDF5 files that a list names",
        lambda c: (
            f'layer {{ name: "d" type: "HDF5Data" top: "x" hdf5_data_param {{ source: "{c.secret_text}" batch_size: 1 }} }}\n'
            + RELU
        ),
    ),
    "image-data": (
        "a layer that reads pictures that a list names",
        lambda c: (
            f'layer {{ name: "d" type: "ImageData" top: "x" image_data_param {{ source: "{c.secret_text}" root_folder: "/" }} '
            f'transform_param {{ mean_file: "{c.secret}" }} }}\n' + RELU
        ),
    ),
    "hdf5-output": (
        "a layer that writes a file",
        lambda c: (
            HEAD
            + RELU
            + f'layer {{ name: "o" type: "HDF5Output" bottom: "y" hdf5_output_param {{ file_name: "{c.written}" }} }}\n'
        ),
    ),
    "detection-output": (
        "a layer that saves its results",
        lambda c: (
            HEAD
            + RELU
            + 'layer { name: "o" type: "DetectionOutput" bottom: "y" bottom: "y" bottom: "y" top: "z" detection_output_param { num_classes: 2 '
            + f'save_output_param {{ output_directory: "{c.written}" label_map_file: "{c.secret_text}" name_size_file: "{c.secret_text}" }} }} }}\n'
        ),
    ),
    "filler-file": (
        "a filler and a mean by the name of a file",
        lambda c: (
            HEAD
            + 'layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_size: 3 '
            + f'weight_filler {{ type: "file" file: "{c.secret}" }} }} }}\n'
        ),
    ),
    "include": (
        "words that would include another file",
        lambda c: f'#include "{c.secret_text}"\ninclude: "{c.secret_text}"\n' + HEAD + RELU,
    ),
    "many-layers": (
        "200,000 layers",
        lambda c: (
            HEAD
            + "".join(
                f'layer {{ name: "r{i}" type: "ReLU" bottom: "{f"t{i - 1}" if i else "x"}" top: "t{i}" }}\n'
                for i in range(200_000)
            )
        ),
    ),
    "many-fields": (
        "1,000,000 fields of one name",
        lambda c: (
            HEAD
            + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" '
            + "loss_weight: 1 " * 1_000_000
            + "}\n"
        ),
    ),
    "deep": (
        "100,000 messages in each other",
        lambda c: HEAD + "layer { a " * 1 + "{ a " * 100_000 + "}" * 100_001,
    ),
    "unclosed": ("100,000 messages that don't end", lambda c: HEAD + "layer { a " + "{ a " * 100_000),
    "huge-dims": ("an input of 2^60 numbers", lambda c: HEAD.replace("dim: 8", f"dim: {1 << 30}") + RELU),
    "negative-dims": (
        "an input with sizes below 1",
        lambda c: HEAD.replace("dim: 8", "dim: -8").replace("dim: 3", "dim: 0") + RELU,
    ),
    "digits": ("a size of 100,000 digits", lambda c: HEAD.replace("dim: 3", "dim: " + "9" * 100_000) + RELU),
    "huge-output": (
        "a convolution of 2^40 filters",
        lambda c: HEAD + CONV.replace("num_output: 4", f"num_output: {1 << 40}"),
    ),
    "huge-kernel": (
        "a kernel and padding of 2^31",
        lambda c: (
            HEAD
            + CONV.replace(
                "kernel_size: 3",
                f"kernel_size: {(1 << 31) - 1} pad: {(1 << 31) - 1} stride: 0 dilation: {1 << 31}",
            )
        ),
    ),
    "cyclic": (
        "layers that need each other",
        lambda c: (
            HEAD
            + 'layer { name: "a" type: "Eltwise" bottom: "x" bottom: "b" top: "a" }\nlayer { name: "b" type: "ReLU" bottom: "a" top: "b" }\n'
        ),
    ),
    "self": ("an input that is its own", lambda c: 'layer { name: "a" type: "ReLU" bottom: "a" top: "a" }\n'),
    "slices": (
        "a Slice into 100,000",
        lambda c: (
            HEAD
            + 'layer { name: "s" type: "Slice" bottom: "x" '
            + " ".join(f'top: "s{i}"' for i in range(100_000))
            + " slice_param { axis: 99 } }\n"
        ),
    ),
    "crop-axis": (
        "axes far beyond the shape",
        lambda c: (
            HEAD
            + 'layer { name: "f" type: "Flatten" bottom: "x" top: "y" flatten_param { axis: -99 end_axis: 99 } }\n'
            + 'layer { name: "q" type: "Reshape" bottom: "y" top: "z" reshape_param { shape { dim: -1 dim: -1 dim: 0 } } }\n'
        ),
    ),
    "tile": (
        "a Tile of 2^31",
        lambda c: (
            HEAD
            + 'layer { name: "t" type: "Tile" bottom: "x" top: "y" tile_param { axis: 1 tiles: 2147483647 } }\n'
        ),
    ),
    "upsample": (
        "a Deconvolution with a stride of 2^20",
        lambda c: (
            HEAD
            + CONV.replace("Convolution", "Deconvolution").replace(
                "kernel_size: 3", "kernel_size: 1 stride: 1048576"
            )
        ),
    ),
    "names": (
        "names that are escapes, paths and a script",
        lambda c: (
            HEAD
            + "layer { name: \"\x1b[31m\u202e<script>document.title='executed'</script>../../fired/written\" "
            + 'type: "Evil\x07\x1b]0;x" bottom: "x" top: "\\x1b[31mz" }\n'
            + RELU
        ),
    ),
    "long-name": ("a name of 70,000 letters", lambda c: HEAD + RELU.replace('"r"', '"' + "r" * 70_000 + '"')),
    "not-utf8": ("a name that is no UTF-8", lambda c: HEAD + RELU.replace('"r"', '"\udcff\udcfe"')),
    "train": (
        "a training network with a data base elsewhere",
        lambda c: (
            f'layer {{ name: "d" type: "Data" top: "x" top: "l" data_param {{ source: "{c.secrets}" backend: LMDB batch_size: 1 }} '
            + "include { phase: TRAIN } }\n"
            + RELU
        ),
    ),
    "solver": (
        "a solver that names a network elsewhere",
        lambda c: (
            f'net: "{c.secret_text}"\nsnapshot_prefix: "{c.written}"\nlayer {{ name: "r" type: "ReLU" }}\n'
        ),
    ),
    "numbers": (
        "numbers that are none",
        lambda c: (
            HEAD
            + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { power: nan scale: inf shift: 1e999999 } }\n'
            + CONV.replace("kernel_size: 3", "kernel_size: 0x7fffffffffffffffff")
        ),
    ),
    "escapes": (
        "escapes of text without an end",
        lambda c: HEAD + 'layer { name: "\\x \\777 \\u{110000} \\" type: "ReLU" }\n',
    ),
    "wrong-types": (
        "text for numbers and messages for text",
        lambda c: (
            HEAD
            + 'layer { name { a: 1 } type: 5 bottom: x top: { } input_param: "x" convolution_param: 7 }\nlayer: 5\nlayer { }\n'
        ),
    ),
}
for _name, (_tries, _text) in TEXTS.items():

    @hostile("caffe", "prototxt", _name, _tries)
    def _(canary: Canary, text: Any = _text) -> Path:
        (canary.model / "evil.py").write_text(f"import os\nos.system({canary.shell!r})\nclass Evil: pass\n")
        return pair(canary, text(canary))


def layer(name: str, kind: str, *blobs: bytes) -> bytes:
    return field(100, [field(1, name), field(2, kind), field(3, "x"), field(4, "y"), *blobs])


WEIGHTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "huge-shape": (
        "weights of 2^60 numbers and none in the file",
        lambda: layer("c", "Convolution", blob((1 << 30, 1 << 30))),
    ),
    "overflow": (
        "a shape whose product is 2^64",
        lambda: layer("c", "Convolution", blob((1 << 32, 1 << 32), bytes(432))),
    ),
    "negative-shape": (
        "a shape below 0",
        lambda: layer("c", "Convolution", blob((-4, 3, -3, 3), bytes(432))),
    ),
    "short": (
        "fewer numbers than the shape",
        lambda: layer("c", "Convolution", blob((4, 3, 3, 3), bytes(5))),
    ),
    "no-blobs": ("no weights", lambda: layer("c", "Convolution")),
    "many-blobs": (
        "100,000 weights of one layer",
        lambda: layer("c", "Convolution", *[blob((1,), bytes(4))] * 100_000),
    ),
    "twice": (
        "two layers of one name",
        lambda: layer("c", "Convolution", blob((4, 3, 3, 3), bytes(432))) * 2,
    ),
    "deep": ("100,000 messages in each other", lambda: field(100, _deep(20_000))),
    "long-name": ("a name of 70,000 letters", lambda: layer("c" * 70_000, "Convolution")),
    "names": (
        "names that are escapes and a script",
        lambda: layer("\x1b[31m<script>document.title='executed'</script>\u202e", "Evil\x07"),
    ),
    "old-layers": (
        "layers of the oldest form, of an unknown type",
        lambda: field(2, [field(1, [field(1, "c"), field(2, "conv\x1b[31m")]), field(2, "x"), field(3, "y")]),
    ),
    "packed-odd": (
        "packed numbers of 3 bytes",
        lambda: field(
            100,
            [
                field(1, "c"),
                field(2, "Convolution"),
                field(7, [field(5, b"abc"), field(8, b"abc"), field(1, -5), field(2, 1 << 40)]),
            ],
        ),
    ),
}


def _deep(count: int) -> bytes:
    data = b""
    for _ in range(count):
        data = field(7, data)
    return data


for _name, (_tries, _data) in WEIGHTS.items():

    @hostile("caffe", "caffemodel", _name, _tries, commands=("inspect", "check", "prepare", "consolidate"))
    def _(canary: Canary, data: Any = _data) -> Path:
        pair(canary, HEAD + CONV, data())
        return canary.model / "net.caffemodel"
