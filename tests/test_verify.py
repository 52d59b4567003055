"""`verify` believes no figure of a bundle: each edit of the record, and of the directory, is told."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mnnprep.bundle import report
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.commands.auditing.record import require_known
from mnnprep.commands.auditing.yardstick import artifact_sqnr, laxer, ruled
from mnnprep.commands.bisect import bisect
from mnnprep.commands.verify import audited
from mnnprep.comparison.tolerance import ARTIFACT_SQNR, DEQUANTIZED_SQNR, Tolerance
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Status
from mnnprep.model.files import load_arrays, save_arrays, sha256
from support.command import call

DATA = Path(__file__).parent / "data"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "copy")
    return tmp_path / "copy"


def edited(bundle: Path, edit: Edit) -> Path:
    """The bundle with its manifest edited and its page made anew, as whoever forges one does it."""
    data = json.loads((bundle / "manifest.json").read_text())
    edit(data)
    (bundle / "manifest.json").write_text(json.dumps(data))
    (bundle / "report.html").write_bytes(report.page_bytes(read_manifest(bundle)))
    return bundle


def wrong(bundle: Path) -> dict[str, str]:
    """The checks that did not pass, by name, with their reasons."""
    return {
        c.check: c.reason for c in audited(bundle, read_manifest(bundle)) if c.status is not Status.PASSED
    }


def test_an_untouched_bundle_passes_every_check(bundle: Path) -> None:
    checks = audited(bundle, read_manifest(bundle))
    assert [(c.check, c.status.value) for c in checks] == [
        (n, "passed") for n in ("hashes", "record", "cases", "tolerance", "report")
    ]
    assert call("verify", bundle).code == 0


def test_an_edit_that_changes_nothing_passes(copy: Path) -> None:
    assert wrong(edited(copy, lambda m: None)) == {}


def of(data: dict[str, Any], check: str) -> dict[str, Any]:
    return next(c for c in data["evidence"] if c["check"] == check)


def lower(data: dict[str, Any], **values: Any) -> None:
    data["tolerance"].update(values)


def passing_over(data: dict[str, Any]) -> None:
    of(data, "mnn_compare")["outputs"][0] |= {"excess": 3.0, "problem": "differs beyond the tolerance"}


def without_output(data: dict[str, Any]) -> None:
    check = of(data, "mnn_compare")
    check["outputs"] = [e for e in check["outputs"] if e["output"] != "i"]


def fewer_cases(data: dict[str, Any]) -> None:
    gone = data["cases"].pop()
    data["files"] = [f for f in data["files"] if f["path"] != gone["path"]]


FORGED: dict[str, tuple[Edit, str, str]] = {
    "an SQNR of nothing": (
        lambda m: lower(m, sqnr_db=-1000.0),
        "tolerance",
        "-1000 dB, but the options of the run give float32's own",
    ),
    "a wide relative": (
        lambda m: lower(m, relative=1e9),
        "tolerance",
        "relative is 1e.09, but the rule has 0.001",
    ),
    "a wide absolute": (lambda m: lower(m, absolute=0.01), "tolerance", "absolute"),
    "a wide widening": (lambda m: lower(m, widening=1e6), "tolerance", "widening"),
    "a high ceiling": (lambda m: lower(m, ceiling=1.0), "tolerance", "ceiling"),
    "a wide slack": (lambda m: lower(m, case_slack_db=60.0), "tolerance", "case_slack_db"),
    "absurd noise": (lambda m: lower(m, noise={"y": 1e9}), "tolerance", "the stated noise would set aside"),
    "noise below zero": (lambda m: lower(m, noise={"y": -1.0}), "tolerance", "noise stated for y is -1"),
    "noise of nothing": (lambda m: lower(m, noise={"z": 0.0}), "tolerance", "z, which is not an output"),
    "an artifact's SQNR": (
        lambda m: m["artifact"].update(sqnr_db=1.0),
        "tolerance",
        "the artifact's SQNR is 1 dB",
    ),
    "a verdict of differs": (
        lambda m: m.update(verdict="differs"),
        "record",
        "claims differs, and its evidence gives proven",
    ),
    "a failed check called proven": (
        lambda m: of(m, "weights").update(status="failed", reason="x"),
        "record",
        "claims proven",
    ),
    "a check left out": (
        lambda m: m["evidence"].remove(of(m, "vacuity")),
        "record",
        "its evidence gives unproven",
    ),
    "a comparison that passed beyond its tolerance": (
        passing_over,
        "record",
        "mnn_compare passed with y in case 0 beyond",
    ),
    "a comparison of one output less": (
        without_output,
        "record",
        "mnn_compare passed with no figure of i in case 0",
    ),
    "a comparison without figures": (
        lambda m: of(m, "artifact_compare").pop("outputs"),
        "record",
        "artifact_compare passed with no figure",
    ),
    "a case left out": (fewer_cases, "hashes", "is not in the manifest"),
    "a size that no case has": (
        lambda m: m["signature"]["dims"]["n"]["proven"].append(9),
        "record",
        "n=9 is called proven, but no case",
    ),
    "a case called by another size": (
        lambda m: m["cases"][0]["dims"].update(n=3),
        "cases",
        "case 0: x is float32",
    ),
    "an input of another shape": (
        lambda m: m["signature"]["inputs"][0].update(shape=["n", 5]),
        "cases",
        "x is float32",
    ),
    "an output left out of the signature": (
        lambda m: m["signature"]["outputs"].pop(),
        "record",
        "an unknown figure of i",
    ),
    "a check twice": (
        lambda m: m["evidence"].append(of(m, "mnn_compare")),
        "record",
        "mnn_compare appears twice in the evidence",
    ),
    "no converted model": (
        lambda m: m.update(mnn=None),
        "record",
        "mnn_compare passed without a converted model",
    ),
    "a dimension left out": (
        lambda m: (m["signature"]["dims"].pop("n"), m["evidence"].remove(of(m, "dimension:n"))),
        "record",
        "does not record it",
    ),
    "a case without its size": (
        lambda m: m["cases"][0]["dims"].clear(),
        "record",
        "case 0 has sizes of other dimensions",
    ),
    "two hashes of one file": (
        lambda m: m["artifact"]["files"][0].update(sha256="0" * 64),
        "hashes",
        "model.onnx has other bytes",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_edit_of_the_record_is_told(copy: Path, name: str) -> None:
    edit, check, reason = FORGED[name]
    found = wrong(edited(copy, edit))
    assert check in found
    assert re.search(reason, found[check])


UNKNOWN: dict[str, Edit] = {
    "artifact.format nonsense": lambda m: m["artifact"].update(format="nonsense"),
    "source.kind nonsense": lambda m: m["source"].update(kind="nonsense"),
    "dtype float128 of x": lambda m: m["signature"]["inputs"][0].update(dtype="float128"),
    "dtype int4 of y": lambda m: m["signature"]["outputs"][0].update(mnn_dtype="int4"),
    "layout CHWN of x": lambda m: m["signature"]["inputs"][0].update(layout="CHWN"),
    "check trust_me": lambda m: m["evidence"].append({"check": "trust_me", "status": "passed"}),
    "hint FAST": lambda m: m["runtime"].update(hints={"FAST": 1}),
    "runtime OPENCL low 4": lambda m: m["runtime"].update(backend="OPENCL", precision="low", threads=4),
}


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_word_is_refused(copy: Path, word: str) -> None:
    edited(copy, UNKNOWN[word])
    with pytest.raises(RefusedError, match="does not know") as refused:
        audited(copy, read_manifest(copy))
    assert word in refused.value.seen


def test_the_edits_reach_the_command_line(copy: Path) -> None:
    result = call("verify", edited(copy, FORGED["an SQNR of nothing"][0]), "--json")
    assert (result.code, result.document()["verdict"]) == (1, "differs")


def test_an_unknown_format_is_exit_3(copy: Path) -> None:
    assert call("verify", edited(copy, UNKNOWN["artifact.format nonsense"]), "--json").code == 3


def test_a_changed_verdict_is_exit_1(copy: Path) -> None:
    assert call("verify", edited(copy, lambda m: m.update(verdict="unproven"))).code == 1


class TestDirectory:
    def test_a_file_more_is_named(self, copy: Path) -> None:
        (copy / "model.mnn.weight").write_bytes(b"")
        (copy / "cases" / "extra").write_bytes(b"")
        assert wrong(copy) == {
            "hashes": "model.mnn.weight is not in the manifest; cases/extra is not in the manifest"
        }

    def test_a_directory_without_files_is_none_of_it(self, copy: Path) -> None:
        (copy / "empty").mkdir()
        assert wrong(copy) == {}

    @pytest.mark.parametrize("target", ["/etc", "cases", "nowhere"])
    def test_a_link_more_is_named(self, copy: Path, target: str) -> None:
        (copy / "link").symlink_to(target)
        assert wrong(copy) == {"hashes": "link is not in the manifest"}

    def test_a_link_out_of_the_bundle_in_place_of_a_file_is_refused(self, copy: Path, tmp_path: Path) -> None:
        shutil.move(copy / "model.mnn", tmp_path / "model.mnn")
        (copy / "model.mnn").symlink_to(tmp_path / "model.mnn")
        with pytest.raises(RefusedError, match="outside the bundle"):
            wrong(copy)

    def test_a_link_within_the_bundle_in_place_of_a_file_is_named(self, copy: Path) -> None:
        shutil.move(copy / "model.mnn", copy / "moved")
        (copy / "model.mnn").symlink_to("moved")
        assert wrong(copy) == {"hashes": "model.mnn is not a regular file; moved is not in the manifest"}

    def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(self, copy: Path) -> None:
        (copy / "model.mnn").unlink()
        os.mkfifo(copy / "model.mnn")
        assert wrong(copy) == {"hashes": "model.mnn is not a regular file"}

    def test_a_link_in_place_of_the_manifest_is_named(self, copy: Path) -> None:
        shutil.move(copy / "manifest.json", copy.parent / "manifest.json")
        (copy / "manifest.json").symlink_to("../manifest.json")
        assert wrong(copy) == {"hashes": "manifest.json is not a regular file"}

    def test_hard_links_are_files(self, copy: Path, tmp_path: Path) -> None:
        os.link(copy / "model.mnn", tmp_path / "elsewhere")
        assert wrong(copy) == {}

    def test_a_file_of_the_test_directory_is_hashed(self, copy: Path) -> None:
        (copy / "mnn-test" / "input.json").write_text("{}")
        assert wrong(copy) == {"hashes": "mnn-test/input.json has other bytes than the manifest says"}

    @pytest.mark.parametrize("path", ["./model.mnn", "cases//0.npz", "cases/../model.mnn", "", "/model.mnn"])
    def test_a_path_that_is_not_plain_is_refused(self, copy: Path, path: str) -> None:
        edited(copy, lambda m: m["files"].append({"path": path, "sha256": "0" * 64, "size": 1}))
        with pytest.raises(RefusedError, match="outside the bundle"):
            wrong(copy)

    @pytest.mark.parametrize("spelling", ["cases/0.npz", "cases/./0.npz"])
    def test_two_cases_of_one_file_are_refused(self, copy: Path, spelling: str) -> None:
        data = json.loads((copy / "manifest.json").read_text())
        data["cases"].append(data["cases"][0] | {"path": spelling})
        (copy / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(RefusedError, match=r"could not be read|outside the bundle"):
            wrong(copy)
        with pytest.raises(RefusedError, match=r"could not be read|outside the bundle"):
            bisect(copy)

    def test_a_case_that_is_no_npz_is_refused(self, copy: Path) -> None:
        (copy / "cases" / "0.npz").write_bytes(b"nothing")

        def edit(data: dict[str, Any]) -> None:
            for entry in (data["cases"][0], next(f for f in data["files"] if f["path"] == "cases/0.npz")):
                entry.update(sha256=sha256(copy / "cases" / "0.npz"), size=7)

        edited(copy, edit)
        with pytest.raises(RefusedError, match="could not be read as arrays"):
            wrong(copy)

    def test_a_case_that_unfolds_is_refused(self, copy: Path) -> None:
        path = copy / "cases" / "0.npz"
        np.savez_compressed(path, **{**load_arrays(path), "outputs/z": np.zeros(1 << 20, np.float32)})

        def edit(data: dict[str, Any]) -> None:
            for entry in (data["cases"][0], next(f for f in data["files"] if f["path"] == "cases/0.npz")):
                entry.update(sha256=sha256(path), size=path.stat().st_size)

        edited(copy, edit)
        with pytest.raises(RefusedError, match="could not be read as arrays") as refused:
            wrong(copy)
        assert "compressed" in refused.value.seen

    def test_a_case_with_an_array_more_is_told(self, copy: Path) -> None:
        path = copy / "cases" / "0.npz"
        save_arrays(path, {**load_arrays(path), "outputs/z": np.zeros(1, np.float32)})

        def edit(data: dict[str, Any]) -> None:
            for entry in (data["cases"][0], next(f for f in data["files"] if f["path"] == "cases/0.npz")):
                entry.update(sha256=sha256(path), size=path.stat().st_size)

        assert wrong(edited(copy, edit)) == {"cases": "case 0 has other outputs than the signature"}


class TestReport:
    def test_a_page_with_one_letter_changed_is_told(self, copy: Path) -> None:
        page = copy / "report.html"
        page.write_text(page.read_text().replace("proven", "Proven", 1))
        assert "is not the page" in wrong(copy)["report"]
        assert call("report", copy).code == 0
        assert wrong(copy) == {}

    def test_a_missing_page_is_told_and_stands_in_nobodys_way(self, copy: Path) -> None:
        (copy / "report.html").unlink()
        assert "there is no report.html" in wrong(copy)["report"]
        assert call("verify", copy).code == 0

    def test_a_link_in_its_place_is_told(self, copy: Path, tmp_path: Path) -> None:
        shutil.move(copy / "report.html", tmp_path / "report.html")
        (copy / "report.html").symlink_to(tmp_path / "report.html")
        assert "not a regular file" in wrong(copy)["report"]

    def test_the_page_of_another_version_is_not_compared(self, copy: Path) -> None:
        edited(copy, lambda m: m["tools"].update(mnnprep="0.0.1"))
        (copy / "report.html").write_text("another")
        assert "0.0.1" in wrong(copy)["report"]

    def test_without_jinja2_it_is_not_compared(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from mnnprep import deps

        real = deps.installed
        monkeypatch.setattr(deps, "installed", lambda module: module != "jinja2" and real(module))
        assert "mnnprep[report]" in wrong(copy)["report"]


def golden(name: str, **changes: Any) -> Manifest:
    manifest = msgspec.json.decode((DATA / f"manifest-{name}.json").read_bytes(), type=Manifest)
    return msgspec.structs.replace(manifest, **changes)


class TestTheRule:
    def with_options(
        self, kind: str, format: str, own: float | None, stated: float | None, **options: Any
    ) -> Manifest:
        manifest = golden("proven")
        source = msgspec.structs.replace(manifest.source, kind=kind, options=options)
        artifact = msgspec.structs.replace(manifest.artifact, format=format, sqnr_db=own)
        return msgspec.structs.replace(
            manifest, source=source, artifact=artifact, tolerance=Tolerance(sqnr_db=stated)
        )

    @pytest.mark.parametrize(
        ("kind", "format", "own", "stated", "options", "lax"),
        [
            ("onnx", "onnx", None, None, {}, 0),
            ("onnx", "onnx", None, 50.0, {"precision": {"fp16": True}}, 0),
            ("onnx", "onnx", None, 49.0, {"precision": {"fp16": True}}, 1),
            ("onnx", "onnx", None, 30.0, {"precision": {"weight_bits": 4}}, 0),
            ("onnx", "onnx", None, 12.0, {"precision": {"weight_bits": 4, "budget": 12.0}}, 0),
            ("onnx", "onnx", None, 11.0, {"precision": {"weight_bits": 4, "budget": 12.0}}, 1),
            ("onnx", "onnx", 30.0, 30.0, {}, 2),
            ("savedmodel", "tflite", 50.0, 50.0, {"tflite_precision": "float16"}, 0),
            ("savedmodel", "tflite", 30.0, 30.0, {"tflite_precision": "float16"}, 2),
            ("savedmodel", "tflite", 30.0, 30.0, {"tflite_precision": "int8"}, 0),
            ("savedmodel", "tflite", 30.0, 30.0, {}, 2),
            ("tflite", "onnx", 30.0, 30.0, {}, 0),
            ("tflite", "onnx", None, None, {}, 0),
            ("tflite", "tflite", 30.0, 30.0, {}, 2),
            ("tflite", "onnx", 30.0, 30.0, {"precision": {"fp16": True}}, 0),
        ],
    )
    def test_what_may_be_asked_decides(
        self, kind: str, format: str, own: float, stated: float, options: dict[str, Any], lax: int
    ) -> None:
        assert len(laxer(self.with_options(kind, format, own, stated, **options))) == lax

    def test_the_rule_is_used_and_not_the_manifests_figures(self) -> None:
        manifest = golden(
            "proven", tolerance=Tolerance(relative=1e9, absolute=1e9, sqnr_db=-1000.0, noise={"logits": 1e-6})
        )
        assert ruled(manifest) == (Tolerance(noise={"logits": 1e-6}), Tolerance(noise={"logits": 1e-6}))
        assert artifact_sqnr(manifest) is None
        assert set(ARTIFACT_SQNR.values()) == {50.0, 30.0}
        assert DEQUANTIZED_SQNR == 30.0

    @pytest.mark.parametrize(
        "precision", [{"fp16": True, "budget": -1000.0}, {"fp16": True, "budget": 0.0}, {"fp16": "yes"}, 3]
    )
    def test_a_precision_that_no_call_asks_for_is_refused(self, precision: Any) -> None:
        with pytest.raises(RefusedError):
            laxer(self.with_options("onnx", "onnx", None, None, precision=precision))

    @pytest.mark.parametrize("budget", [-1.0, 0.0, float("inf"), float("nan")])
    def test_no_call_can_ask_for_it(self, budget: float) -> None:
        from mnnprep.model.precision import make_precision

        with pytest.raises(UsageError, match="above 0 dB"):
            make_precision(fp16=True, budget=budget)

    @pytest.mark.parametrize("name", ["proven", "unproven", "differs", "refused"])
    def test_golden_manifests_hold_to_it(self, name: str) -> None:
        require_known(golden(name))
        assert laxer(golden(name)) == []
