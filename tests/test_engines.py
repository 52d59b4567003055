"""Another version of MNN: converting and proving with it, and from which version on a model is right."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

import mnnprep
from evaluation.nets.mnn_models import matmul
from mnnprep.bundle.manifest import FILE_NAME, read_manifest
from mnnprep.bundle.target_view import engine_spans, to_set
from mnnprep.commands import check_engines
from mnnprep.commands.check import check_file
from mnnprep.conformance.engines import EngineTable, OnEngines, engine_table
from mnnprep.conformance.messages import Outcome
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.target import host_machine
from support.command import call
from support.emulators import fake_engine

OTHER = "9.9.9"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages of an engine that is MNN as it is installed, unless a test puts something there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake_engine(host_machine(), OTHER) / "site"


def test_an_engine_converts_and_runs_and_is_asked_again(engine: Path, tmp_path: Path) -> None:
    model, out = matmul(tmp_path / "m.onnx"), tmp_path / "out"
    assert call("prepare", model, "--engine", OTHER, "--target", "host:low", "-o", out).code == 0
    manifest = read_manifest(out)
    assert (manifest.engine, manifest.tools["MNN"]) == (OTHER, OTHER)
    assert manifest.source.command[:4] == ["prepare", "m.onnx", "--engine", OTHER]
    assert [record.target for record in manifest.targets] == [f"host:low,engine={OTHER}"]
    assert mnnprep.verify(out).verdict is Verdict.PROVEN
    (engine / "MNN").mkdir()
    (engine / "MNN" / "__init__.py").write_text("raise ImportError('the engine of the bundle')")
    assert mnnprep.verify(out).verdict is not Verdict.PROVEN


def test_the_converter_is_that_of_the_engine(engine: Path, tmp_path: Path) -> None:
    (engine / "_tools.py").write_text("def mnnconvert(words): print('These Op Not Support: ONNX::Mine')\n")
    model, out = matmul(tmp_path / "m.onnx"), tmp_path / "out"
    result = call("prepare", model, "--method", "copy", "--engine", OTHER, "-o", out)
    assert result.code == 3
    assert "MNN does not support these operators: Mine" in " ".join(result.out.split())


def test_an_engine_that_is_not_here_or_none_is_told_before_the_work(engine: Path, tmp_path: Path) -> None:
    model = matmul(tmp_path / "m.onnx")
    with pytest.raises(RefusedError, match="not here") as caught:
        mnnprep.prepare(model, tmp_path / "out", engine="0.0.1")
    assert caught.value.next == f"mnnprep target add {host_machine()},engine=0.0.1"
    with pytest.raises(UsageError, match="not a version"):
        mnnprep.prepare(model, tmp_path / "out", engine="../site")
    assert not (tmp_path / "out").exists()


def test_a_manifest_names_no_directory_that_code_is_taken_from(engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("prepare", matmul(tmp_path / "m.onnx"), "--engine", OTHER, "-o", out).code == 0
    record = json.loads((out / FILE_NAME).read_bytes())
    record["source"]["options"]["engine"] = "../../elsewhere"
    (out / FILE_NAME).write_text(json.dumps(record))
    for command in ("verify", "bisect"):
        result = call(command, out)
        assert (result.code, "not a version of MNN" in result.err) == (3, True)


def on(version: str, *, right: bool, arch: str = "host:high") -> Check:
    row = catalog.TARGET.of(f"{arch},engine={version}")
    return row.passed() if right else row.failed("off")


@pytest.mark.parametrize(
    ("right", "oldest", "advice"),
    [
        ({"3.0.0": False, "3.2.0": True, "3.10.0": True}, "3.2.0", "The app needs MNN 3.2.0 or later."),
        ({"3.0.0": True, "3.2.0": False, "3.10.0": True}, "3.10.0", "The app needs MNN 3.10.0 or later."),
        ({"3.0.0": True, "3.2.0": False}, "", "The app needs another engine than MNN 3.2.0."),
    ],
)
def test_the_oldest_engine_from_which_on_all_are_right(
    right: dict[str, bool], oldest: str, advice: str
) -> None:
    evidence = [on(version, right=is_right) for version, is_right in right.items()]
    (span,) = engine_spans(evidence)
    assert span.oldest == oldest
    assert span.wrong == [version for version, is_right in right.items() if not is_right]
    assert to_set(evidence) == advice


def test_the_proof_here_counts_among_the_engines() -> None:
    evidence = [catalog.MNN_COMPARE.passed(), on("3.0.0", right=False)]
    (span,) = engine_spans(evidence, "3.6.1")
    assert str(span) == "host:high: right with MNN 3.6.1 and later, of those tried; wrong with 3.0.0"
    not_run = msgspec.structs.replace(evidence[1], status=Status.NOT_RUN)
    assert engine_spans([evidence[0], not_run], "3.6.1")[0].wrong == []


def outcome(case: str, operator: str, status: str) -> Outcome:
    fields = {"case": case, "operator": operator, "status": status, "variant": "fed", "route": "raw"}
    return msgspec.convert(fields | {"expanded": False, "opset": 13, "dtype": "float32"}, Outcome)


def test_the_table_of_engines_counts_what_the_converters_own_gets_right() -> None:
    own = [outcome("a", "Less", "right"), outcome("b", "Less", "right"), outcome("c", "Add", "right")]
    own += [outcome("d", "Add", "wrong")]
    old = [outcome("a", "Less", "wrong"), outcome("b", "Less", "right"), outcome("c", "Add", "right")]
    table = engine_table("3.6.1", "1", own, {"3.0.0": old, "3.2.0": own})
    assert table.rows == [OnEngines(operator="Less", cases=2, right={"3.0.0": 1, "3.2.0": 2})]
    assert table.rows[0].oldest == "3.2.0"
    assert table.losing("3.0.0", ["Less", "Add"]) == table.rows
    assert table.losing("3.2.0", ["Less"]) == []


def test_check_names_what_an_engine_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(right: int) -> EngineTable:
        row = OnEngines(operator="MatMul", cases=2, right={"3.0.0": right, "3.2.0": 2})
        return EngineTable(converter="3.6.1", machine="m", onnx="1", engines=["3.0.0", "3.2.0"], rows=[row])

    from mnnprep.model.target import parse_targets

    model = matmul(tmp_path / "m.onnx")
    monkeypatch.setattr(check_engines, "load_engine_table", lambda: table(0))
    report = check_file(model, targets=parse_targets(["engines", "host,engine=3.1.0"]))
    (hazard,) = report.hazards
    assert (hazard.rule, hazard.detail) == (check_engines.NEWER, "MNN 3.0.0; needs 3.2.0 or later")
    assert "MNN 3.1.0 was not measured; 3.0.0, 3.2.0 were" in report.notes
    assert not check_file(model).hazards
    monkeypatch.setattr(check_engines, "load_engine_table", lambda: table(1))
    report = check_file(model, targets=parse_targets(["host,engine=3.0.0"]))
    assert (report.hazards, report.measured[-1].engine) == ([], "3.0.0")
