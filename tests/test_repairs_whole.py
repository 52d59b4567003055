"""Repairs on whole models: none changes what a model computes, and none touches a file that needs nothing.

The models: trained ones, the classic nets that ship inside onnx (their weights there are one number
throughout, so that they are drawn anew), and, slow, the nets of the zoo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from evaluation.nets.real_models import fetch
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.commands.check import supported_operators
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.onnx.net import OnnxNet
from mnnprep.model.running import case_inputs, case_outputs
from mnnprep.repair.steps import RepairJob, repair
from mnnprep.repair.table import all_rules
from support.command import call, checks_of, prepared

zoo = pytest.importorskip("evaluation.nets.zoo_models")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
REFUSED = {"layoutlm"}  # its boxes are positions, which only samples can tell
NOT_RIGHT = {"funnel"}  # traced at one length, and refused at others by onnxruntime
TRAINED = {
    "mtcnn-pnet.onnx": [],
    "mtcnn-rnet.onnx": ["--dim", "N=1:3"],
    "mtcnn-onet.onnx": ["--dim", "N=1:3"],
    "basic-pitch.onnx": ["--dim", "serving_default_input_2:0_0=1:2"],
}
SATURATED = ("light_resnet50", "light_shufflenet", "light_inception_v2")
ROUNDING = 1e-3  # of the largest value: the least tolerance of a comparison has five times less, for one case


def hold(bundle: Path, manifest: Manifest, scratch: Path) -> list[str]:
    """Apply every rule to the bundle's artifact, which was made without; the rules that changed it, having
    changed no output of any case.
    """
    scratch.mkdir()
    model = bundle / manifest.artifact.files[0].path
    job = RepairJob(
        model=str(model),
        directory=str(scratch),
        rules=all_rules(),
        supported=sorted(supported_operators()["ONNX"]),
    )
    done = repair(job)
    assert bool(done.files) == bool(done.fired)
    if done.files:
        net = OnnxNet(done.files[0].path)
        for case in manifest.cases:
            found = net.run(case_inputs(str(bundle / case.path)))
            for name, array in case_outputs(str(bundle / case.path)).items():
                largest = np.abs(array[np.isfinite(array)]).max(initial=0) if array.dtype.kind == "f" else 0
                np.testing.assert_allclose(
                    found[name],
                    array,
                    rtol=0,
                    atol=ROUNDING * largest,
                    err_msg=f"{name} by {[f.rule for f in done.fired]}",
                )
    return [fired.rule for fired in done.fired]


@pytest.mark.real
@pytest.mark.parametrize("name", TRAINED)
def test_trained_models(tmp_path: Path, name: str) -> None:
    manifest = prepared(fetch(name), tmp_path / "out", *TRAINED[name], "--no-repair")
    hold(tmp_path / "out", manifest, tmp_path / "repaired")


def drawn(path: Path, target: Path) -> Path:
    """The net at *path* with the weights that ConstantOfShape fills drawn at random, each by the number of
    values that go into one.
    """
    model, rng = onnx.load(path), np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            nodes.append(node)
            continue
        shape = tuple(shapes[node.input[0]].tolist())
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        weight = (
            rng.standard_normal(shape) * spread if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
        )  # of a batch norm: variances too
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.ir_version = max(model.ir_version, 4)  # before, an initializer had to be an input as well
    onnx.save(model, target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in LIGHT.glob("*.onnx")))
def test_classic_nets(tmp_path: Path, name: str) -> None:
    """With weights that mean something MNN computes them right (three saturate their softmax, which proves
    little); as they ship all their outputs are one number, and nothing is proven.
    """
    manifest = prepared(drawn(LIGHT / f"{name}.onnx", tmp_path / "net.onnx"), tmp_path / "out", "--no-repair")
    hold(tmp_path / "out", manifest, tmp_path / "repaired")
    again = prepared(tmp_path / "net.onnx", tmp_path / "again")
    assert [c.status for name in ("artifact_compare", "mnn_compare") for c in checks_of(again, name)] == [
        Status.PASSED
    ] * 2
    assert again.verdict is (Verdict.UNPROVEN if name in SATURATED else Verdict.PROVEN)
    assert call("prepare", LIGHT / f"{name}.onnx", "-o", tmp_path / "as-shipped").code != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in zoo.ZOO])
def test_the_zoo(tmp_path: Path, name: str) -> None:
    """An export that computes what the source does still does so with every repair that finds something in
    it.
    """
    entry = next(e for e in zoo.ZOO if e.name == name)
    options = [
        part
        for kind in ("inputs", "dims", "ranges")
        for text in getattr(entry, kind)
        for part in (f"--{kind[:-1]}", text)
    ]
    result = call(
        "prepare", f"{zoo.__file__}:{name}", "-o", tmp_path / "out", "--no-repair", "--to", "onnx", *options
    )
    assert (tmp_path / "out" / "manifest.json").is_file() == (name not in REFUSED), result.err
    if name in REFUSED:
        return
    manifest = read_manifest(tmp_path / "out")
    right = [c.status for c in checks_of(manifest, "artifact_compare")] == [Status.PASSED]
    assert right == (name not in NOT_RIGHT), manifest.artifact.attempts[-1].reason
    if not right:
        return
    hold(tmp_path / "out", manifest, tmp_path / "repaired")
