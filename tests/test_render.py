"""The tables in the terminal, and the doctor's diagnosis they show."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from mnnprep import deps
from mnnprep.bundle.manifest import Manifest
from mnnprep.cli import render
from mnnprep.commands.doctor import Converter, Doctor, diagnose
from mnnprep.commands.verify import Verification
from mnnprep.evidence.verdict import Verdict
from mnnprep.mnn.frontends import operator_count
from mnnprep.workers.confine import supported
from support.manifests import GOLDEN, HOSTILE, golden, hostile

ESCAPE = "\x1b"


def screen(width: int = 80, **environment: str) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=True, _environ={"COLUMNS": str(width), **environment}
    )


def verified(manifest: Manifest, verdict: Verdict) -> Verification:
    return Verification(bundle="out", verdict=verdict, recorded=manifest.verdict, evidence=manifest.evidence)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(console: Console) -> str:
    """What is shown, without styles and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(ESCAPE + r"\[[0-9;]*m", "", shown(console)))


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("width", [40, 80, 160])
def test_prepared_fits_the_width(name: str, width: int) -> None:
    console = screen(width, NO_COLOR="1")
    render.show_prepared(console, golden(name), Path("out/net"))
    lines = re.sub(ESCAPE + r"\[[0-9;]*m", "", shown(console)).splitlines()
    assert max(map(len, lines)) <= width
    assert name.upper() in shown(console)


def test_nothing_wraps_where_there_is_room() -> None:
    console = screen(NO_COLOR="1", TERM="dumb")
    render.show_prepared(console, golden("proven"), Path("out/net"))
    text = re.sub(ESCAPE + r"\[[0-9;]*m", "", shown(console))
    assert re.search(r"^  onnx-trace  opset 13  proven  kept *$", text, re.MULTILINE)


def test_prepared_says_what_was_tried_what_won_and_why_not() -> None:
    console = screen(NO_COLOR="1", TERM="dumb")
    render.show_prepared(console, golden("differs"), Path("out/net"))
    text = words(console)
    assert "onnx-trace opset 14 differs kept mnn_compare failed" in text
    assert "last_hidden_state MNN 0.0647 11.3 1 − 6.2e-4 15.2× too far" in text
    assert "sequence 128 0.4 % 17.8× too far not proven" in text
    assert "FAILED dimension:sequence" in text
    assert "unproven.mnn 17.7 MB" in text


def test_not_run_is_a_word_of_its_own() -> None:
    console = screen(NO_COLOR="1")
    render.show_prepared(console, golden("unproven"), Path("out"))
    text = words(console)
    assert "every output MNN – – – not run" in text
    assert "not run mnn_convert" in text


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(environment: dict[str, str]) -> None:
    console = screen(**environment)
    for name in GOLDEN:
        render.show_prepared(console, golden(name), Path("out"))
    assert not re.search(ESCAPE + r"\[[0-9;]*3[0-7]m", shown(console))
    assert max(map(len, re.sub(ESCAPE + r"\[[0-9;]*m", "", shown(console)).splitlines())) <= 80


def test_hostile_names_neither_style_nor_move_the_terminal() -> None:
    manifest = msgspec.convert(hostile(msgspec.to_builtins(golden("differs"))), Manifest)
    console = screen(120, NO_COLOR="1", TERM="dumb")
    render.show_prepared(console, manifest, Path("[red]out[/]"))
    render.show_verification(console, verified(manifest, Verdict.DIFFERS), Path("out"))
    render.show_inspection(
        console,
        {"kind": HOSTILE, "ops": {HOSTILE: 1}, "warnings": [HOSTILE], "details": {HOSTILE: [HOSTILE]}},
    )
    text = shown(console)
    assert ESCAPE + "[31m" not in text
    assert "\u202e" not in text
    assert "[red]out[/]" in text


def test_verification_lists_every_check() -> None:
    manifest = golden("refused")
    console = screen(NO_COLOR="1")
    render.show_verification(console, verified(manifest, manifest.verdict), Path("out"))
    text = shown(console)
    assert all(c.check in text for c in manifest.evidence)
    assert "FAILED" in text
    assert "not run" in text


def test_inspection_shows_plain_data() -> None:
    console = screen(NO_COLOR="1")
    render.show_inspection(
        console,
        {
            "kind": "onnx",
            "size": 2_500_000,
            "parameters": 1234567,
            "opset": None,
            "prepared": True,
            "signature": {
                "inputs": [
                    {"name": "x", "dtype": "float32", "shape": ["n", 3, None]},
                    {"name": "?", "dtype": None, "shape": None},
                ]
            },
            "ops": {f"Op{i}": i + 1 for i in range(20)},
            "leftovers": [],
            "warnings": ["no suffix"],
            "details": {"ir_version": 8, "empty": {}},
        },
    )
    text = words(console)
    assert "size 2.5 MB" in text
    assert "parameters 1,234,567" in text
    assert "x float32 [n, 3, ?]" in text
    assert "operators (210)" in text
    assert "and 8 more kinds" in text
    assert "no suffix" in text
    assert "ir_version 8" in text
    assert "empty" not in text


@pytest.fixture(scope="module")
def doctor() -> Doctor:
    return diagnose("/nowhere/MNNConvert")


def test_doctor_finds_the_package_and_its_frontends(doctor: Doctor) -> None:
    package, custom = doctor.converters
    assert package.works
    assert {"ONNX", "TF", "TFLITE", "CAFFE"} <= set(package.frontends)
    assert package.frontends["ONNX"] > 100
    assert custom == Converter(name="/nowhere/MNNConvert", works=False, reason="it does not exist")
    assert next(f for f in doctor.formats if f.kind == "onnx").works
    assert {*deps.CORE, *deps.TOOLS} < {p.module for p in doctor.packages}
    assert doctor.confinement.level == str(supported())
    assert msgspec.json.decode(msgspec.json.encode(doctor), type=Doctor) == doctor


def test_doctor_is_shown(doctor: Doctor) -> None:
    console = screen(NO_COLOR="1", TERM="dumb")
    render.show_doctor(console, doctor)
    text = shown(console)
    assert "ONNX model" in text
    assert "it does not exist" in text
    assert doctor.confinement.level in text


def test_doctor_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = deps.version
    monkeypatch.setattr(
        deps, "version", lambda module: None if module in ("torch", "safetensors") else real(module)
    )
    monkeypatch.setattr(deps, "installed", lambda module: module not in ("torch", "safetensors", "_tools"))
    found = diagnose()
    assert {f.kind: f.needs for f in found.formats}["torchscript"] == "pip install safetensors"
    assert not found.converters[0].works
    assert found.advice[0].startswith("pip install safetensors")
    assert any("mnnprep[torch]" in line for line in found.advice)


def executable(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "works", "reason"),
    [
        ("echo 'Dump TORCH support Ops'; echo 'Total: 172'", True, ""),
        ("echo hello", False, "named no operator"),
        ("kill -SEGV $$", False, "crashed with SIGSEGV"),
    ],
)
def test_doctor_asks_another_converter(tmp_path: Path, script: str, works: bool, reason: str) -> None:
    converter = diagnose(executable(tmp_path / "MNNConvert", script)).converters[-1]
    assert converter.works is works
    assert reason in converter.reason
    assert converter.frontends.get("TORCH") == (172 if works else None)


def test_a_file_that_is_no_program_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    assert diagnose(str(tmp_path / "text")).converters[-1].reason == "it is not executable"


def test_operator_counts() -> None:
    assert [operator_count(t) for t in ("Abs\nTotal: 169\n", "", "Total: many")] == [169, 0, 0]


def test_importing_the_views_brings_neither_rich_nor_jinja2() -> None:
    modules = "mnnprep.cli.render, mnnprep.bundle.report, mnnprep.bundle.writer, mnnprep.commands.doctor"
    code = (
        f"import sys, {modules}; print(sorted({{'rich', 'jinja2', 'MNN', 'torch', '_tools'}} &"
        " set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]", done.stderr
