"""What goes into the manifest: names as they are, prose without a directory, and the command that made it."""

from __future__ import annotations

import json
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from evaluation.nets.mnn_models import WEIGHT, floats, node, save
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.commands.command_line import command_line, source_name
from mnnprep.model.messages import Source
from mnnprep.model.metrics import parse_metric
from mnnprep.model.precision import Precision
from mnnprep.model.preprocess import parse_preprocess, preprocess_text
from mnnprep.model.request import Limits, Request, make_wants
from mnnprep.model.signature import TensorSpec
from mnnprep.model.target import parse_targets
from support.command import call, environment, prepared, program

ABSOLUTE = re.compile(
    r"(?<![\w.~/<\-\\:])/(?:tmp|root|home|usr|opt|var|work|onnxruntime_src|pytorch)/[^\s'\"]*"
)
NAME_FIELDS = ("name", "source_name", "mnn_name", "output", "nodes", "subject", "path")


def prose(value: Any, field: str = "") -> list[str]:
    """Every text of a manifest that is no name."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (prose(item, key) if key != "noise" else [])]
    if isinstance(value, list):
        return [text for item in value for text in prose(item, field)]
    return [value] if isinstance(value, str) and field not in NAME_FIELDS else []


def directories_in(manifest: Path, *more: Path) -> list[str]:
    """The absolute paths in the prose of a bundle's manifest."""
    texts = prose(json.loads((manifest / "manifest.json").read_text()))
    return [
        text for text in texts if ABSOLUTE.search(text) or any(str(directory) in text for directory in more)
    ]


def test_names_that_hold_the_home_the_working_and_the_sources_directory_stay_as_they_are(
    tmp_path: Path,
) -> None:
    """`prepare` records them as they are, so `verify` finds them in the model again."""
    home, work, place = (tmp_path / name for name in ("home", "work", "place"))
    for directory in (home, work, place):
        directory.mkdir()
    x, y, z, w = f"{home}/x", f"{work}/y", f"{place}/z", f"{tmp_path}/w"
    nodes = [node("MatMul", [x, w], [z], name=f"{place}/MatMul"), node("Relu", [z], [y], name=f"{home}/Relu")]
    save(place / "net.onnx", nodes, [floats(x, "batch", 4)], [floats(y, "batch", 3)], {w: WEIGHT})
    variables = environment(HOME=str(home))
    made = program("prepare", place / "net.onnx", "-o", "out", "--dim", "batch=1:3", cwd=work, env=variables)
    assert made.code == 0, made.err
    manifest = read_manifest(work / "out")
    assert [t.name for t in (*manifest.signature.inputs, *manifest.signature.outputs)] == [x, y]
    assert [t.mnn_name for t in (*manifest.signature.inputs, *manifest.signature.outputs)] == [x, y]
    assert set(manifest.tolerance.noise) == {y}
    again = program("verify", "out", "--json", cwd=work, env=variables)
    assert again.document()["verdict"] == "proven", again.out + again.err


FAILING = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        if not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            return x + 1
        raise ValueError(f"no weights at {__file__}, nor at /home/somebody/else/net.py")

def build():
    return Net()
"""


def test_a_module_that_fails_while_it_is_traced_leaves_no_directory(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from mnnprep.errors import RefusedError
    from mnnprep.formats.torch import export, load
    from mnnprep.formats.torch.export import torchscript_exporter
    from mnnprep.formats.torch.exportable import Exportable

    (tmp_path / "net.py").write_text(FAILING)
    loaded = load.load(Source(kind="torch-factory", path=f"{tmp_path / 'net.py'}:build"))
    subject = Exportable(
        loaded, (TensorSpec("x", "float32", (1, 3)),), {"x": np.ones((1, 3), np.float32)}, {"y": 2}
    )
    with pytest.raises(RefusedError) as failed:
        torchscript_exporter(export.adapter(subject), subject, str(tmp_path / "raw.onnx"), [], 13)
    assert "net.py" in failed.value.seen
    assert str(tmp_path) not in failed.value.seen
    assert "/home/" not in failed.value.seen


def test_a_converter_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    converter = tmp_path / "MNNConvert"
    converter.write_text(
        f'#!/bin/sh\necho "Convert error: can\'t read {tmp_path}/here/net.onnx or $4"\nexit 1\n'
    )
    converter.chmod(converter.stat().st_mode | stat.S_IXUSR)
    save(
        tmp_path / "net.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", 2, 4)],
        [floats("y", 2, 3)],
        {"w": WEIGHT},
    )
    manifest = prepared(tmp_path / "net.onnx", tmp_path / "out", "--mnnconvert", converter)
    assert manifest.verdict.value == "refused"
    assert directories_in(tmp_path / "out", tmp_path) == []


def test_an_operator_that_mnn_lacks_leaves_no_directory(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="/layers/MatMul"),
        node("Hardmax", ["m"], ["y"], name="/layers/x/Hardmax"),
    ]
    save(tmp_path / "net.onnx", nodes, [floats("x", 2, 4)], [floats("y", 2, 3)], {"w": WEIGHT})
    manifest = prepared(tmp_path / "net.onnx", tmp_path / "out", "--no-repair")
    assert manifest.verdict.value == "refused"
    assert directories_in(tmp_path / "out", tmp_path) == []
    assert any(
        "/layers/x/Hardmax" in c.subject + c.reason for c in manifest.evidence if c.check == "mnn_convert"
    )  # a name, not a path


def test_what_tensorflow_says_of_a_call_leaves_no_directory(tmp_path: Path) -> None:
    from mnnprep.formats.tensorflow.loaded import guarded
    from mnnprep.model.net import Refused

    file = tmp_path / "layers.py"
    file.write_text("")

    def call(_: Any) -> Any:
        raise ValueError(f'Exception encountered: in user code:\n    File "{file}", line 3\nmore')

    with pytest.raises(Refused, match="in user code"):
        guarded(call)({})

    def other(_: Any) -> Any:
        raise OSError(f"Unable to open {file} (errno = 2)")

    with pytest.raises(Refused, match=r"^OSError: Unable to open layers\.py \(errno = 2\)$"):
        guarded(other)({})


class TestCommand:
    WHOLE = Request(
        source="/a/b/net.py:make",
        weights="/a/weights.pt",
        to="onnx",
        method="onnx-trace",
        opset=17,
        wants=make_wants(
            ("x=float32[n,3,8,8]",),
            ("n=1:4",),
            ("x=-0.1:1e-7",),
            "/s/images",
            3,
            ("x:size=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",),
            5,
        ),
        factory_args={"classes": "10"},
        trust=True,
        mnnconvert="/bin/MNNConvert",
        limits=Limits(timeout=5, memory=1 << 30, proof_memory=1 << 31),
        precision=Precision(weight_bits=8, budget=22.5),
        static=True,
        metrics=(parse_metric("top1=0.9"), parse_metric("mse@y")),
        repairs=("pool-strides",),
        signature="s",
        outputs=("a", "b"),
        tflite_precision="float16",
        targets=parse_targets(["arm64:low,cpu=cortex-a53,engine=3.2.0", "host:low"]),
        engine="3.2.0",
        time_budget=60.0,
    )
    SOURCE = Source(kind="torch-factory", path="/a/b/net.py:make")

    def test_every_field_of_a_request_is_in_it_and_reads_back(self) -> None:
        """A field that is added later has to be written down, or named here."""
        from mnnprep.cli.options import chosen
        from mnnprep.cli.prepare import command
        from mnnprep.model.options import PREPARE, request_of

        words = command_line(self.WHOLE, self.SOURCE)
        assert not any("/" in word for word in words)
        context = command.make_context("prepare", [*words[1:], "-o", "x"])
        read = request_of(context.params["source"], chosen(PREPARE, context.params))
        named = {
            "source": "net.py:make",
            "weights": "weights.pt",
            "mnnconvert": read.mnnconvert,
            "limits": Limits(memory=1 << 30, proof_memory=1 << 31),
        }
        wants = msgspec.structs.replace(self.WHOLE.wants, samples=read.wants.samples)
        assert read == msgspec.structs.replace(self.WHOLE, wants=wants, **named)
        assert Path(read.mnnconvert).name == "MNNConvert"
        assert Path(read.wants.samples).name == "images"
        changed = [f for f in Request.__struct_fields__ if getattr(read, f) != getattr(Request(source=""), f)]
        assert changed == list(Request.__struct_fields__)

    def test_a_plain_call_is_short(self) -> None:
        source = Source(kind="onnx", path="/a/b/net.onnx")
        assert command_line(Request(source="b/net.onnx"), source) == ["prepare", "net.onnx"]
        assert command_line(Request(source="b/net.onnx", repairs=()), source) == [
            "prepare",
            "net.onnx",
            "--no-repair",
        ]
        assert command_line(Request(source=""), Source(kind="live", path="1")) == []

    @pytest.mark.parametrize(
        "text",
        [
            "size=256,crop=224,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw",
            "x:y:channels=gray,layout=nhw,dtype=uint8,alpha=drop",
            "size=3x4,crop=2x3,channels=bgr,filter=box",
            "rate=16000",
            "mel:rate=8000,channels=mono,length=400,layout=nt",
        ],
    )
    def test_a_recipe_reads_back(self, text: str) -> None:
        recipe = parse_preprocess(text)
        assert parse_preprocess(preprocess_text(recipe)) == recipe

    def test_names_of_sources(self) -> None:
        assert source_name(Source(kind="savedmodel", path="/a/my model")) == "my model"
        assert source_name(self.SOURCE) == "net.py:make"
        assert source_name(Source(kind="torch-factory", path="package.module:make")) == "package.module:make"
        assert source_name(Source(kind="onnx", path="/a/\udcff.onnx")) == "\\udcff.onnx"


def test_the_record_says_which_model_it_was(tmp_path: Path) -> None:
    save(
        tmp_path / "a face.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "n", 4)],
        [floats("y", "n", 3)],
        {"w": WEIGHT},
    )
    manifest: Manifest = prepared(
        tmp_path / "a face.onnx", tmp_path / "out", "--dim", "n=1:2", "--range", "x=0:1"
    )
    assert (manifest.source.name, manifest.source.files[0].file) == ("a face.onnx", "a face.onnx")
    assert manifest.source.command == ["prepare", "a face.onnx", "--dim", "n=1:2", "--range", "x=0.0:1.0"]
    assert manifest.source.parameters == WEIGHT.size
    page = (tmp_path / "out" / "report.html").read_text()
    head = page[: page.index("Signature")]
    assert "a face.onnx" in head
    assert manifest.source.files[0].sha256 in head
    assert shlex.join(["mnnprep", *manifest.source.command, "-o", "DIR"]).replace("'", "&#39;") in head
    assert call("verify", tmp_path / "out").code == 0
