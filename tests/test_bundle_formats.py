"""What others read of a bundle: the manifest's schema, bundles of other versions, the bill of materials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from evaluation.nets.mnn_models import matmul
from mnnprep.bundle import bom, schema
from mnnprep.bundle.manifest import Manifest, read_manifest
from mnnprep.errors import RefusedError
from support.command import call, prepared

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
GOLDEN = ("proven", "unproven", "differs", "refused")


def golden(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / f"manifest-{name}.json").read_text())
    return data


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    prepared(matmul(root / "net.onnx"), root / "bundle", "--dim", "batch=1:3", "--metric", "cosine=0.9")
    return root / "bundle"


class TestSchema:
    def test_the_published_one_is_the_one_that_is_read(self) -> None:
        assert (ROOT / "docs" / "manifest.schema.json").read_text() == schema.schema_text()

    def test_it_is_a_schema_and_every_manifest_holds_to_it(self, bundle: Path) -> None:
        jsonschema.Draft202012Validator.check_schema(schema.schema())
        judge = jsonschema.Draft202012Validator(schema.schema())
        for data in [*map(golden, GOLDEN), json.loads((bundle / "manifest.json").read_text())]:
            assert [e.message for e in judge.iter_errors(data)] == []

    @pytest.mark.parametrize(
        "change", [{"verdict": "fine"}, {"schema": "mnnprep.bundle/2"}, {"cases": 3}, {"tools": {"MNN": 3}}]
    )
    def test_what_can_not_be_read_does_not_hold_to_it(self, change: dict[str, Any]) -> None:
        assert list(jsonschema.Draft202012Validator(schema.schema()).iter_errors(golden("proven") | change))

    def test_every_type_says_what_it_is(self) -> None:
        without = [
            name
            for name, made in schema.schema()["$defs"].items()
            if made.get("type") == "object" and not made.get("description")
        ]
        assert without == []


def written(directory: Path, data: dict[str, Any]) -> Path:
    (directory / "manifest.json").write_text(json.dumps(data))
    return directory


class TestVersions:
    @pytest.mark.parametrize("name", GOLDEN)
    def test_one_of_before_the_newer_fields_is_read(self, name: str, tmp_path: Path) -> None:
        data = golden(name)
        for field in ("name", "command", "parameters"):
            del data["source"][field]
        for file in data["source"]["files"]:
            del file["file"]
        for field in ("runtime", "metrics", "files"):
            data.pop(field, None)
        found = read_manifest(written(tmp_path, data))
        assert (found.verdict.value, found.source.name, found.source.command) == (name, "", [])

    def test_fields_of_a_newer_version_are_passed_over(self, tmp_path: Path) -> None:
        data = golden("proven") | {"brand_new": {"x": 1}}
        data["source"]["brand_new"] = 1
        assert (
            read_manifest(written(tmp_path, data)).to_bytes() == (DATA / "manifest-proven.json").read_bytes()
        )

    @pytest.mark.parametrize("other", ["mnnprep.bundle/2", "mnnprep.bundle/0", "x", 1, None])
    def test_another_schema_is_refused_with_both_named(self, other: Any, tmp_path: Path) -> None:
        data = golden("proven") | {"schema": other, "tools": {"mnnprep": "9.9"}}
        with pytest.raises(RefusedError, match=r"mnnprep\.bundle/1") as refused:
            read_manifest(written(tmp_path, data))
        assert refused.value.seen == str(other)
        assert "9.9" in refused.value.next
        for command in ("verify", "report", "bisect"):
            assert call(command, tmp_path).code == 3


class TestBill:
    def test_it_is_cyclonedx(self, bundle: Path) -> None:
        validation = pytest.importorskip("cyclonedx.validation.json")
        from cyclonedx.schema import SchemaVersion

        judge = validation.JsonStrictValidator(SchemaVersion.V1_6)
        for manifest in [*(msgspec.convert(golden(n), Manifest) for n in GOLDEN), read_manifest(bundle)]:
            assert judge.validate_str(json.dumps(bom.bill(manifest))) is None

    def test_it_names_the_model_its_source_and_the_tools(self, bundle: Path, tmp_path: Path) -> None:
        result = call("report", bundle, "--bom", tmp_path / "bom.json", "--json")
        assert result.code == 0, result.err
        made, manifest = json.loads((tmp_path / "bom.json").read_text()), read_manifest(bundle)
        described = made["metadata"]["component"]
        assert (described["type"], described["name"]) == ("machine-learning-model", "net.onnx")
        assert manifest.mnn is not None
        assert described["hashes"] == [{"alg": "SHA-256", "content": manifest.mnn.sha256}]
        hashes = {h["content"] for c in made["components"] for h in c["hashes"]}
        assert hashes == {manifest.source.files[0].sha256, *(f.sha256 for f in manifest.artifact.files)}
        assert {t["name"]: t["version"] for t in made["metadata"]["tools"]["components"]} == manifest.tools
        assert {"name": "mnnprep:verdict", "value": "proven"} in described["properties"]
        assert described["modelCard"]["modelParameters"]["inputs"] == [
            {"format": "x: float32[batch, 4] NCHW"}
        ]
        assert any(
            m["type"] == "cosine"
            for m in described["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        )
        assert "timestamp" not in made["metadata"]

    def test_it_is_the_same_every_time_and_another_for_another_bundle(self, bundle: Path) -> None:
        manifest = read_manifest(bundle)
        assert bom.bill(manifest) == bom.bill(manifest)
        numbers = [
            bom.bill(m)["serialNumber"]
            for m in (manifest, *(msgspec.convert(golden(n), Manifest) for n in GOLDEN))
        ]
        assert len(set(numbers)) == 5

    def test_it_is_not_written_into_the_bundle(self, bundle: Path, tmp_path: Path) -> None:
        for target in (bundle / "bom.json", tmp_path / "nowhere" / "bom.json"):
            result = call("report", bundle, "--bom", target)
            assert result.code == 2
            assert "can't be written here" in result.err
        assert not (bundle / "bom.json").exists()


def test_the_module_prints_the_schema() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "mnnprep.bundle.schema"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == schema.schema_text()
