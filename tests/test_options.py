"""One table of options: the command line, Python, the request and the recorded command follow from it."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import mnnprep
from mnnprep.bundle.manifest import Manifest
from mnnprep.cli.options import chosen
from mnnprep.errors import UsageError
from mnnprep.model.derived_options import COMPARE
from mnnprep.model.flags import Flags, takes, words_of
from mnnprep.model.options import PREPARE, request_of
from mnnprep.model.request import Request

PACKAGE = Path(mnnprep.__file__).parent

ROW = """
    glow: Annotated[
        int,
        Flag("--glow", WHOLE, "How bright it is.", default=7, metavar="LUMEN", least=1),
    ]
"""
MADE_UP = """
import inspect, sys
from pathlib import Path
from click.testing import CliRunner
import mnnprep
from mnnprep.cli.main import cli
from mnnprep.model.messages import Source
from mnnprep.model.request import Request
from mnnprep.workers import launch
from mnnprep.commands import prepare as pipeline
from mnnprep.commands.command_line import command_line

asked = []
class Asked(Exception): pass
def prepare(request, *_, **__):
    asked.append(request)
    raise Asked
pipeline.prepare = prepare
launch.prestart = lambda worker: None

assert Path(mnnprep.__file__).is_relative_to(sys.argv[1])
told = CliRunner().invoke(cli, ["prepare", "--help"]).output
assert "--glow LUMEN" in told and "How bright it is.  [default: 7; x>=1]" in told, told
for words in (["--glow", "11"], []):
    result = CliRunner().invoke(cli, ["prepare", "net.onnx", "-o", "out", *words])
    assert isinstance(result.exception, Asked), result.output
refused = CliRunner().invoke(cli, ["prepare", "net.onnx", "-o", "out", "--glow", "0"])
assert "Invalid value for '--glow'" in refused.output, refused.output
try:
    mnnprep.prepare("net.onnx", "out", glow=12)
except Asked:
    pass
try:
    mnnprep.prepare("net.onnx", "out", glov=12)
except TypeError as error:
    assert "'glow'" in str(error)
assert inspect.signature(mnnprep.prepare).parameters["glow"].default == 7
assert "glow: How bright it is." in mnnprep.prepare.__doc__
assert [request.glow for request in asked] == [11, 7, 12]
source = Source(kind="onnx", path="net.onnx")
assert [command_line(request, source)[2:] for request in asked] == [["--glow", "11"], [], ["--glow", "12"]]
"""


def inserted(file: Path, anchor: str, text: str) -> None:
    """Put *text* into *file* before the one place where *anchor* stands."""
    whole = file.read_text()
    assert whole.count(anchor) == 1
    file.write_text(whole.replace(anchor, text.strip("\n") + "\n" + anchor))


def test_a_new_option_is_one_entry_and_the_field_that_it_fills(tmp_path: Path) -> None:
    """In a copy of the package: the command line and Python take it, the request holds it, and the recorded
    command gives it back.
    """
    copy = tmp_path / "mnnprep"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    inserted(copy / "model" / "options.py", "\n\nPREPARE = flags_of(", ROW)
    inserted(copy / "model" / "request.py", "\n\ndef make_wants(", "    glow: int = 7")
    done = subprocess.run(
        [sys.executable, "-c", MADE_UP, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def defaults(flags: Flags) -> dict[str, object]:
    return {name: flag.default for name, flag in flags.items()}


def test_what_is_not_given_is_the_requests_own_default() -> None:
    plain = Request(source="net.onnx")
    assert request_of("net.onnx", {}) == plain
    assert request_of("net.onnx", defaults(PREPARE)) == plain
    assert request_of("net.onnx", dict.fromkeys(PREPARE)) == plain
    assert words_of(plain, PREPARE) == []


def test_every_field_of_the_request_has_one_option() -> None:
    filled = [flag.place for flag in PREPARE.values()]
    assert len(set(filled)) == len(filled)
    plain = Request(source="x")
    groups = ("wants", "limits", "precision")
    fields = {("", f) for f in Request.__struct_fields__ if f not in ("source", *groups)}
    fields |= {(group, f) for group in groups for f in getattr(plain, group).__struct_fields__}
    assert set(filled) == fields


def test_compare_takes_options_of_prepare() -> None:
    assert set(COMPARE) < set(PREPARE)
    assert {name: flag.type for name, flag in COMPARE.items()} == {
        name: PREPARE[name].type for name in COMPARE
    }
    assert "FIRST" in COMPARE["inputs"].help
    assert "FIRST" not in PREPARE["inputs"].help


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ({"dims": {"n": (1, 4)}}, ["--dim", "n=1:4"]),
        ({"dims": ["n=1:4"]}, ["--dim", "n=1:4"]),
        ({"ranges": {"x": (0, 0.5)}}, ["--range", "x=0.0:0.5"]),
        ({"inputs": "x=float32[1]"}, ["--input", "x=float32[1]"]),
        ({"inputs": iter(["x=float32[1]"])}, ["--input", "x=float32[1]"]),
        ({"factory_args": {"classes": 10}}, ["--factory-arg", "classes=10"]),
        ({"memory": 2**31}, ["--memory", "2147483648"]),
        ({"memory": "2GB"}, ["--memory", "2147483648"]),
        ({"outputs": ["a", "b"]}, ["--outputs", "a,b"]),
        ({"outputs": "a, b"}, ["--outputs", "a,b"]),
        ({"weights": Path("a/b.pt")}, ["--weights", "b.pt"]),
        ({"samples": Path("a/b")}, ["--samples", "b"]),
        ({"repairs": None}, []),
        ({"repairs": ()}, ["--no-repair"]),
        ({"repairs": ["a", "b"]}, ["--repair", "a", "--repair", "b"]),
        ({"tflite_precision": "int8"}, ["--precision", "int8"]),
        ({"weight_bits": 4, "budget": 30.0}, ["--weight-bits", "4", "--budget", "30.0"]),
        ({"metrics": "mse=0.1"}, ["--metric", "mse=0.1"]),
        ({"timeout": 9.0}, []),
        ({"fp16": True, "trust": True, "seed": 3}, ["--seed", "3", "--fp16", "--trust"]),
    ],
)
def test_python_and_the_command_line_ask_for_the_same(python: dict[str, Any], words: list[str]) -> None:
    from mnnprep.cli.prepare import command

    request = request_of("net.onnx", python)
    assert words_of(request, PREPARE) == words
    context = command.make_context("prepare", ["net.onnx", "-o", "out", *words])
    again = request_of("net.onnx", chosen(PREPARE, context.params))
    assert words_of(again, PREPARE) == words


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weight_bits": 3}, "--weight-bits takes"),
        ({"weight_bits": "many"}, "a whole number could not be read"),
        ({"budget": 30.0}, "--budget goes with"),
        ({"preprocess": "scale=255"}, "--preprocess goes with --samples"),
        ({"dims": {"n": (4, 1)}}, "empty range"),
        ({"seed": -1}, "a seed is below 0"),
        ({"timeout": 0}, "a time limit"),
        ({"memory": -1}, "a memory limit"),
        ({"metrics": 3}, "not iterable"),
    ],
)
def test_a_wrong_value_is_refused_in_python_as_on_the_command_line(
    options: Mapping[str, object], what: str
) -> None:
    with pytest.raises(TypeError if what == "not iterable" else UsageError, match=what):
        request_of("net.onnx", options)


def test_no_repair_excludes_repair() -> None:
    from mnnprep.cli.prepare import command

    context = command.make_context("prepare", ["net.onnx", "-o", "out", "--no-repair", "--repair", "a"])
    with pytest.raises(UsageError, match="--no-repair and --repair contradict each other"):
        chosen(PREPARE, context.params)


class TestPython:
    @pytest.mark.parametrize(
        ("function", "flags", "own"),
        [
            (mnnprep.prepare, PREPARE, ["source", "output", "example", "force", "tell"]),
            (mnnprep.compare, COMPARE, ["first", "second", "tell"]),
        ],
    )
    def test_the_signature_and_the_docstring_show_every_option(
        self, function: Any, flags: Flags, own: list[str]
    ) -> None:
        parameters = inspect.signature(function).parameters
        assert list(parameters) == own + list(flags)
        assert parameters["seed"].default == 0
        assert parameters["seed"].annotation is int
        told = inspect.getdoc(function) or ""
        assert all(f"\n    {flag.name}: " in told for flag in flags.values())
        options = told.partition("\nOptions:\n")[2]
        assert "--" not in options

    @pytest.mark.parametrize(
        ("name", "close"), [("sampels", "'samples'"), ("exmaple", "'example'"), ("precision", "_precision'")]
    )
    def test_an_unknown_keyword_is_told_the_one_most_like_it(self, name: str, close: str) -> None:
        with pytest.raises(TypeError, match=rf"prepare\(\) has no option '{name}'; did you mean .*{close}"):
            mnnprep.prepare("net.onnx", "out", **{name: 1})  # type: ignore[arg-type]

    def test_one_that_is_like_none_is_refused_too(self) -> None:
        with pytest.raises(TypeError, match=r"compare\(\) has no option 'zzz'$"):
            mnnprep.compare("a", "b", zzz=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="no such option: weights"):
            request_of("", {"weights": "x"}, COMPARE)

    def test_the_options_arrive(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked: list[Request] = []
        monkeypatch.setattr(
            "mnnprep.commands.prepare.prepare", lambda request, *_, **__: asked.append(request)
        )

        def agree(reference: object, outputs: object) -> float:
            return 1.0

        result: Manifest | None = mnnprep.prepare(
            tmp_path / "net.onnx", tmp_path / "out", opset=17, metrics=["top1=0.5", agree], dims={"n": (1, 2)}
        )
        assert result is None
        (request,) = asked
        assert (request.source, request.opset) == (str(tmp_path / "net.onnx"), 17)
        assert [metric.own for metric in request.metrics] == [False, True]
        assert [str(dim.name) for dim in request.wants.dims] == ["n"]

    def test_compare_takes_what_its_command_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mnnprep import api

        asked: dict[str, Any] = {}
        monkeypatch.setattr(api, "_compare", lambda *_, **options: asked.update(options))
        mnnprep.compare("a", "b", signature="s", outputs=["y"], dims={"n": (1, 2)}, timeout=5)
        assert (asked["signature"], asked["outputs"]) == ("s", ("y",))
        assert asked["wants"].dims[0].max == 2
        assert asked["limits"].timeout == 5

    def test_the_decorator_leaves_a_function_as_it_is(self) -> None:
        @takes(COMPARE)
        def function(first: str, **options: object) -> tuple[str, dict[str, object]]:
            """What it does."""
            return first, options

        assert function("a", seed=3) == ("a", {"seed": 3})
        assert (function.__doc__ or "").startswith("What it does.\n\nOptions:\n    inputs: ")
