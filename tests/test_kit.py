"""A bundle's kit, and its two programs: they compute what the step here computes, of every dtype and
layout.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import mnnprep
from evaluation.nets.mnn_models import Value, case, floats, matmul, node, save
from mnnprep.bundle.manifest import read_manifest
from mnnprep.errors import RefusedError
from mnnprep.mnn.run import RUN, MnnRunJob
from mnnprep.model.files import load_arrays, sha256
from mnnprep.model.messages import CaseFile
from mnnprep.targets.kit import write_kit
from mnnprep.targets.outputs import read_outputs
from mnnprep.workers.host import Host
from support.command import call, tree
from support.converting import converted
from support.device_programs import HEADERS, SOURCES, compiler, library_flags, run_kit

LANGUAGES = ("python", "c++")


def job_of(
    model: str,
    cases: Sequence[CaseFile],
    directory: Path,
    *,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    layouts: Mapping[str, str] | None = None,
) -> MnnRunJob:
    directory.mkdir(exist_ok=True)
    return MnnRunJob(
        model=model,
        cases=list(cases),
        input_names={n: n for n in inputs},
        output_names={n: n for n in outputs},
        layouts=dict(layouts or {}),
        directory=str(directory),
    )


def kit_of(job: MnnRunJob, directory: Path) -> Path:
    directory.mkdir()
    write_kit(directory, job, "0" * 64)
    return directory


def require_same(language: str, host: Host, job: MnnRunJob, directory: Path) -> None:
    """Require that the kit's program gives what the step here gives, bit by bit."""
    kit = kit_of(job, directory / "kit")
    done = run_kit(language, kit, directory / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = read_outputs(directory / "out", job)
    here = host.run(RUN, job, timeout=60).value
    assert not here.errors
    assert runs.shared.narrowed == here.narrowed
    for ran in (runs.shared, runs.fresh):
        assert not ran.errors
        for case_file in job.cases:
            expected = load_arrays(here.outputs[str(case_file.index)].path)
            arrays = load_arrays(ran.outputs[str(case_file.index)].path)
            assert list(arrays) == list(expected)
            for name, array in expected.items():
                assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
                assert arrays[name].tobytes() == np.asarray(array, order="C").tobytes()


@pytest.mark.parametrize("language", LANGUAGES)
def test_cases_of_several_shapes(language: str, host: Host, tmp_path: Path) -> None:
    model = converted(host, matmul(tmp_path / "m.onnx"))
    random = np.random.default_rng(0)
    cases = [
        case(tmp_path, i, {"x": random.standard_normal((n, 4)).astype(np.float32)})
        for i, n in enumerate((2, 5, 1))
    ]
    require_same(language, host, job_of(model, cases, tmp_path / "run"), tmp_path)


ELEMENT_TYPES = {
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_dtype(language: str, dtype: str, host: Host, tmp_path: Path) -> None:
    x: Value = "x", ELEMENT_TYPES[dtype], ("a", "b")
    y: Value = "y", ELEMENT_TYPES[dtype], ("b", "a")
    model = converted(
        host, save(tmp_path / "m.onnx", [node("Transpose", ["x"], ["y"], perm=[1, 0])], [x], [y])
    )
    array = np.array([[0, 1, 2], [3, 100, 5]]).astype(dtype)
    array = -array if dtype == "int8" else array
    cases = [case(tmp_path, 0, {"x": array}, {"y": array.T})]
    require_same(language, host, job_of(model, cases, tmp_path / "run"), tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_scalars_and_tensors_without_elements(language: str, host: Host, tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "s"], ["y"]), node("Mul", ["s", "s"], ["z"])]
    model = converted(
        host,
        save(tmp_path / "m.onnx", nodes, [floats("x", "n"), floats("s")], [floats("y", "n"), floats("z")]),
    )
    cases = [
        case(tmp_path, i, {"x": np.ones(n, np.float32), "s": np.float32(2 + i)}) for i, n in enumerate((3, 0))
    ]
    job = job_of(model, cases, tmp_path / "run", inputs=("x", "s"), outputs=("y", "z"))
    require_same(language, host, job, tmp_path)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC4HW4"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_layout(language: str, layout: str, host: Host, tmp_path: Path) -> None:
    """A net that is fed as each layout says; what it means there, MNN alone decides, here and there alike."""
    model = converted(
        host,
        save(
            tmp_path / "m.onnx",
            [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])],
            [floats("x", "n", 3, "h", "w_")],
            [floats("y", "n", 5, "h", "w_")],
            {"w": np.random.default_rng(1).standard_normal((5, 3, 1, 1)).astype(np.float32)},
        ),
    )
    x = np.random.default_rng(2).standard_normal((2, 3, 4, 6)).astype(np.float32)
    array = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "NHWC" else x
    cases = [case(tmp_path, 0, {"x": array})]
    require_same(language, host, job_of(model, cases, tmp_path / "run", layouts={"x": layout}), tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_that_a_line_cannot_hold(language: str, host: Host, tmp_path: Path) -> None:
    name = "a b%/x:0 \té%41"
    model = converted(
        host, save(tmp_path / "m.onnx", [node("Tanh", [name], ["y"])], [floats(name, 2)], [floats("y", 2)])
    )
    cases = [case(tmp_path, 0, {name: np.array([0.5, -1], np.float32)})]
    require_same(language, host, job_of(model, cases, tmp_path / "run", inputs=(name,)), tmp_path)


# Breaking a kit: what is done to it, the exit code, the line.
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


BROKEN = {
    "no kit": (lambda kit: shutil.rmtree(kit), 3, "kit.txt can't be read; give the directory that"),
    "another format": (lambda kit: (kit / "kit.txt").write_text("mnnprep-kit 2\n"), 3, "mnnprep-kit 2"),
    "half a description": (
        lambda kit: (kit / "kit.txt").write_text((kit / "kit.txt").read_text().replace("end\n", "")),
        3,
        "is not whole; copy the kit again",
    ),
    "an unknown fact": (
        lambda kit: (kit / "kit.txt").write_text((kit / "kit.txt").read_text() + "more 1\n"),
        3,
        "says 'more', which this program does not know",
    ),
    "half a model": (lambda kit: truncate(kit / "model.mnn"), 3, "bytes, and the kit's had"),
    "no model": (lambda kit: (kit / "model.mnn").unlink(), 3, "model.mnn can't be read"),
    "half an input": (lambda kit: truncate(kit / "cases/1/0.npy"), 1, "case 1: failed: "),
    "no input": (lambda kit: (kit / "cases/0/0.npy").unlink(), 1, "case 0: failed: "),
}


@pytest.fixture
def small_kit(host: Host, tmp_path: Path) -> Path:
    model = converted(host, matmul(tmp_path / "m.onnx"))
    cases = [case(tmp_path, i, {"x": np.ones((2, 4), np.float32)}) for i in range(2)]
    return kit_of(job_of(model, cases, tmp_path / "run"), tmp_path / "kit")


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_broken_kit_is_told_in_a_line(language: str, fault: str, small_kit: Path, tmp_path: Path) -> None:
    if language == "python" and fault == "no kit":
        pytest.skip("the program is in the kit")
    damage, code, words = BROKEN[fault]
    damage(small_kit)
    done = run_kit(language, small_kit, tmp_path / "out")
    assert done.returncode == code, done.stdout + done.stderr
    told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("mnnprep-run: ")]
    assert any(words in line for line in told)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out").exists() == (code == 1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_failed_case_does_not_end_the_others(language: str, small_kit: Path, tmp_path: Path) -> None:
    (small_kit / "cases/0/0.npy").write_bytes(b"no array")
    done = run_kit(language, small_kit, tmp_path / "out")
    assert done.returncode == 1
    assert "2 of 4 runs done" in done.stdout
    assert sorted(p.name for p in (tmp_path / "out/shared/0").iterdir()) == ["error.txt"]
    assert sorted(p.name for p in (tmp_path / "out/shared/1").iterdir()) == ["0.npy"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_outputs_are_never_written_over(language: str, small_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = run_kit(language, small_kit, tmp_path / "out")
    assert done.returncode == 3
    assert "out can't be made: File exists" in done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("option", ["--precision=x", "--precision", "--threads", "--nonsense", "second"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_call_is_told(language: str, option: str, small_kit: Path, tmp_path: Path) -> None:
    values = ["0"] if option == "--threads" else []
    done = run_kit(language, small_kit, tmp_path / "out", option, *values)
    assert done.returncode == 2
    assert "usage: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_backend_that_is_not_there_is_no_run_on_the_cpu(small_kit: Path, tmp_path: Path) -> None:
    done = run_kit("c++", small_kit, tmp_path / "out", "--backend", "opencl")
    assert done.returncode == 3
    assert "MNN has no backend opencl on this device: it would use backend 0 instead" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_settings_are_recorded(language: str, small_kit: Path, tmp_path: Path) -> None:
    options = ("--precision", "low", "--memory", "low", "--threads", "2")
    assert run_kit(language, small_kit, tmp_path / "out", *options).returncode == 0
    record = (tmp_path / "out/run.txt").read_text().splitlines()
    assert record[0] == "mnnprep-run 1"
    assert {"backend cpu", "precision low", "memory low", "threads 2", "end"} <= set(record)


def test_the_program_builds_with_cmake(tmp_path: Path, small_kit: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    flags, library = library_flags()
    root = tmp_path / "MNN"  # as a build of MNN has it
    (root / "build").mkdir(parents=True)
    (root / "include").symlink_to(HEADERS)
    (root / "build/libMNN.so").symlink_to(library)
    (root / "build/mnn.libs").symlink_to(library.parent / "mnn.libs")
    configured = subprocess.run(
        [
            *("cmake", "-S", str(SOURCES / "program"), "-B", str(tmp_path / "build")),
            f"-DCMAKE_CXX_COMPILER={compiler()}",
            f"-DMNN_ROOT={root}",
            "-DCMAKE_CXX_FLAGS=-D_GLIBCXX_USE_CXX11_ABI=0",
            f"-DCMAKE_EXE_LINKER_FLAGS={' '.join(flags[1:])}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(
        ["cmake", "--build", str(tmp_path / "build")], capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stdout + built.stderr
    done = subprocess.run(
        [str(tmp_path / "build/mnnprep-run"), str(small_kit), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_cmake_says_what_it_did_not_find(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    compiler()
    done = subprocess.run(
        ["cmake", "-S", str(SOURCES / "program"), "-B", str(tmp_path / "build"), f"-DMNN_ROOT={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "MNN was not found" in done.stderr
    assert "-DMNN_ROOT=" in done.stderr


def test_the_same_bundle_gives_the_same_kit(bundle: Path, tmp_path: Path) -> None:
    written = mnnprep.kit(bundle, tmp_path / "one")
    assert call("kit", bundle, "-o", tmp_path / "two").code == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    manifest = read_manifest(bundle)
    assert written.cases == len(manifest.cases)
    assert {name for name in tree(tmp_path / "one") if not name.endswith("/")} == set(written.files)
    assert sha256(tmp_path / "one/model.mnn") == manifest.mnn.sha256  # type: ignore[union-attr]
    assert (tmp_path / "one/mnn-test/0/input.json").read_bytes() == (
        bundle / "mnn-test/input.json"
    ).read_bytes()
    assert str(tmp_path) not in "".join(
        (tmp_path / "one" / name).read_text() for name in ("kit.txt", "README.md")
    )


def test_the_weights_beside_a_model_go_along(host: Host, tmp_path: Path) -> None:
    model = Path(converted(host, matmul(tmp_path / "m.onnx")))
    Path(f"{model}.weight").write_bytes(b"weights")
    job = job_of(str(model), [case(tmp_path, 0, {"x": np.ones((1, 4), np.float32)})], tmp_path / "run")
    kit = kit_of(job, tmp_path / "kit")
    assert (kit / "model.mnn.weight").read_bytes() == b"weights"
    (kit / "model.mnn.weight").unlink()
    done = run_kit("python", kit, tmp_path / "out")
    assert done.returncode == 3
    assert "model.mnn.weight can't be read" in done.stderr


def test_something_at_the_target_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/mine").write_text("mine")
    result = call("kit", bundle, "-o", tmp_path / "kit")
    assert result.code == 2
    assert "the target of -o exists" in result.err
    assert tree(tmp_path / "kit") == {"mine": b"mine"}


def test_a_changed_bundle_gets_no_kit(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy/model.mnn").write_bytes(b"another model")
    result = call("kit", tmp_path / "copy", "-o", tmp_path / "kit")
    assert result.code == 3
    assert "model.mnn has other bytes than the manifest says" in result.err
    assert not (tmp_path / "kit").exists()


def test_an_input_that_mnn_cannot_hold_is_refused(host: Host, tmp_path: Path) -> None:
    job = job_of(
        converted(host, matmul(tmp_path / "m.onnx")), [case(tmp_path, 0, {"x": [1 << 40]})], tmp_path / "run"
    )
    with pytest.raises(RefusedError, match="case 0 can't be fed to MNN"):
        kit_of(job, tmp_path / "kit")


def test_the_python_program_asks_for_mnn(small_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "MNN.py").write_text("raise ImportError('no such library')")
    code = (
        "import sys, runpy; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:];"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, str(tmp_path), str(small_kit / "mnnprep_run.py"), str(small_kit)),
            *("-o", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert "install it with `pip install MNN`" in done.stderr
