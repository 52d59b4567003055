"""The source's own rounding is measured case by case: a synthesized case that is lost in it is set aside,
a real one is not, and noise is no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from evaluation.nets.real_models import fetch
from mnnprep.attempt.noise import learn_noise
from mnnprep.commands.prepare import prepare
from mnnprep.commands.verify import verify
from mnnprep.comparison.dimensions import dimension_checks
from mnnprep.comparison.outputs import compare_run, set_aside
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.model.files import Arrays, canonical_json, file_ref, save_arrays
from mnnprep.model.messages import CaseFile, InputSpecs, Replayed, ReplayJob, RunResult, Source, Survey, Sweep
from mnnprep.model.net import Case, Refused
from mnnprep.model.request import Request, make_wants
from mnnprep.model.signature import Dim, Signature, TensorSpec, parse_input
from mnnprep.reference.checks import Surveyed
from mnnprep.reference.inputs import fitted
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey

REAL = "samples a.npz"


class Net:
    """A net that computes *function*, and how often it ran."""

    def __init__(self, inputs: str, function: Callable[..., Any]) -> None:
        self.inputs = tuple(parse_input(text) for text in inputs.split(";"))
        self.example: Arrays = {}
        self.dims: tuple[Dim, ...] = ()
        self.function = function
        self.runs = 0

    def run(self, inputs: Arrays) -> Arrays:
        self.runs += 1
        return {"y": np.asarray(self.function(**inputs), "f4")}

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        return None

    def bounds(self, inputs: Arrays) -> dict[str, tuple[float, float]]:
        return {}

    def insensitive(self) -> dict[str, str]:
        return {}


def check(found: Surveyed, name: str) -> Check | None:
    return next((c for c in found.checks if c.check == name), None)


def detector(x: Any) -> Any:
    """Large where much is bright, as in real inputs; else a tiny chaos of the input's last bits."""
    bright = (x >= 40).mean(axis=(1, 2), keepdims=True) > 0.2
    return np.where(bright, x, 1e-6 * np.sin(x.astype("f8") * 1e9))


def write_samples(directory: Path, *sizes: tuple[int, int]) -> str:
    directory.mkdir()
    for number, size in enumerate(sizes):
        x = np.random.default_rng(number).random((1, *size), np.float32)
        x[0, : size[0] // 2] += 40
        np.savez(directory / f"{number}.npz", x=x)
    return str(directory)


def test_a_quiet_net_is_run_once_more_for_its_noise() -> None:
    net = Net("x=float32[n,3]", lambda x: x * 2)
    found = survey(net, InputSpecs())
    measured = [n is not None for n in found.noise["y"]]
    assert measured == [True] + [False] * (len(found.cases) - 1)


def test_cases_that_are_lost_are_replaced_by_real_inputs_of_their_sizes(tmp_path: Path) -> None:
    wants = make_wants(samples=write_samples(tmp_path / "real", (8, 6), (12, 9), (6, 12)))
    found = survey(Net("x=float32[batch,h,w]", detector), wants)
    assert check(found, "noise") is None
    assert check(found, "vacuity").status is Status.PASSED
    assert len({c.dims["h"] for c in found.cases}) > 3
    assert any(c.origin == "1.npz at other sizes" for c in found.cases)
    assert max(10 * n for n in found.noise["y"] if n is not None) < 0.1


def test_a_synthesized_case_that_is_lost_is_set_aside_by_name(tmp_path: Path) -> None:
    wants = make_wants(samples=write_samples(tmp_path / "real", (4, 4), (4, 4), (4, 4)))
    found = survey(Net("x=float32[1,4,4]", detector), wants)
    noise = check(found, "noise")
    assert noise is not None
    assert noise.status is Status.PASSED
    assert len(noise.numbers["set_aside"]) == len(found.cases) - 3
    assert noise.numbers["set_aside"][0].startswith("case 3 (seed 0): noise of ")
    canonical_json(noise)


@pytest.mark.parametrize("samples", [0, 2])
def test_too_few_cases_that_are_not_lost_fail_the_noise_check(tmp_path: Path, samples: int) -> None:
    wants = (
        make_wants(samples=write_samples(tmp_path / "real", *[(4, 4)] * samples)) if samples else InputSpecs()
    )
    noise = check(survey(Net("x=float32[1,4,4]", detector), wants), "noise")
    assert noise is not None
    assert noise.status is Status.FAILED
    assert "--samples" in noise.reason


def test_a_real_input_that_is_lost_fails_the_noise_check(tmp_path: Path) -> None:
    path = Path(write_samples(tmp_path / "real", *[(4, 4)] * 4))
    np.savez(path / "blank.npz", x=np.full((1, 4, 4), 0.5, "f4"))
    noise = check(survey(Net("x=float32[1,4,4]", detector), make_wants(samples=str(path))), "noise")
    assert noise is not None
    assert noise.status is Status.FAILED
    assert "samples blank.npz" in noise.reason


def test_real_inputs_are_repeated_or_cut_along_their_dynamic_axes_alone() -> None:
    specs = (parse_input("x=float32[n,2,w]"), parse_input("mask=int64[n,w]"))
    arrays: Arrays = {"x": np.arange(6, dtype="f4").reshape(1, 2, 3), "mask": np.array([[1, 1, 0]])}
    made = fitted(arrays, specs, {"n": 2, "w": 5}, shift=1)
    assert made["x"].tolist() == [[[1, 2, 0, 1, 2], [4, 5, 3, 4, 5]]] * 2
    assert made["mask"].tolist() == [[1, 1, 0, 1, 1]] * 2  # a mask still begins with ones
    assert fitted(arrays, specs, {"n": 1, "w": 2}, shift=0)["x"].tolist() == [[[0, 1], [3, 4]]]


SIZES = (2, 3, 4, 5, 6)


@pytest.fixture
def cases(tmp_path: Path) -> list[CaseFile]:
    found = []
    for index, size in enumerate(SIZES):
        path = tmp_path / f"case-{index}.npz"
        save_arrays(
            path,
            {
                "inputs/x": np.ones(size, "f4"),
                "outputs/y": np.arange(size, dtype="f4"),
                "outputs/k": np.arange(size),
            },
        )
        found.append(
            CaseFile(
                index=index,
                origin=REAL if index == 0 else f"seed {index}",
                dims={"n": size},
                file=file_ref(path),
            )
        )
    return found


def ran(cases: list[CaseFile], directory: Path, change: Callable[[int, Arrays], Arrays]) -> RunResult:
    found = RunResult()
    directory.mkdir(exist_ok=True)
    for case in cases:
        size = case.dims["n"]
        path = directory / f"{case.index}.npz"
        save_arrays(path, change(case.index, {"y": np.arange(size, dtype="f4"), "k": np.arange(size)}))
        found.outputs[str(case.index)] = file_ref(path)
    return found


def off(at: int, by: float, name: str = "y") -> Callable[[int, Arrays], Arrays]:
    return lambda index, arrays: (
        arrays | {name: (arrays[name] + by).astype(arrays[name].dtype)} if index == at else arrays
    )


def noise(*lost: int, count: int = len(SIZES)) -> dict[str, Any]:
    return {"y": [0.3 if i in lost else 1e-7 for i in range(count)]}


def test_what_is_lost_never_decides_and_is_named(cases: list[CaseFile], tmp_path: Path) -> None:
    tolerance = Tolerance(noise=noise(3))
    right = compare_run(catalog.MNN_COMPARE, cases, ran(cases, tmp_path / "run", off(3, 50)), tolerance, {})
    assert right.status is Status.PASSED
    assert right.numbers["set_aside"] == ["case 3 (seed 3): noise of 0.075 of the largest value in y"]
    assert {e.case for e in right.outputs} == {0, 1, 2, 4}
    wrong = compare_run(catalog.MNN_COMPARE, cases, ran(cases, tmp_path / "run", off(2, 50)), tolerance, {})
    assert wrong.status is Status.FAILED
    shapes = compare_run(
        catalog.MNN_COMPARE,
        cases,
        ran(cases, tmp_path / "run", lambda i, a: a | {"y": a["y"][:1]} if i == 3 else a),
        tolerance,
        {},
    )
    assert shapes.status is Status.FAILED  # no noise gives another shape
    assert "shape" in shapes.reason


def test_a_lone_floor_holds_for_every_case(cases: list[CaseFile], tmp_path: Path) -> None:
    """As in a bundle that was made before each case had its own."""
    run = ran(cases, tmp_path / "run", off(3, 1e-2))
    assert (
        compare_run(catalog.MNN_COMPARE, cases, run, Tolerance(noise={"y": 2e-3}), {}).status is Status.PASSED
    )
    assert (
        compare_run(catalog.MNN_COMPARE, cases, run, Tolerance(noise={"y": 2e-7}), {}).status is Status.FAILED
    )
    read = msgspec.json.decode(b'{"noise": {"y": 0.5, "z": [0.5, null]}}', type=Tolerance)
    assert [read.noise_of(*at) for at in (("y", 7), ("z", 0), ("z", 1), ("z", 2), ("w", 0))] == [
        0.5,
        0.5,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("lost", "change", "status"),
    [
        ((1, 2, 3), off(4, 0.0), Status.NOT_RUN),  # two are left
        ((1, 2, 3), off(2, 1.0), Status.NOT_RUN),  # no more than noise
        ((1, 2, 3), off(2, 9.0), Status.FAILED),  # more than any noise
        ((1, 2, 3), off(2, 1, "k"), Status.NOT_RUN),  # a choice among values that are lost
        ((1, 2, 3), off(4, 1, "k"), Status.FAILED),
        ((0,), off(0, 1.0), Status.NOT_RUN),  # a real one
        ((0,), off(0, 9.0), Status.FAILED),
        ((), off(0, 1.0), Status.FAILED),
        ((0,), off(0, 0.0), Status.PASSED),  # there it agrees, and the noise check says the rest
    ],
)
def test_nothing_differs_that_may_be_noise(
    cases: list[CaseFile],
    tmp_path: Path,
    lost: tuple[int, ...],
    change: Callable[[int, Arrays], Arrays],
    status: Status,
) -> None:
    for tolerance in (Tolerance(noise=noise(*lost)), Tolerance(noise=noise(*lost), sqnr_db=50.0)):
        found = compare_run(catalog.MNN_COMPARE, cases, ran(cases, tmp_path / "run", change), tolerance, {})
        assert found.status is status, found.reason
        assert verdict([found], PREPARE) is not (Verdict.DIFFERS if status is Status.NOT_RUN else None)


def surveyed(cases: list[CaseFile], **fields: Any) -> Survey:
    specs = (TensorSpec("x", "float32", ("n",)),)
    dim = fields.pop("dim", Dim("n"))
    return Survey(
        signature=Signature(specs, (), (dim,)),
        cases=cases,
        checks=[],
        sweep=Sweep(sizes={"n": list(SIZES)}),
        **{"noise": {}, **fields},
    )


@pytest.mark.parametrize(
    ("lost", "dim", "status", "proven"),
    [
        ((2,), Dim("n"), Status.PASSED, [2, 3, 5, 6]),
        ((2,), Dim("n", 2, 6), Status.PASSED, [2, 3, 5, 6]),
        ((4,), Dim("n"), Status.PASSED, [2, 3, 4, 5]),
        ((4,), Dim("n", 2, 6), Status.NOT_RUN, [2, 3, 4, 5]),  # an end of the range that was promised
    ],
)
def test_a_size_whose_cases_drown_is_not_proven(
    cases: list[CaseFile],
    tmp_path: Path,
    lost: tuple[int, ...],
    dim: Dim,
    status: Status,
    proven: list[int],
) -> None:
    good = compare_run(
        catalog.MNN_COMPARE,
        cases,
        ran(cases, tmp_path / "run", off(0, 0.0)),
        Tolerance(noise=noise(*lost)),
        {},
    )
    (found,), sizes = dimension_checks(surveyed(cases, dim=dim), {"MNN": good})
    assert (found.status, sizes["n"]) == (status, proven)
    assert found.numbers["set_aside"] == [SIZES[k] for k in lost]


class Replaying:
    """Workers that run the step at hand here."""

    def __init__(self, net: Net, directory: Path) -> None:
        self.net, self.scratch = net, directory
        self.asked: list[list[int]] = []

    def directory(self, name: str) -> Path:
        return self.scratch

    def run(self, step: str, job: ReplayJob) -> Replayed:
        self.asked.append([c.index for c in job.cases])
        return replay(self.net, job)


def test_the_noise_of_a_case_is_measured_once_a_comparison_finds_it_wrong(tmp_path: Path) -> None:
    net = Net("x=float32[n]", lambda x: np.where(np.abs(x) > 1000, 3 + np.sin(x.astype("f8") * 1e9), 2 * x))
    cases = []
    for index, x in enumerate((np.arange(3), np.arange(4), np.arange(5), np.arange(2) + 1e4, np.arange(6))):
        case = Case(f"seed {index}", {"n": x.size}, {"x": x.astype("f4")}, net.run({"x": x.astype("f4")}))
        path = tmp_path / f"case-{index}.npz"
        save_arrays(path, {"inputs/x": case.inputs["x"], "outputs/y": case.outputs["y"]})
        cases.append(CaseFile(index=index, origin=case.origin, dims=case.dims, file=file_ref(path)))
    survey_ = surveyed(cases, noise={"y": [1e-7, None, None, None, None]})
    survey_ = msgspec.structs.replace(survey_, signature=Signature(net.inputs, (), (Dim("n"),)))

    def actual(index: int) -> RunResult:
        found = RunResult()
        for case in cases:
            with np.load(case.file.path) as arrays:
                y = arrays["outputs/y"] + np.float32(0.5 if case.index == index else 0)
            path = tmp_path / f"ran-{case.index}.npz"
            save_arrays(path, {"y": y})
            found.outputs[str(case.index)] = file_ref(path)
        return found

    workers: Any = Replaying(net, tmp_path)
    steps: Any = type("Steps", (), {"replay": "step"})
    for index, status in ((3, Status.PASSED), (1, Status.FAILED)):
        failed = compare_run(catalog.MNN_COMPARE, cases, actual(index), Tolerance(noise=survey_.noise), {})
        assert failed.status is Status.FAILED
        assert learn_noise(workers, steps, Source(kind="onnx", path=""), InputSpecs(), survey_, failed)
        again = compare_run(catalog.MNN_COMPARE, cases, actual(index), Tolerance(noise=survey_.noise), {})
        assert again.status is status
        assert not learn_noise(
            workers, steps, Source(kind="onnx", path=""), InputSpecs(), survey_, failed
        )  # it is known now
    assert workers.asked == [[3], [1]]
    assert set_aside(cases, Tolerance(noise=survey_.noise)).keys() == {3}
    assert survey_.noise["y"][2] is None  # type: ignore[index]


def test_a_source_that_refuses_a_moved_input_has_no_noise_there() -> None:
    def strict(x: Any) -> Any:
        if not np.all(x == np.round(x)):
            raise Refused("whole numbers alone")
        return x

    from mnnprep.reference.noise import measure_noise

    net = Net("x=float32[2]", strict)
    assert measure_noise(net, Case("seed 0", {}, {"x": np.ones(2, "f4")}, {"y": np.ones(2, "f4")}), 0) == {}


def text_image(number: int, height: int, width: int) -> Any:
    """A page with lines of text, as a detector is fed one: normalized, NCHW."""
    page = Image.new("RGB", (width, height), (235, 235, 225))
    drawn, font = ImageDraw.Draw(page), ImageFont.load_default(20)
    for line in range(height // 40):
        drawn.text(
            (8 + 7 * line % 30, 10 + 40 * line),
            f"Invoice {number}{line} total 12.{line}5",
            fill=(20, 20, 30),
            font=font,
        )
    values = (np.asarray(page, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return values.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "verdict"), [(3, Verdict.PROVEN), (0, Verdict.UNPROVEN)])
def test_a_text_detector_that_is_silent_but_for_text(tmp_path: Path, images: int, verdict: Verdict) -> None:
    """Its outputs for noise are noise: with real pages it is proven, and without them it can't be told, which
    is no difference.
    """
    (tmp_path / "pages").mkdir()
    for number, size in enumerate(((96, 192), (128, 128), (160, 96))[:images]):
        np.savez(tmp_path / "pages" / f"{number}.npz", x=text_image(number, *size))
    wants = make_wants(samples=str(tmp_path / "pages")) if images else InputSpecs()
    manifest = prepare(Request(source=str(fetch("ppocr-det.onnx")), wants=wants), tmp_path / "out")
    assert manifest.verdict is verdict, [c.reason for c in manifest.evidence if c.status is not Status.PASSED]
    assert all(len(floors) == len(manifest.cases) for floors in manifest.tolerance.noise.values())  # type: ignore[arg-type]
    assert verify(tmp_path / "out").verdict is verdict
