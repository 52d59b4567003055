"""Checkpoints behind HTTP and S3 servers on loopback: read by ranges, and only the bytes that are needed."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from safetensors.torch import load_file, save_file  # noqa: E402

from mnnprep import consolidate  # noqa: E402
from mnnprep.errors import RefusedError, UsageError  # noqa: E402
from mnnprep.weights.files import RemoteFile  # noqa: E402

WEIGHTS, MOMENTS = 3 << 20, 24 << 20  # bytes of what is wanted, and of what is not


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges, and counts the bytes it sends; ``ranges`` off, it sends everything."""

    sent = 0
    ranges = True

    def do_GET(self) -> None:
        whole = (
            (Path(self.directory) / self.path.lstrip("/")).read_bytes()
            if (Path(self.directory) / self.path.lstrip("/")).is_file()
            else None
        )
        if whole is None:
            self.send_error(404)
            return
        found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (
            (int(found[1]), int(found[2] or len(whole) - 1) + 1)
            if found and type(self).ranges
            else (0, len(whole))
        )
        self.send_response(206 if found and type(self).ranges else 200)
        self.send_header("Content-Length", str(min(end, len(whole)) - begin))
        if type(self).ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(whole)}")
        self.end_headers()
        type(self).sent += min(end, len(whole)) - begin
        self.wfile.write(whole[begin:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def state() -> dict[str, Any]:
    torch.manual_seed(6)
    return {f"layer{i}.weight": torch.randn(512, 512) for i in range(WEIGHTS >> 20)}


def fill(directory: Path, state: dict[str, Any]) -> None:
    import torch.distributed.checkpoint as dcp

    moments = {f"m{i}": torch.ones(1 << 18) for i in range(MOMENTS >> 20)}
    torch.save({"state_dict": state, "optimizer": moments}, directory / "last.ckpt")
    save_file(state, directory / "model.safetensors")
    (directory / "run").mkdir()
    dcp.save(
        {"model": state, "optimizer": {"state": moments}}, checkpoint_id=str(directory / "run"), no_dist=True
    )


@pytest.fixture
def server(tmp_path: Path, state: dict[str, Any]) -> Iterator[str]:
    directory = tmp_path / "served"
    directory.mkdir()
    fill(directory, state)
    Handler.sent, Handler.ranges = 0, True
    listener = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(directory))
    )
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    listener.server_close()


def assert_equal(path: Path, right: dict[str, Any]) -> None:
    found = load_file(path)
    assert found.keys() == right.keys()
    assert all(torch.equal(found[name], value) for name, value in right.items())


@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors", "run"])
@pytest.mark.parametrize("hashed", [True, False])
def test_http_by_ranges(tmp_path: Path, server: str, state: dict[str, Any], name: str, hashed: bool) -> None:
    made = consolidate(f"{server}/{name}", tmp_path / "out.safetensors", hashed=hashed)
    assert_equal(tmp_path / "out.safetensors", state)
    assert WEIGHTS <= Handler.sent < WEIGHTS + (1 << 20), f"{Handler.sent} bytes were sent"
    if name == "last.ckpt":
        assert [file.sha256 for file in made.inputs] == [None]  # not all of it was read
    elif name == "model.safetensors" and hashed:
        import hashlib

        assert made.inputs[0].sha256 == hashlib.sha256((tmp_path / "served" / name).read_bytes()).hexdigest()


def test_http_refusals(tmp_path: Path, server: str) -> None:
    with pytest.raises(UsageError, match="do not exist"):
        consolidate(f"{server}/absent.pt", None)
    Handler.ranges = False
    with pytest.raises(RefusedError):
        consolidate(f"{server}/last.ckpt", None)


def test_s3(tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
        s3fs.S3FileSystem.clear_instance_cache()
        directory = tmp_path / "local"
        directory.mkdir()
        fill(directory, state)
        bucket = s3fs.S3FileSystem(endpoint_url=endpoint)
        bucket.mkdir("models")
        bucket.put(str(directory), "models/net", recursive=True)
        fetched = 0
        fetch = RemoteFile._fetch

        def counted(self: RemoteFile, begin: int, end: int) -> bytes:
            nonlocal fetched
            data = fetch(self, begin, end)
            fetched += len(data)
            return data

        monkeypatch.setattr(RemoteFile, "_fetch", counted)
        for name in ("last.ckpt", "model.safetensors", "run"):
            fetched = 0
            consolidate(f"s3://models/net/{name}", tmp_path / "out.safetensors", force=True)
            assert_equal(tmp_path / "out.safetensors", state)
            assert WEIGHTS <= fetched < WEIGHTS + (1 << 20), f"{name}: {fetched} bytes were read"
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
