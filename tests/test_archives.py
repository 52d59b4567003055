"""ZIP archives are judged by their directory, and nothing of a refused one is inflated."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mnnprep.errors import RefusedError
from mnnprep.formats.tflite import dense
from mnnprep.model.files import load_arrays, read_array, save_arrays
from mnnprep.safety import archives
from mnnprep.safety.archives import open_archive, read_member


def _archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as raised, open_archive(path):
        pass
    return str(raised.value)


def _sizes_declared(path: Path, size: int, *, local: bool = True) -> Path:
    """The archive of one member, whose directory (and own header) declares *size* bytes."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    if local:
        struct.pack_into("<I", data, 22, size)
    path.write_bytes(data)
    return path


def test_an_honest_archive_opens_and_its_members_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, zeros=np.zeros(1 << 23))  # 64 MiB in 64 KB
    with open_archive(path) as archive:
        assert len(read_member(archive, "zeros.npy", 1 << 27)) == (64 << 20) + 128
        with pytest.raises(RefusedError, match="too large"):
            read_member(archive, "zeros.npy", 1 << 20)
        with pytest.raises(RefusedError, match="damaged"):
            read_member(archive, "ones.npy", 1 << 20)


def test_an_archive_that_would_unfold_beyond_the_budget_is_refused_before_it_does(tmp_path: Path) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    kernel = b"".join([packer.compress(bytes(1 << 24)) for _ in range(13)]) + packer.flush()
    path = _archive(tmp_path / "bomb.npz", {}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in "abc":
            archive.writestr(name, kernel)
    data = bytearray(path.read_bytes())
    for signature, method, size in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            struct.pack_into("<H", data, at + method, zipfile.ZIP_DEFLATED)
            struct.pack_into("<I", data, at + size, 208 << 20)
    path.write_bytes(data)
    assert path.stat().st_size < 1 << 20
    assert f"{624 << 20}, and {512 << 20} are allowed" in _refusal(path)


def test_a_size_that_deflate_can_not_reach_is_refused(tmp_path: Path) -> None:
    path = _sizes_declared(_archive(tmp_path / "a.zip", {"a": bytes(100)}), 1 << 20)
    assert "more than" in _refusal(path)


def test_a_stored_member_of_another_size_than_it_takes_is_refused(tmp_path: Path) -> None:
    path = _sizes_declared(_archive(tmp_path / "a.zip", {"a": bytes(100)}, zipfile.ZIP_STORED), 5)
    assert "declares 5 bytes, and 100 are stored" in _refusal(path)


def test_a_member_is_inflated_to_its_declared_size_and_no_further(tmp_path: Path) -> None:
    path = _sizes_declared(_archive(tmp_path / "a.zip", {"a": bytes(1 << 20)}), 1000)
    with open_archive(path) as archive, pytest.raises(RefusedError, match="damaged"):
        read_member(archive, "a", 1 << 30)


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"a": bytes(100), "b": bytes(100)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\x03\x04", 4)
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, 18, 200)  # the first reaches into the second
    struct.pack_into("<I", data, 22, 200)
    struct.pack_into("<II", data, directory + 20, 200, 200)
    path.write_bytes(data)
    assert second < 200
    assert "overlaps the next one" in _refusal(path)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (30, b"x", "another name"),
        (8, b"\x08", "another way"),
        (22, b"\x07", "other sizes"),
        (0, b"XX", "no header of its own"),
    ],
)
def test_a_local_header_that_contradicts_the_directory_is_refused(
    tmp_path: Path, at: int, value: bytes, said: str
) -> None:
    path = _archive(tmp_path / "a.zip", {"a": bytes(100)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    assert said in _refusal(path)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"two")
    assert "the name of another one" in _refusal(path)


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"a": bytes(100)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted" in _refusal(path)
    assert "method 14" in _refusal(_archive(tmp_path / "b.zip", {"a": bytes(100)}, zipfile.ZIP_LZMA))


def test_too_many_members_and_too_large_a_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _archive(tmp_path / "a.zip", {str(i): b"" for i in range(20)})
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 19)
    assert "20, and 19 are taken" in _refusal(path)
    monkeypatch.setattr(archives, "DIRECTORY_LIMIT", 900)
    assert "its directory takes" in _refusal(path)


def test_what_is_no_archive_or_ends_early_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"a": bytes(100)})
    inner = io.BytesIO(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-10])
    assert "truncated or damaged" in _refusal(path)
    path.write_bytes(b"PK\x03\x04" + bytes(50) + inner.getvalue())
    assert "an archive inside it" in _refusal(path)
    assert "truncated or damaged" in _refusal(tmp_path / "absent")


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ("(1099511627776,)", "'<f4'"),
        ("(4294967296, 4294967296)", "'<f4'"),
        ("(-1,)", "'<f4'"),
        ("(3,)", "'|O'"),
        ("(3,)", "'<V0'"),
        ("(9223372036854775808,)", "'<f4'"),
        ("(" * 3000 + "3,)", "'<f4'"),
        ("(3, 'a')", "'<f4'"),
    ],
)
def test_an_array_whose_shape_is_not_that_of_its_bytes_is_refused_before_memory_is_taken(
    tmp_path: Path, request: pytest.FixtureRequest, shape: str, descr: str
) -> None:
    data = _header(shape, descr) + bytes(8)
    path = _archive(tmp_path / "a.npz", {"x.npy": data})
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    for read in (lambda: load_arrays(path), lambda: read_array(io.BytesIO(data), len(data))):
        with pytest.raises(ValueError, match=r"array|header|shape"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 1 << 26


def test_arrays_come_out_as_they_went_in(tmp_path: Path) -> None:
    given = {
        "inputs/../x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "s": np.float64(3),
        "e": np.zeros((0, 3), bool),
        "c": np.ones(2, np.complex64),
    }
    save_arrays(tmp_path / "a.npz", {name: np.asarray(array) for name, array in given.items()})
    np.savez_compressed(tmp_path / "b.npz", x=given["f"])
    found = load_arrays(tmp_path / "a.npz")
    assert list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype
        assert found[name].flags.writeable
    np.testing.assert_array_equal(load_arrays(tmp_path / "b.npz")["x"], given["f"])
    with pytest.raises(ValueError, match="magic"):
        load_arrays(_archive(tmp_path / "c.npz", {"x.npy": b"no array"}))


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ([1 << 20, 1 << 20], [(0, 1 << 20), (0, 1 << 20)]),  # what would be written out
        ([1 << 10, 1 << 10], [(0, 1 << 40), (0, 1)]),  # levels that no shape has
        ([1 << 10, 1 << 10], [(0, -5), (0, 1)]),
        ([1 << 10, 1 << 10], [(0, 1 << 10), (0, 1 << 12)]),
        ([4, 4], [(1, [0, 1 << 40]), (0, 4)]),
        ([4, 4], [(1, [9, 0]), (0, 4)]),
    ],
)
def test_a_sparse_tensor_that_unfolds_without_bound_is_refused(
    shape: list[int], levels: list[tuple[int, Any]]
) -> None:
    def metadata(kind: int, size: Any) -> SimpleNamespace:
        if kind == 0:
            return SimpleNamespace(format=0, denseSize=size)
        return SimpleNamespace(
            format=1, arraySegments=SimpleNamespace(values=size), arrayIndices=SimpleNamespace(values=[0])
        )

    sparsity = SimpleNamespace(
        traversalOrder=[0, 1], blockMap=None, dimMetadata=[metadata(*level) for level in levels]
    )
    with pytest.raises(ValueError, match=r"unfold|level"):
        dense._expanded(np.ones(4, np.float32), shape, sparsity)
