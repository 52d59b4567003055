"""The two files of a Caffe model: read, matched, and refused with the layer, the value and the next step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.nets.caffe_nets import Small as Net
from evaluation.nets.caffe_nets import (
    blob,
    caffemodel,
    conv,
    field,
    header,
    huge_blob,
    layer,
    number,
    varint,
    weights,
    write,
    write_text,
)
from mnnprep.commands import resolve
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.caffe.caffemodel import read_weights
from mnnprep.formats.caffe.net import definition
from mnnprep.formats.caffe.pair import complete, load
from mnnprep.formats.caffe.prototext import parse
from mnnprep.formats.caffe.prototext import write as text_of
from mnnprep.formats.caffe.steps import write_pair
from mnnprep.formats.caffe.upgrade import upgraded, version_of
from mnnprep.model.request import Request, make_wants
from mnnprep.workers import host, launch
from mnnprep.workers.step import Worker
from support.caffe_twins import TRAIN_VAL, TWIN, twins
from support.command import call, program

TWO = Net(
    conv("first", 4, "kernel_size: 3 pad: 1")
    + layer("relu", "ReLU", "first", "first")
    + conv("second", 4, "kernel_size: 3 pad: 1", "first"),
    (1, 4, 6, 8),
    {"first": [(4, 4, 3, 3), (4,)], "second": [(4, 4, 3, 3), (4,)]},
)
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def pair(directory: Path, model: bytes | None = None, text: str = "") -> Path:
    return write_text(
        directory, text or header(TWO.shape) + TWO.body, caffemodel(weights(TWO)) if model is None else model
    )


def refusal(path: Path) -> str:
    """What `prepare` says of the pair at *path*: refused, with exit code 3, before any worker starts but the
    one that reads it.
    """

    def started(worker: Worker, **places: Any) -> Any:
        assert worker == resolve.READ.worker, "a framework's worker was started"
        return launch.launch(worker, **places)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "launch", started)
        result = call("prepare", path, "-o", path.parent / "out")
    assert result.code == 3, result.err
    assert not (path.parent / "out").exists()
    return result.err


def test_a_wrong_blob_shape_is_shown_with_both_shapes(tmp_path: Path) -> None:
    stored = weights(TWO)
    stored["second"][0] = np.zeros((4, 2, 3, 3), np.float32)
    said = refusal(pair(tmp_path, caffemodel(stored)))
    assert "second (Convolution): the prototxt implies 4x4x3x3, 4, the caffemodel has 4x2x3x3, 4" in said
    assert "first" not in said


def test_a_missing_layer_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    stored = weights(TWO)
    said = refusal(pair(tmp_path, caffemodel({"first": stored["first"], "zweite": stored["second"]})))
    assert "second (Convolution): missing in the caffemodel, which should hold 4x4x3x3, 4" in said
    assert "in the caffemodel without a layer: zweite" in said


def test_a_missing_bias_is_a_mismatch(tmp_path: Path) -> None:
    stored = weights(TWO)
    said = refusal(pair(tmp_path, caffemodel({"first": stored["first"], "second": stored["second"][:1]})))
    assert "second (Convolution): the prototxt implies 4x4x3x3, 4, the caffemodel has 4x4x3x3" in said


def test_a_layer_that_is_twice_there_is_named(tmp_path: Path) -> None:
    model = caffemodel(weights(TWO))
    twice = model + caffemodel({"second": weights(TWO)["second"]})
    assert "second: is 2 times in the caffemodel" in refusal(pair(tmp_path, twice))
    doubled = header(TWO.shape) + TWO.body + conv("first", 4, "kernel_size: 3 pad: 1", "second", tops="third")
    assert "first: appears twice in the prototxt" in refusal(pair(tmp_path / "b", text=doubled))


def test_every_mismatch_is_listed(tmp_path: Path) -> None:
    said = refusal(pair(tmp_path, caffemodel({"first": [], "other": weights(TWO)["first"]})))
    assert "first (Convolution): missing" in said
    assert "second (Convolution): missing" in said


def test_a_truncated_caffemodel_says_where(tmp_path: Path) -> None:
    model = caffemodel(weights(TWO))
    said = refusal(pair(tmp_path, model[: len(model) // 2]))
    assert "the Caffe weights file is truncated at byte" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [(HTML, "HTML page"), (POINTER, "Git LFS pointer"), (b"", "empty"), (b"\x00\x01\x02" * 9, "does not")],
)
def test_what_is_no_weights_is_said(content: bytes, words: str, tmp_path: Path) -> None:
    assert words in refusal(pair(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "words"), [(HTML.decode(), "HTML page"), ("", "empty"), ("layer {\n  name: 1 @", "line 2")]
)
def test_what_is_no_definition_is_said(content: str, words: str, tmp_path: Path) -> None:
    path = pair(tmp_path)
    path.write_text(content)
    assert words in refusal(path)
    assert words in refusal(path.with_suffix(".caffemodel"))


def test_a_negative_dimension_is_refused(tmp_path: Path) -> None:
    said = refusal(pair(tmp_path, text=header((1, 4, -6, 8)) + TWO.body))
    assert "the input data has a dimension that is not positive" in said
    assert "1 x 4 x -6 x 8" in said
    stored = field(
        100, field(1, b"first") + field(7, field(7, field(1, varint(4) + varint(-4) + varint(3) + varint(3))))
    )
    assert "a blob of the caffemodel has a negative dimension" in refusal(pair(tmp_path / "b", stored))


@pytest.mark.parametrize("sizes", [(1 << 20, 1 << 20), (1 << 40,), (1 << 31, 1 << 31, 1 << 31)])
def test_a_blob_header_beyond_its_numbers_is_refused_without_memory(
    sizes: tuple[int, ...], tmp_path: Path
) -> None:
    said = refusal(pair(tmp_path, huge_blob("first", sizes)))
    assert "does not match its data" in said
    assert "first, blob 0" in said
    assert "but it has 3" in said


def test_swapped_weights_of_equal_shape_differ_from_the_reference_given(tmp_path: Path) -> None:
    """Shapes can't tell; the outputs that a sample holds do."""
    pytest.importorskip("cv2")
    right = weights(TWO)
    path = pair(tmp_path)
    assert call("prepare", path, "-o", tmp_path / "right").code == 0
    case = tmp_path / "right" / "cases" / "0.npz"
    swapped = pair(tmp_path / "swapped", caffemodel({"first": right["second"], "second": right["first"]}))
    result = program("prepare", swapped, "-o", tmp_path / "out", "--samples", case)
    assert result.code == 3
    assert "the source does not compute the outputs that a sample holds" in result.err
    assert "0.npz: second differs beyond the tolerance" in result.err
    again = call("prepare", path, "-o", tmp_path / "again", "--samples", case)
    assert again.code == 0, again.err


def test_unused_weights_are_told_and_no_fault(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    stored = weights(TWO)
    result = call(
        "prepare",
        pair(tmp_path, caffemodel({**stored, "aux": stored["first"]})),
        "-o",
        tmp_path / "out",
        "--json",
    )
    assert result.code == 0, result.err
    check = next(c for c in result.document()["evidence"] if c["check"] == "unused_weights")
    assert (check["status"], check["subject"]) == ("failed", "aux")
    assert not check["required"]


def test_either_file_is_the_source_and_the_other_is_found(tmp_path: Path) -> None:
    path = pair(tmp_path)
    weights_path = path.with_suffix(".caffemodel")
    wanted = ("caffe-prototxt", str(path), str(weights_path))
    assert complete(str(path), "caffe-prototxt", "", make_wants()) == wanted
    assert complete(str(weights_path), "caffemodel", "", make_wants()) == wanted
    deploy = path.rename(tmp_path / "net_deploy.prototxt")
    assert complete(str(weights_path), "caffemodel", "", make_wants())[1] == str(deploy)
    assert complete(str(deploy), "caffe-prototxt", "", make_wants())[2] == str(weights_path)
    elsewhere = deploy.rename(tmp_path / "elsewhere.txt")
    assert complete(str(weights_path), "caffemodel", str(elsewhere), make_wants())[1] == str(elsewhere)


def test_a_missing_other_file_is_a_wrong_call(tmp_path: Path) -> None:
    path = pair(tmp_path)
    path.with_suffix(".caffemodel").unlink()
    result = call("prepare", path, "-o", tmp_path / "out")
    assert result.code == 2
    assert "give it with --weights" in result.err
    with pytest.raises(UsageError, match="has another format"):
        complete(str(path), "caffe-prototxt", str(path), make_wants())


def test_a_declared_input_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    path = pair(tmp_path)
    for spec in (
        "image=float32[1,4,6,8]",
        "data=float32[1,5,6,8]",
        "data=float32[1,c,6,8]",
        "data=float64[1,4,6,8]",
        "data=float32[4,6,8]",
    ):
        assert call("prepare", path, "-o", tmp_path / "out", "--input", spec).code == 2, spec


def test_a_layer_that_takes_what_nothing_makes_is_named(tmp_path: Path) -> None:
    said = refusal(
        pair(tmp_path, text=header(TWO.shape) + TWO.body.replace('bottom: "first"', 'bottom: "frist"'))
    )
    assert "takes frist" in said


def test_a_net_too_small_for_its_layers_names_the_layer(tmp_path: Path) -> None:
    said = refusal(pair(tmp_path, text=header((1, 4, 1, 1)) + TWO.body.replace("pad: 1", "pad: 0")))
    assert "first (Convolution) does not fit its input" in said


def test_gradients_doubles_and_unknown_fields(tmp_path: Path) -> None:
    """diff goes, double becomes float, four sizes become a shape, and a field of somebody's own stays."""
    stored = weights(TWO)
    own = field(60000, b"kept")
    first = field(
        100,
        field(1, b"first")
        + b"".join(field(7, blob(a, gradient=True, double=True)) for a in stored["first"])
        + own
        + number(9, 7),
    )
    second = field(
        100, field(1, b"second") + b"".join(field(7, blob(a, legacy=True)) for a in stored["second"])
    )
    loss = field(100, field(1, b"loss") + field(2, b"SoftmaxWithLoss"))
    path = pair(tmp_path, first + second + loss)
    read = load(path, path.with_suffix(".caffemodel"))
    assert read.weights.gradient_bytes == sum(a.nbytes for a in stored["first"])
    _, written = write_pair(read, tmp_path)
    data = written.read_bytes()
    assert own in data
    again = read_weights(written)
    assert [(la.name, la.type, [b.shape for b in la.blobs]) for la in again.layers] == [
        ("first", "Convolution", [(4, 4, 3, 3), (4,)]),
        ("relu", "ReLU", []),
        ("second", "Convolution", [(4, 4, 3, 3), (4,)]),
    ]
    assert again.gradient_bytes == 0
    for la in again.layers:
        for index, b in enumerate(la.blobs):
            assert np.array_equal(b.read(), stored[la.name][index])


def test_versions_are_told(tmp_path: Path) -> None:
    found = {
        name: (version_of(parse(p.read_text())), read_weights(p.with_suffix(".caffemodel")).version)
        for name, p in twins(tmp_path).items()
    }
    assert found == {"deploy": (2, 2), "train_val": (2, 2), "v1": (1, 1), "v0": (0, 0)}


def test_twins_become_the_same_three_files(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    files: dict[str, dict[str, bytes]] = {}
    manifests = set()
    for name, path in twins(tmp_path).items():
        bundle = tmp_path / "out" / name
        result = call("prepare", path, "-o", bundle)
        assert result.code == 0, (name, result.err, result.out)
        files[name] = {
            f: (bundle / f).read_bytes() for f in ("model.prototxt", "model.caffemodel", "model.mnn")
        }
        manifests.add((bundle / "manifest.json").read_bytes())
    assert all(found == files["deploy"] for found in files.values())
    assert len(manifests) == len(files)


def test_what_was_training_is_told(tmp_path: Path) -> None:
    path = twins(tmp_path)["train_val"]
    removed = load(path, path.with_suffix(".caffemodel")).net.removed
    for words in (
        "data (Data) is not in the TEST phase",
        "drop (Dropout) removed",
        "accuracy (Accuracy) removed",
        "prob (SoftmaxWithLoss) became Softmax",
        "data (Data) became the input data",
    ):
        assert any(words in line for line in removed), (words, removed)


def test_a_data_layer_without_a_size_asks_for_it(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace("transform_param { crop_size: 6 }", "")
    path = write_text(tmp_path, text, caffemodel(weights(TWIN)))
    with pytest.raises(RefusedError, match="does not give the size of the input data") as caught:
        load(path, path.with_suffix(".caffemodel"))
    assert "--input 'data=float32[" in caught.value.next
    found = load(path, path.with_suffix(".caffemodel"), make_wants(("data=float32[1,4,6,6]",)))
    assert found.net.inputs == {"data": (1, 4, 6, 6)}


PADDED_V0 = """input: "data" input_dim: 1 input_dim: 4 input_dim: 6 input_dim: 6
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "padded" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 } bottom: "padded" top: "conv" }
"""


def test_a_padding_layer_of_v0_goes_into_the_convolution() -> None:
    text = text_of(upgraded(parse(PADDED_V0)))
    assert "padded" not in text
    assert re.search(r'bottom: "data"[^}]*pad: 2', text, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layers { name: "x" type: MAGIC bottom: "data" top: "x" }', "does not have"),
        ('layers { layer { name: "x" type: "magic" } bottom: "data" top: "x" }', "does not have"),
        ('layers { name: "x" type: RELU } layer { name: "y" type: "ReLU" }', "mixes old and new layers"),
        ('base_lr: 0.1 input: "data"', "has no layer"),
    ],
)
def test_what_can_not_be_upgraded_is_said(text: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        upgraded(parse(text))


def test_shared_weights_and_unknown_settings_stay_in_the_definition(tmp_path: Path) -> None:
    body = conv("first", 4, 'kernel_size: 3 pad: 1 weight_filler { type: "xavier" } future: 7').replace(
        "  convolution_param",
        '  param { name: "shared" lr_mult: 3 }\n  param { lr_mult: 1 }\n  own_param { x: 1 }\n '
        " convolution_param",
    )
    path = write(tmp_path, Net(body, (1, 4, 6, 8), {"first": [(4, 4, 3, 3), (4,)]}))
    text = text_of(definition(load(path, path.with_suffix(".caffemodel")).net))
    assert 'param {\n    name: "shared"\n  }' in text
    assert "future: 7" in text
    assert "own_param {\n    x: 1" in text
    assert "lr_mult" not in text
    assert "filler" not in text


def test_a_pair_carries_trust(tmp_path: Path) -> None:
    path = pair(tmp_path)
    assert [resolve.resolve(Request(source=str(path), trust=trust)).trust for trust in (False, True)] == [
        False,
        True,
    ]
