"""Every layer type: OpenCV, our ONNX form in onnxruntime, and MNN by both routes, on nets that the test
writes itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from evaluation.nets.caffe_nets import NETS, write
from evaluation.nets.mnn_models import SEED
from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.lower import RULES, lower
from mnnprep.formats.caffe.opencv import CaffeNet
from mnnprep.formats.caffe.pair import Pair, input_specs, load
from mnnprep.formats.caffe.steps import write_pair
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import RUN, MnnRunJob
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, InputSpecs
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker

pytest.importorskip("cv2")

# What MNN's Caffe frontend makes of a net, where that is not what OpenCV computes; by way of ONNX all of
# these are right.
DIRECT = {
    "scale-two": "crashed",
    "eltwise-sum": "no outputs",
    "normalize-all": "differs",
    "flatten": "shape",
    "interp-zoom": "shape",
    "prior-box": "shape",
    "detection-output": "shape",
    "detection-output-classes": "shape",
    "upsample": "differs",
    "reduction-mean": "differs",
    "log": "differs",
}
NO_REFERENCE = {
    "bias",
    "upsample",
    "reduction",
    "reduction-mean",
}  # layer types that OpenCV 4.14 can't create
DISPUTED = {
    "inner-product-transposed",
    "log-base",
}  # OpenCV ignores the parameter; MNN and our ONNX form agree with Caffe's formula
THIRD_ALONE = {"lrn-k"}  # OpenCV and MNN's Caffe frontend ignore k


class Case(NamedTuple):
    pair: Pair
    prototxt: Path
    inputs: Arrays
    directory: Path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(
        Worker("test", ("numpy", "_tools", "MNN", "MNN.nn", "MNN.expr")),
        scratch=tmp_path_factory.getbasetemp(),
    ) as host:
        yield host


def make(name: str, directory: Path) -> Case:
    prototxt = write(directory, NETS[name])
    pair = load(prototxt, prototxt.with_suffix(".caffemodel"))
    data = np.random.default_rng(1).standard_normal(NETS[name].shape).astype(np.float32)
    return Case(pair, prototxt, {"data": data}, directory)


def in_opencv(case: Case) -> Arrays:
    specs = input_specs(case.pair.net.inputs, InputSpecs())
    return CaffeNet(
        str(case.prototxt), str(case.prototxt.with_suffix(".caffemodel")), case.pair.net, specs
    ).run(case.inputs)


def lowered(case: Case) -> Path:
    target = case.directory / "onnx"
    target.mkdir(exist_ok=True)
    return lower(case.pair.net, case.pair.blobs, input_specs(case.pair.net.inputs, InputSpecs()), target)


def in_mnn(host: Host, case: Case, reference: Arrays, route: str) -> Arrays | str:
    """The outputs in MNN by *route*, or what went wrong."""
    directory = case.directory / f"mnn-{route}"
    directory.mkdir()
    first, second = (
        (str(lowered(case)), "") if route == "onnx" else map(str, write_pair(case.pair, directory))
    )
    frontend = {"onnx": "ONNX", "direct": "CAFFE"}[route]
    job = ConvertJob(
        model=first, extra_model=second, frontend=frontend, uuid_seed=SEED, directory=str(directory)
    )
    save_arrays(
        directory / "case.npz",
        {f"inputs/{n}": a for n, a in case.inputs.items()}
        | {f"outputs/{n}": a for n, a in reference.items()},
    )
    try:
        converted = host.run(CONVERT, job, timeout=60).value
        if not converted.ok:
            return converted.reason
        inputs = match_names(list(case.inputs), [t.name for t in converted.inputs], "input")
        outputs = match_names(list(reference), converted.outputs, "output")
        assert converted.file is not None
        run = MnnRunJob(
            model=converted.file.path,
            cases=[CaseFile(index=0, origin="test", dims={}, file=file_ref(directory / "case.npz"))],
            input_names=inputs.names,
            output_names=outputs.names,
            layouts={t.name: t.layout for t in converted.inputs},
            directory=str(directory),
        )
        ran = host.run(RUN, run, timeout=60).value
    except StepFailed as failure:
        return failure.reason
    return ran.errors["0"] if ran.errors else load_arrays(ran.outputs["0"].path)


def differences(reference: Arrays, actual: Arrays | str) -> str:
    """How *actual* differs, empty where it does not."""
    if isinstance(actual, str):
        return actual
    return "; ".join(e.problem for e in compare_outputs(0, reference, actual, Tolerance()) if e.problem)


def by_formula(name: str, x: np.ndarray, pair: Pair) -> Arrays:
    """What Caffe's own definition says, for the layers that OpenCV does not have or reads otherwise."""
    x64 = x.astype(np.float64)
    formulas = {
        "bias": lambda: {"bias": x64 + pair.blobs["bias"][0].reshape(1, 4, 1, 1)},
        "upsample": lambda: {"up": x64.repeat(2, 2).repeat(2, 3)},
        "reduction": lambda: {"sum": x64.sum((1, 2, 3))},
        "reduction-mean": lambda: {"mean": 2 * x64.mean((2, 3))},
        "inner-product-transposed": lambda: {
            "fc": x64.reshape(1, -1) @ pair.blobs["fc"][0].astype(np.float64)
        },
        "log-base": lambda: {"log": np.log10(1 + 2 * np.abs(x64))},
        "lrn-k": lambda: {"lrn": x64 / (2 + 0.5 / 3 * _neighbours(x64**2)) ** 0.75},
    }
    return {n: a.astype(np.float32) for n, a in formulas[name]().items()}


def _neighbours(squares: np.ndarray) -> np.ndarray:
    padded = np.pad(squares, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]


def test_every_rule_has_a_net() -> None:
    met = {
        line.partition('"')[2].rstrip('"')
        for net in NETS.values()
        for line in net.body.splitlines()
        if line.startswith("  type:")
    }
    assert set(RULES) - met <= {"ReLU6", "Clip", "ConvolutionDepthwise", "DepthwiseConvolution"}, (
        "of forks; the rest must be tested"
    )


@pytest.mark.parametrize("name", NETS)
def test_a_layer_is_the_same_in_opencv_onnxruntime_and_mnn(name: str, host: Host, tmp_path: Path) -> None:
    case = make(name, tmp_path)
    own = name in NO_REFERENCE | DISPUTED | THIRD_ALONE
    reference = by_formula(name, case.inputs["data"], case.pair) if own else in_opencv(case)
    third = OnnxNet(str(lowered(case))).run(case.inputs)
    assert differences(reference, third) == ""
    assert differences(reference, in_mnn(host, case, reference, "onnx")) == ""
    direct = differences(reference, in_mnn(host, case, reference, "direct"))
    wanted = "differs" if name in THIRD_ALONE else DIRECT.get(name, "")
    assert (wanted in direct) if wanted else not direct, direct


@pytest.mark.parametrize("name", sorted(NO_REFERENCE))
def test_opencv_names_the_layer_that_it_does_not_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="OpenCV can't load") as caught:
        in_opencv(make(name, tmp_path))
    assert "of type" in caught.value.seen


@pytest.mark.parametrize("name", sorted(DISPUTED | THIRD_ALONE))
def test_what_opencv_reads_otherwise_is_known(name: str, tmp_path: Path) -> None:
    """A later OpenCV that is right fails here, and the list above becomes shorter."""
    case = make(name, tmp_path)
    assert "beyond the tolerance" in differences(
        by_formula(name, case.inputs["data"], case.pair), in_opencv(case)
    )
