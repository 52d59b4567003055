"""Names and sizes that nothing can hold are refused where they are met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mnnprep.bundle import manifest
from mnnprep.errors import RefusedError
from mnnprep.formats.torch import script_code
from mnnprep.model.files import LONGEST_NAME, load_arrays, save_arrays
from mnnprep.model.signature import parse_input
from mnnprep.reference.inputs import synthesize
from mnnprep.weights.header import layout


def test_a_name_that_an_archive_can_not_hold(tmp_path: Path) -> None:
    fits = {"n" * LONGEST_NAME: np.zeros(1)}
    save_arrays(tmp_path / "a.npz", fits)
    assert list(load_arrays(tmp_path / "a.npz")) == list(fits)
    with pytest.raises(RefusedError, match="too long to be stored"):
        save_arrays(tmp_path / "b.npz", {"n" * (LONGEST_NAME + 1): np.zeros(1)})
    assert not (tmp_path / "b.npz").exists()


def test_a_name_that_utf_8_does_not_have() -> None:
    with pytest.raises(RefusedError, match="can't be written as UTF-8") as caught:
        layout([("a\ud800b", "float32", (1,))], {})
    assert "ud800" in caught.value.seen


def test_an_input_that_no_memory_holds() -> None:
    with pytest.raises(RefusedError, match="the input x is too large"):
        synthesize((parse_input("x=float32[1,3,1073741824,1073741824]"),), {}, 0, {})


def test_a_manifest_that_prepare_does_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LARGEST", 10)
    (tmp_path / "manifest.json").write_text('{"schema": 1}')
    with pytest.raises(RefusedError, match="larger than any"):
        manifest.read_manifest(tmp_path)


def test_more_code_than_a_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_code, "MOST_CODE", 10)
    (fault,) = script_code.script_faults({"code/a.py": b"x = 1\n", "code/b.py": b"y = 2\n"})
    assert "12 bytes of code" in fault.what
