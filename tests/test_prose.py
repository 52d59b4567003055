"""What frameworks say becomes part of the record without a directory of this machine, and without harm to
names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mnnprep.safety.error_text import message, said, without_paths


def test_a_file_that_is_there_keeps_its_name_alone(tmp_path: Path) -> None:
    file = tmp_path / "a directory" / "net.onnx"
    file.parent.mkdir()
    file.write_bytes(b"")
    for before, after in (
        ("", ""),
        ("Load model from ", " failed"),
        ("'", "':12"),
        ("(", ", line 3)"),
        ('File "', '", line 7'),
        ("=", "."),
    ):
        assert without_paths(f"{before}{file}{after}") == f"{before}net.onnx{after}"


def test_a_file_that_is_missing_from_a_directory_keeps_its_name_alone(tmp_path: Path) -> None:
    assert (
        without_paths(f"[Errno 2] No such file: '{tmp_path}/weights.bin'")
        == "[Errno 2] No such file: 'weights.bin'"
    )


def test_a_file_of_a_library_is_named_by_its_place_in_it() -> None:
    text = f'File "{json.__file__}", line 3; File "/x/y/site-packages/torch/nn/modules/conv.py", line 4'
    assert without_paths(text) == 'File "json/__init__.py", line 3; File "torch/nn/modules/conv.py", line 4'


def test_a_place_in_a_library_built_elsewhere_has_no_directory() -> None:
    assert (
        without_paths("/onnxruntime_src/onnxruntime/core/graph/model.cc:180 onnxruntime::Model")
        == "model.cc:180 onnxruntime::Model"
    )


@pytest.mark.parametrize(
    "text",
    [
        "onnxruntime at Gather /model/layers.0/Gather: out of bounds",
        "node '/encoder/pooler:0' and a/b/c, 1/2, //x, / and http://host/path/x.onnx",
        "Mul_1:/features/0/Mul",
        "",
    ],
)
def test_names_and_anything_else_with_slashes_stay(text: str) -> None:
    assert without_paths(text) == text


def test_a_name_stays_where_the_home_has_the_same_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    real = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: path == "/model" or real(path))
    assert without_paths("onnxruntime at MatMul /model/x: wrong") == "onnxruntime at MatMul /model/x: wrong"


def test_an_exception_without_text_says_its_class_and_the_first_line_is_cut() -> None:
    assert said(ValueError()) == message(ValueError()) == "ValueError"
    assert message(ValueError(f"{sys.prefix}/pyvenv.cfg is odd\nand more")) == "pyvenv.cfg is odd"


def test_a_long_text_without_paths_is_quick_to_read() -> None:
    text = "/a/b " * 20_000
    assert without_paths(text) == text
