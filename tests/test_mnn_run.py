"""The step that runs a converted model: what goes in, what comes out, and what MNN says when nothing does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from evaluation.nets.mnn_models import (
    DATA,
    SEED,
    WEIGHT,
    Value,
    case,
    floats,
    matmul,
    node,
    pool_without_strides,
    save,
)
from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.mnn import run as module
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.mnn.run import ACCURATE_HINTS, RUN, MnnRunJob, MnnRunResult
from mnnprep.model.files import file_ref, load_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from support.converting import converted

NAMES = {"x": "x"}


def run_model(
    host: Host,
    model: str,
    cases: Sequence[CaseFile],
    directory: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Sequence[str] = ("y",),
    layouts: Mapping[str, str] | None = None,
    fresh: bool = False,
    session: bool = False,
) -> RunResult:
    job = MnnRunJob(
        model=model,
        cases=list(cases),
        input_names=dict(inputs or NAMES),
        output_names={n: n for n in outputs},
        layouts=dict(layouts or {}),
        directory=str(directory),
        fresh=fresh,
        session=session,
    )
    return host.run(RUN, job, timeout=60).value


@pytest.mark.parametrize(("fresh", "session"), [(False, False), (True, False), (False, True)])
def test_cases_of_several_shapes_are_right(host: Host, tmp_path: Path, fresh: bool, session: bool) -> None:
    model = converted(host, matmul(tmp_path / "m.onnx"))
    inputs = [
        np.random.default_rng(i).standard_normal((n, 4)).astype(np.float32)
        for i, n in enumerate((2, 5, 1, 5))
    ]
    ran = run_model(
        host,
        model,
        [case(tmp_path, i, {"x": x}) for i, x in enumerate(inputs)],
        tmp_path,
        fresh=fresh,
        session=session,
    )
    assert not ran.errors
    for i, x in enumerate(inputs):
        assert ran.outputs[str(i)].path == str(tmp_path / f"{i}.npz")
        np.testing.assert_allclose(
            load_arrays(ran.outputs[str(i)].path)["y"], x @ WEIGHT, rtol=1e-5, atol=1e-6
        )


OUTLIVE = """
import sys
import numpy as np
from mnnprep.mnn.run import MnnRunJob, Runner
job = MnnRunJob(model=sys.argv[1], cases=[], input_names={"x": "x"}, output_names={"y": "y"},
                layouts={}, directory=".")
runner = Runner(job)
kept = [runner.run({"x": np.full((300, 4), i, np.float32)})["y"] for i in range(1, 20)]
del runner
wrong = [i for i, array in enumerate(kept, 1) if not np.allclose(array, kept[0] * i, rtol=1e-5)]
sys.exit(f"the outputs of the runs {wrong} changed afterwards" if wrong or not kept[0].any() else 0)
"""


def test_the_numbers_outlive_the_variables_they_were_read_from(host: Host, tmp_path: Path) -> None:
    """``Var.read()`` gives a view of memory that dies with the Var; later runs write over it."""
    model = converted(host, matmul(tmp_path / "m.onnx"))
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", OUTLIVE, model], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_many_outputs_come_in_the_order_asked_for(host: Host, tmp_path: Path) -> None:
    names = [f"y{i}" for i in range(20)]
    nodes = [node("Mul", ["x", f"k{i}"], [name]) for i, name in enumerate(names)]
    weights = {f"k{i}": np.float32(i + 1) for i in range(20)}
    model = converted(
        host,
        save(tmp_path / "m.onnx", nodes, [floats("x", "n", 8)], [floats(n, "n", 8) for n in names], weights),
    )
    ran = run_model(
        host, model, [case(tmp_path, 0, {"x": np.full((3, 8), 2, np.float32)})], tmp_path, outputs=names[::-1]
    )
    results = load_arrays(ran.outputs["0"].path)
    assert list(results) == names[::-1]
    for k, name in enumerate(names):
        np.testing.assert_array_equal(results[name], np.full((3, 8), 2 * (k + 1), np.float32))


def test_scalars_keep_their_rank(host: Host, tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "s"], ["y"]), node("Mul", ["s", "s"], ["z"])]
    model = converted(
        host,
        save(tmp_path / "m.onnx", nodes, [floats("x", "n"), floats("s")], [floats("y", "n"), floats("z")]),
    )
    cases = [case(tmp_path, i, {"x": np.ones(3, np.float32), "s": np.float32(2 + i)}) for i in range(2)]
    ran = run_model(host, model, cases, tmp_path, inputs={"x": "x", "s": "s"}, outputs=["y", "z"])
    for i, s in enumerate((2, 3)):
        results = load_arrays(ran.outputs[str(i)].path)
        assert results["z"].shape == ()
        assert results["z"] == s * s
        np.testing.assert_array_equal(results["y"], np.full(3, 1 + s, np.float32))


ELEMENT_TYPES = {
    "int64": (TensorProto.INT64, "int32", "int32"),
    "int32": (TensorProto.INT32, "", ""),
    "bool": (TensorProto.BOOL, "int32", "int32"),
    "float64": (TensorProto.DOUBLE, "float32", "float32"),
    "float16": (TensorProto.FLOAT16, "float32", "float32"),
    "uint8": (TensorProto.UINT8, "", ""),
    "int8": (TensorProto.INT8, "", ""),
}


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_every_narrowing_is_recorded(host: Host, tmp_path: Path, dtype: str) -> None:
    code, fed, given = ELEMENT_TYPES[dtype]
    x: Value = "x", code, ("a", "b")
    y: Value = "y", code, ("b", "a")
    model = converted(
        host, save(tmp_path / "m.onnx", [node("Transpose", ["x"], ["y"], perm=[1, 0])], [x], [y])
    )
    array = np.array([[0, 1, 2], [3, 100, 5]]).astype(dtype)
    if dtype == "int8":
        array = -array
    ran = run_model(host, model, [case(tmp_path, 0, {"x": array}, {"y": array.T})], tmp_path)
    assert not ran.errors
    assert ran.narrowed_inputs == ({"x": fed} if fed else {})
    assert ran.narrowed == ({"y": given} if given else {})
    compared = compare_outputs(
        0, {"y": array.T}, load_arrays(ran.outputs["0"].path), Tolerance(), ran.narrowed
    )
    assert [c.problem for c in compared] == [""]


def test_a_value_that_int32_cannot_hold_is_an_error_of_its_case_only(host: Host, tmp_path: Path) -> None:
    x: Value = "x", TensorProto.INT64, ("n",)
    model = converted(
        host,
        save(
            tmp_path / "m.onnx", [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], [x], [floats("y", "n")]
        ),
    )
    ran = run_model(
        host, model, [case(tmp_path, 0, {"x": [1, 1 << 40]}), case(tmp_path, 1, {"x": [1, 2]})], tmp_path
    )
    assert ran.errors["0"].startswith("input 'x' holds 1 to 1099511627776; MNN computes in int32")
    assert list(ran.outputs) == ["1"]


def test_an_empty_tensor_has_its_shape(host: Host, tmp_path: Path) -> None:
    model = converted(
        host, save(tmp_path / "m.onnx", [node("Relu", ["x"], ["y"])], [floats("x", "n")], [floats("y", "n")])
    )
    ran = run_model(host, model, [case(tmp_path, 0, {"x": np.zeros(0, np.float32)})], tmp_path)
    assert not ran.errors
    assert load_arrays(ran.outputs["0"].path)["y"].shape == (0,)


def test_a_forward_that_fails_says_why_and_does_not_spoil_the_next(host: Host, tmp_path: Path) -> None:
    model = converted(host, matmul(tmp_path / "m.onnx"))
    x = np.ones((2, 4), np.float32)
    cases = [
        case(tmp_path, 0, {"x": np.ones((2, 5), np.float32)}),
        case(tmp_path, 1, {"x": x}),
        case(tmp_path, 2, {"z": x}),
    ]
    ran = run_model(host, model, cases, tmp_path)
    assert ran.errors["0"].startswith("MNN returned no outputs, but 1 were asked for\n")
    assert "Reshape error" in ran.errors["0"]
    assert ran.errors["2"] == "the case has no input 'x'"
    np.testing.assert_allclose(load_arrays(ran.outputs["1"].path)["y"], x @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"), [("input", "[ x ] is input but not found"), ("output", "Can't find output q")]
)
def test_a_name_the_model_does_not_have_is_told(host: Host, tmp_path: Path, wrong: str, said: str) -> None:
    model = converted(host, matmul(tmp_path / "m.onnx"))
    cases = [case(tmp_path, 0, {"x": np.ones((2, 4), np.float32)})]
    ran = run_model(
        host,
        model,
        cases,
        tmp_path,
        inputs={"x": "q"} if wrong == "input" else None,
        outputs=["q"] if wrong == "output" else ["y"],
    )
    assert ran.errors["0"].startswith("MNN could not load the model")
    assert said in ran.errors["0"]


def test_what_is_no_mnn_model_is_told(host: Host, tmp_path: Path) -> None:
    ran = run_model(
        host,
        str(matmul(tmp_path / "m.onnx")),
        [case(tmp_path, 0, {"x": np.ones((2, 4), np.float32)})],
        tmp_path,
    )
    assert ran.errors["0"].startswith("MNN could not load the model")


def test_a_model_without_its_file_of_weights_is_an_error(host: Host, tmp_path: Path) -> None:
    """MNN writes such a file for models over 2 GB (here: on demand); without it, it computes other numbers
    and returns them.
    """
    body = "sys.argv.append('--saveExternalData'); import _tools; _tools.mnnconvert(sys.argv)"
    converter = tmp_path / "MNNConvert"
    converter.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    converter.chmod(0o755)
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    net = save(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "n", 64)],
        [floats("y", "n", 64)],
        {"w": weight},
    )
    job = ConvertJob(
        model=str(net), frontend="ONNX", uuid_seed=SEED, directory=str(tmp_path), converter=str(converter)
    )
    done = host.run(CONVERT, job, timeout=60).value
    assert done.weights is not None, done
    assert done.weights.path == str(tmp_path / "model.mnn.weight")
    x = np.ones((2, 64), np.float32)
    ran = run_model(host, str(tmp_path / "model.mnn"), [case(tmp_path, 0, {"x": x})], tmp_path)
    np.testing.assert_allclose(load_arrays(ran.outputs["0"].path)["y"], x @ weight, rtol=1e-4, atol=1e-4)
    (tmp_path / "model.mnn.weight").unlink()
    lost = run_model(host, str(tmp_path / "model.mnn"), [case(tmp_path, 0, {"x": x})], tmp_path)
    assert not lost.outputs
    assert lost.errors["0"].startswith("MNN ran without the file of weights")


def test_a_crash_of_the_runtime_is_told_with_its_signal(host: Host, tmp_path: Path) -> None:
    model = converted(host, pool_without_strides(tmp_path / "m.onnx"))
    with pytest.raises(StepFailed) as caught:
        run_model(host, model, [case(tmp_path, 7, {"x": np.ones((1, 1, 4, 4), np.float32)})], tmp_path)
    assert caught.value.fate == "crash"
    assert caught.value.reason == "crashed with SIGFPE while running case 7 in MNN"


@pytest.mark.parametrize("layout", ["NCHW", "NC4HW4"])
def test_a_packed_input_stands_in_the_case_as_nchw(host: Host, tmp_path: Path, layout: str) -> None:
    """An ONNX net packs its input itself, so both layouts must give the same."""
    weight = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])]
    model = converted(
        host,
        save(
            tmp_path / "m.onnx",
            nodes,
            [floats("x", "n", 3, 5, 5)],
            [floats("y", "n", 5, 3, 3)],
            {"w": weight},
        ),
    )
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    expected = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weight), 0)
    ran = run_model(host, model, [case(tmp_path, 0, {"x": x})], tmp_path, layouts={"x": layout})
    assert not ran.errors
    np.testing.assert_allclose(load_arrays(ran.outputs["0"].path)["y"], expected, rtol=1e-4, atol=1e-4)


TORCH_OUTPUTS = {
    "conv-trace": "42",
    "conv-script": "65",
    "conv1d-trace": "7",
    "attention-trace": "20",
    "attention-script": "20",
    "if-script": "7",
}
RIGHT = {"conv-trace", "conv-script", "conv1d-trace"}


@pytest.mark.parametrize("name", TORCH_OUTPUTS)
def test_what_the_torch_frontend_wrote(host: Host, tmp_path: Path, name: str) -> None:
    """Models that a converter with the Torch frontend wrote and called a success: three of six return
    nothing.
    """
    arrays = load_arrays(DATA / f"{name}.npz")
    cases = [CaseFile(index=0, origin="recorded", dims={}, file=file_ref(DATA / f"{name}.npz"))]
    outputs: dict[str, Any] = {"y": TORCH_OUTPUTS[name]}
    job = MnnRunJob(
        model=str(DATA / f"{name}.mnn"),
        cases=cases,
        input_names={"x": "x.1"},
        output_names=outputs,
        layouts={},
        directory=str(tmp_path),
    )
    ran = host.run(RUN, job, timeout=60).value
    if name in RIGHT:
        assert not ran.errors
        compared = compare_outputs(
            0, {"y": arrays["outputs/y"]}, load_arrays(ran.outputs["0"].path), Tolerance()
        )
        assert [c.problem for c in compared] == [""]
    else:
        assert ran.errors["0"].startswith("MNN returned no outputs, but 1 were asked for")


def winograd(path: Path) -> Path:
    """Two 3 x 3 convolutions, for which MNN takes Winograd's algorithm with large tiles."""
    rng = np.random.default_rng(0)
    weights = {n: (rng.standard_normal((64, 64, 3, 3)) / 24).astype(np.float32) for n in ("w", "v")}
    nodes = [
        node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        node("Conv", ["h", "v"], ["y"], pads=[1, 1, 1, 1]),
    ]
    shape = [1, 64, 48, 48]
    return save(path, nodes, [floats("x", *shape)], [floats("y", *shape)], weights)


def test_numbers_that_only_lack_precision_are_computed_with_the_accurate_settings(
    host: Host, tmp_path: Path
) -> None:
    model = winograd(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((1, 64, 48, 48)).astype(np.float32)
    want = ReferenceEvaluator(str(model)).run(None, {"x": x})[0]
    cases = [case(tmp_path, 0, {"x": x}, {"y": want})]
    job = MnnRunJob(
        model=converted(host, model),
        cases=cases,
        input_names=NAMES,
        output_names={"y": "y"},
        layouts={},
        directory=str(tmp_path),
    )

    def run(job: MnnRunJob) -> tuple[MnnRunResult, float]:
        ran = host.run(RUN, job, timeout=60).value
        return ran, float(np.abs(load_arrays(ran.outputs["0"].path)["y"] - want).max() / np.abs(want).max())

    (_, rough), (_, accurate) = (
        run(msgspec.structs.replace(job, hints=hints)) for hints in ({}, ACCURATE_HINTS)
    )
    assert accurate < rough / 3

    def within(absolute: float) -> tuple[MnnRunResult, float]:
        return run(
            msgspec.structs.replace(job, within=Tolerance(absolute=absolute, relative=0.0, ceiling=1.0))
        )

    kept, error = within(2 * rough)
    assert (kept.hints, kept.default_excess, error) == ({}, None, rough)
    mended, error = within(2 * accurate)
    assert mended.hints == ACCURATE_HINTS
    assert error == accurate
    assert mended.default_excess == pytest.approx(rough / (2 * accurate), rel=1e-6)
    hopeless, error = within(accurate / 2)
    assert (hopeless.hints, hopeless.default_excess, error) == ({}, None, rough)


def test_settings_that_change_nothing_are_not_tried_twice(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    model = save(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", 2, 3)],
        [floats("y", 2, 4)],
        weights,
    )
    rng = np.random.default_rng(1)
    cases = [
        case(tmp_path, i, {"x": rng.standard_normal((2, 3)).astype("f4")}, {"y": np.full((2, 4), 0.01, "f4")})
        for i in range(2)
    ]
    within = Tolerance(absolute=0.1, relative=0.0, ceiling=1.0)
    job = MnnRunJob(
        model=converted(host, model),
        cases=cases,
        input_names=NAMES,
        output_names={"y": "y"},
        layouts={},
        directory=str(tmp_path),
        within=within,
    )
    monkeypatch.setattr(module, "ROUGH", 1e9)
    loads: list[dict[str, int]] = []
    load = module.Runner._load
    monkeypatch.setattr(module.Runner, "_load", lambda self: (loads.append(self._hints), load(self))[1])
    ran = module.run(job)
    assert loads == [{}, ACCURATE_HINTS]
    assert (ran.hints, ran.default_excess, sorted(ran.outputs)) == ({}, None, ["0", "1"])
    loads.clear()
    other = [
        *cases[:1],
        msgspec.structs.replace(cases[1], dims={"n": 3}),
    ]  # another size might be computed otherwise
    assert module.run(msgspec.structs.replace(job, cases=other)).hints == {}
    assert loads == [{}, ACCURATE_HINTS, {}]


def test_a_session_keeps_integers_and_layouts(host: Host, tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"]), node("Add", ["i", "i"], ["j"])]
    weights = {"w": np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)}
    values = [floats("x", 1, 3, "h", 8), ("i", TensorProto.INT32, ("n",))]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        values,
        [floats("y", 1, 5, "k", 6), ("j", TensorProto.INT32, ("n",))],
        weights,
    )
    arrays = {
        "x": np.random.default_rng(1).standard_normal((1, 3, 9, 8)).astype(np.float32),
        "i": np.arange(7, dtype=np.int32),
    }
    want = dict(zip(("y", "j"), ReferenceEvaluator(str(model)).run(["y", "j"], arrays), strict=True))
    ran = run_model(
        host,
        converted(host, model),
        [case(tmp_path, 0, arrays)],
        tmp_path,
        inputs={"x": "x", "i": "i"},
        outputs=("y", "j"),
        session=True,
    )
    assert not [
        e for e in compare_outputs(0, want, load_arrays(ran.outputs["0"].path), Tolerance()) if e.problem
    ]
