"""Headers that lie, names that lead elsewhere, odd values, and targets that are no place for an output."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mnnprep import consolidate
from mnnprep.errors import UsageError
from support.command import call


def write(path: Path, header: dict[str, Any] | bytes, data: int = 0) -> Path:
    """A safetensors file with this header and *data* zero bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file({"a": np.ones(3, np.float32), "b": np.zeros(5, np.float32)}, path)
    return path


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, 24, "its offsets say 8 to 24"),
        ({"a": tensor([4], 0, 16), "b": tensor([4], 32, 48)}, 48, "its offsets say 32 to 48"),
        ({"a": tensor([4], 0, 16)}, 12, "describes"),
        ({"a": tensor([4], 0, 16)}, 20, "describes"),
        ({"a": tensor([-4], 0, 16)}, 16, "not known"),
        ({"a": tensor([4], -16, 0)}, 16, "its offsets say -16 to 0"),
        ({"a": tensor([1 << 62, 4], 0, 16)}, 16, "takes 73786976294838206464 bytes"),
        ({"a": tensor([1 << 70, 0], 0, 0), "b": tensor([1], 0, 4)}, 4, "not known"),
        ({"a": tensor([4], 0, 16, "F7")}, 16, "not known"),
        ({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 6]}}, 6, "truncated or damaged"),
        (b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4, "truncated or damaged"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "truncated or damaged"),
        ({}, 0, "not contain weights"),
    ],
)
def test_a_header_that_lies(header: dict[str, Any] | bytes, data: int, said: str, tmp_path: Path) -> None:
    result = call("consolidate", write(tmp_path / "lies.safetensors", header, data), "-o", tmp_path / "out")
    assert result.code == 3
    assert said in result.err
    assert not list(tmp_path.glob("out*"))


def test_a_pickle_that_would_reserve_memory(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")  # a memo of 2**31 entries
        archive.writestr("bomb/version", "3")
    result = call("consolidate", path, "-o", tmp_path / "out")
    assert result.code == 3
    assert "memo index" in result.err


@pytest.mark.parametrize(
    "name",
    [
        "../good.safetensors",
        "/etc/hostname",
        "a\0b",
        "sub/../../good.safetensors",
        "..",
        "C:\\good.safetensors",
    ],
)
def test_an_index_that_leads_out_of_its_directory(name: str, good: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    result = call("consolidate", inside, "-o", tmp_path / "out")
    assert result.code == 3
    assert not list(tmp_path.glob("out*"))


def test_names_of_every_kind(tmp_path: Path) -> None:
    names = ["../../x", "é\n\u202e", "n" * 100_000, "a\0b", " ", "重み"]
    path = write(
        tmp_path / "odd.safetensors",
        {n: tensor([1], 4 * i, 4 * i + 4) for i, n in enumerate(names)},
        4 * len(names),
    )
    assert call("consolidate", path, "-o", tmp_path / "out").code == 0
    assert set(load_file(tmp_path / "out")) == set(names)
    write(path, {"": tensor([1], 0, 4)}, 4)
    result = call("consolidate", path, "-o", tmp_path / "other")
    assert result.code == 2
    assert "empty name" in result.err


@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
def test_odd_values_change_their_dtype(target: str, tmp_path: Path) -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1e4, -0.0, 1e-45], np.float64)
    tensors = {
        "odd": odd,
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(3.3),
        "nan": np.full(3, np.nan),
        "whole": np.array(7),
    }
    save_file(tensors, tmp_path / "in.safetensors")
    assert (
        call("consolidate", tmp_path / "in.safetensors", "-o", tmp_path / "out", "--dtype", target).code == 0
    )
    from safetensors.torch import load_file as load_torch

    made = load_torch(tmp_path / "out")
    assert {n: tuple(t.shape) for n, t in made.items()} == {n: a.shape for n, a in tensors.items()}
    import torch

    dtype = getattr(torch, target)
    for name, array in tensors.items():
        right = torch.from_numpy(array).to(dtype) if array.dtype.kind == "f" else torch.from_numpy(array)
        assert torch.equal(made[name].nan_to_num(12345.0), right.nan_to_num(12345.0))
    rounding = {r["name"]: r for r in json.loads((tmp_path / "out.manifest.json").read_bytes())["rounding"]}
    assert rounding["nan"]["worst"] == 0.0
    assert rounding["odd"]["largest"] == 1e4


def test_targets_that_are_no_place_for_an_output(good: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.symlink("good.safetensors", tmp_path / "link")
    os.symlink("nowhere", tmp_path / "dangling")
    os.mkfifo(tmp_path / "fifo")
    before = good.read_bytes()
    for name, said in (
        ("directory", "is a directory"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("fifo", "not a regular file"),
        ("good.safetensors", "one of the inputs"),
        ("no/out", "does not exist"),
        ("x" * 250, "too long"),
        ("x" * 300, "too long"),
        ("a\0b", "can't be a file name"),
    ):
        result = call("consolidate", good, "-o", f"{tmp_path}/{name}", "--force")
        assert result.code == 2, (name, result.err)
        assert said in result.err
    os.link(good, tmp_path / "hard.safetensors")
    assert (
        "one of the inputs" in call("consolidate", good, "-o", tmp_path / "hard.safetensors", "--force").err
    )
    assert "not a regular file" in call("consolidate", tmp_path / "fifo", "-o", tmp_path / "out").err
    assert good.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {
        "directory",
        "link",
        "dangling",
        "fifo",
        "good.safetensors",
        "hard.safetensors",
    }


def test_a_directory_that_cannot_be_written_to(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every directory can be
    result = call("consolidate", good, "-o", tmp_path / "out")
    assert result.code == 3
    assert "can't be written to" in result.err


def test_a_base_without_an_adapter(good: Path, tmp_path: Path) -> None:
    result = call("consolidate", good, "-o", tmp_path / "out", "--base", good)
    assert result.code == 2
    assert "LoRA adapter" in result.err


@pytest.mark.parametrize("path", ["loop", "n" * 300, "no\0name", "absent/one.pt"])
def test_a_path_that_leads_to_nothing(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("back")
    (tmp_path / "back").symlink_to("loop")
    with pytest.raises(UsageError, match="do not exist"):
        consolidate(f"{tmp_path}/{path}", None)
