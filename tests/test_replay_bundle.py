"""Making a bundle again from its record: the same bytes, or what differs and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.nets.mnn_models import WEIGHT, floats, matmul, node, save
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.cli.replay import recorded_request
from mnnprep.commands import replay as replaying
from mnnprep.commands.command_line import command_line
from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.messages import Source
from mnnprep.model.request import Request, make_wants
from support.command import call, prepared

NOTHING: dict[str, Any] = {
    "source": "net.onnx",
    "weights": "",
    "samples": "",
    "mnnconvert": "",
    "trust": False,
    "timeout": 60.0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, samples for it, and the bundle that was made of both."""
    root = tmp_path_factory.mktemp("replay")
    matmul(root / "net.onnx")
    (root / "inputs").mkdir()
    for seed in range(3):
        np.savez(
            root / "inputs" / f"{seed}.npz",
            x=np.random.default_rng(seed).standard_normal((2, 4)).astype(np.float32),
        )
    manifest = prepared(
        root / "net.onnx",
        root / "bundle",
        "--dim",
        "batch=1:3",
        "--range",
        "x=-9:9",
        "--samples",
        root / "inputs",
        "--seed",
        "3",
        "--no-repair",
    )
    assert manifest.verdict.value == "proven"
    return root


def test_the_same_source_elsewhere_gives_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNNPREP_MNNCONVERT", "/nowhere/MNNConvert")
    shutil.copy(place / "net.onnx", tmp_path / "net.onnx")
    result = call(
        "replay",
        place / "bundle",
        "--source",
        tmp_path / "net.onnx",
        "--samples",
        place / "inputs",
        "-o",
        tmp_path / "again",
        "--json",
    )
    assert result.code == 0, result.err
    found = result.document()
    assert (found["same"], found["verdict"], found["tools"]) == (True, "proven", [])
    assert {f["path"] for f in found["files"]} >= {"model.onnx", "model.mnn", "cases/0.npz"}
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (
        place / "bundle" / "manifest.json"
    ).read_bytes()


def test_another_source_and_other_samples_are_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    save(
        tmp_path / "net.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "batch", 4)],
        [floats("y", "batch", 3)],
        {"w": WEIGHT + 1},
    )
    other = call("replay", place / "bundle", "--source", tmp_path / "net.onnx", "--samples", place / "inputs")
    assert other.code == 3
    assert "not the source" in other.err
    shutil.copytree(place / "inputs", tmp_path / "inputs")
    (tmp_path / "inputs" / "0.npz").unlink()
    other = call("replay", place / "bundle", "--source", place / "net.onnx", "--samples", tmp_path / "inputs")
    assert other.code == 3
    assert "2 files, 2 of them the same; recorded are 3" in other.err


def test_what_the_bundle_was_made_with_must_be_given_and_nothing_else(place: Path) -> None:
    without = call("replay", place / "bundle", "--source", place / "net.onnx")
    assert without.code == 2
    assert "--samples" in without.err
    more = call(
        "replay",
        place / "bundle",
        "--source",
        place / "net.onnx",
        "--samples",
        place / "inputs",
        "--weights",
        place / "net.onnx",
    )
    assert more.code == 2
    assert "without --weights" in more.err


def test_other_bytes_are_told_with_the_tools_that_differ(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    data = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    data["tools"] |= {"MNN": "1.2.3", "nonsense": "4"}
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(data))
    data["mnn"]["sha256"] = "0" * 64
    data["files"] = [f | {"sha256": "0" * 64} if f["path"] == "model.mnn" else f for f in data["files"]]
    (tmp_path / "forged.json").write_text(json.dumps(data))
    monkeypatch.setattr(replaying, "prepare", lambda *_, **__: read_manifest(place / "bundle"))
    shutil.copy(tmp_path / "forged.json", tmp_path / "bundle" / "manifest.json")
    result = call(
        "replay", tmp_path / "bundle", "--source", place / "net.onnx", "--samples", place / "inputs"
    )
    assert result.code == 1
    assert "differs  model.mnn: sha256 0000000000000000 recorded" in result.out
    assert "tool     MNN: 1.2.3 recorded" in result.out
    assert "tool     nonsense: 4 recorded, not installed now" in result.out
    assert "model.onnx" not in result.out


def recorded(place: Path, **changes: Any) -> Manifest:
    import msgspec

    manifest = read_manifest(place / "bundle")
    return msgspec.structs.replace(manifest, source=msgspec.structs.replace(manifest.source, **changes))


class TestTheRecordedCommand:
    def test_it_is_the_request(self, place: Path) -> None:
        manifest = recorded(place)
        request = recorded_request(manifest, {**NOTHING, "samples": str(place / "inputs")}, ())
        wants = make_wants((), ("batch=1:3",), ("x=-9:9",), str(place / "inputs"), 3)
        assert (request.wants, request.repairs, request.source) == (wants, (), "net.onnx")

    @pytest.mark.parametrize(
        "words",
        [["prepare", "net.onnx", "--brand-new", "1"], ["prepare", "net.onnx", "--opset", "x"], ["prepare"]],
    )
    def test_one_that_this_version_does_not_know_is_refused(self, place: Path, words: list[str]) -> None:
        with pytest.raises(RefusedError, match="does not know"):
            recorded_request(recorded(place, command=words), NOTHING, ())

    @pytest.mark.parametrize(
        ("kind", "how"), [("live", "a live module"), ("onnx", "before commands were recorded")]
    )
    def test_none_is_refused(self, place: Path, kind: str, how: str) -> None:
        with pytest.raises(RefusedError, match="no command") as refused:
            recorded_request(recorded(place, command=[], kind=kind), NOTHING, ())
        assert how in refused.value.seen

    def test_code_runs_only_where_the_caller_says_so(self, place: Path) -> None:
        """Neither --trust nor a metric's file nor a converter is taken from a bundle."""
        trusting = recorded(place, command=["prepare", "m.pt", "--trust"], options={})
        with pytest.raises(UsageError, match="made with --trust"):
            recorded_request(trusting, NOTHING, ())
        assert recorded_request(trusting, {**NOTHING, "trust": True}, ()).trust
        measuring = recorded(
            place, command=["prepare", "m.onnx", "--metric", "score.py:score<=0.5"], options={}
        )
        with pytest.raises(UsageError, match="whose code"):
            recorded_request(measuring, NOTHING, ())
        (place / "score.py").write_text("def score(a, b):\n    return 0\n")
        metric = recorded_request(measuring, NOTHING, (f"{place}/score.py:score",)).metrics[0]
        assert (metric.name, metric.threshold, metric.at_most, metric.function) == (
            "score.py:score",
            0.5,
            True,
            f"{place}/score.py:score",
        )
        converting = recorded(
            place, command=["prepare", "m.onnx", "--mnnconvert", "/bin/sh"], options={"mnnconvert": "0" * 64}
        )
        with pytest.raises(UsageError, match="a converter"):
            recorded_request(converting, NOTHING, ())

    def test_where_to_write_is_not_taken_from_it(self, place: Path) -> None:
        command = ["prepare", "net.onnx", "-o", "/etc/bundle", "--force"]
        request = recorded_request(recorded(place, command=command, options={}), NOTHING, ())
        assert command_line(request, Source(kind="onnx", path="net.onnx")) == ["prepare", "net.onnx"]
        assert isinstance(request, Request)


def test_another_converter_is_refused(place: Path, tmp_path: Path) -> None:
    converter = tmp_path / "MNNConvert"
    converter.write_text("#!/bin/sh\nexit 1\n")
    converter.chmod(0o755)
    request = Request(source=str(place / "net.onnx"), mnnconvert=str(converter))
    options = {**read_manifest(place / "bundle").source.options, "samples": [], "mnnconvert": "0" * 64}
    with pytest.raises(RefusedError, match="not the converter"):
        replaying.require_same(recorded(place, options=options), request)
