"""Signing a bundle with a key, and what is refused when it is not what was signed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from mnnprep import deps
from support.command import call

pytest.importorskip("model_signing.signing")
REFUSED, USAGE = 3, 2


def write_keys(directory: Path, curve: str = "SECP256R1", password: bytes | None = None) -> Path:
    """A key pair of PEM files in *directory*."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    directory.mkdir()
    key = ec.generate_private_key(getattr(ec, curve)())
    shield = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (directory / "private.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, shield)
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "public.pem").write_bytes(public)
    return directory


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("keys") / "mine")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, bundle: Path, keys: Path) -> Path:
    made = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("signed") / "bundle"))
    result = call("sign", made, "--key", keys / "private.pem")
    assert result.code == 0, result.err
    return made


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    shutil.copytree(signed, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_signed_bundle_is_proven_with_the_key_and_asks_for_it_without(signed: Path, keys: Path) -> None:
    with_key = call("verify", signed, "--key", keys / "public.pem", "--json")
    assert with_key.code == 0, with_key.err
    checks = {c["check"]: c for c in with_key.document()["evidence"]}
    assert checks["signature"]["status"] == "passed"
    assert checks["hashes"]["status"] == "passed"  # the signature is no foreign file
    without = call("verify", signed, "--json")
    assert without.code == 0
    told = next(c for c in without.document()["evidence"] if c["check"] == "signature")
    assert (told["status"], "--key" in told["reason"]) == ("not_run", True)


def test_the_standard_tool_reads_the_signature(signed: Path, keys: Path) -> None:
    import model_signing.verifying

    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys / "public.pem")
    config.verify(signed, signed / "bundle.sig")


def check(bundle: Path, key: Path) -> Any:
    """The signature check alone, which runs before anything else of `verify`."""
    from mnnprep.commands.sign import signature_check

    return signature_check(bundle, key)


def test_one_byte_of_any_file_is_refused(copy: Path, keys: Path) -> None:
    from mnnprep.errors import RefusedError

    files = [
        p for p in sorted(copy.rglob("*")) if p.is_file() and p.name != "bundle.sig" and p.stat().st_size
    ]
    assert {"manifest.json", "report.html", "model.mnn", "0.npz", "input.json"} <= {p.name for p in files}
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(RefusedError, match="not what was signed") as refused:
            check(copy, keys / "public.pem")
        assert file.name in refused.value.seen
        file.write_bytes(whole)
    assert check(copy, keys / "public.pem")[0].status.value == "passed"


def test_a_file_more_or_less_and_a_link_are_refused(copy: Path, keys: Path) -> None:
    from mnnprep.errors import RefusedError

    for name in ("more", ".gitignore", "cases/.git"):
        (copy / name).write_text("")
        with pytest.raises(RefusedError, match="signed"):
            check(copy, keys / "public.pem")
        (copy / name).unlink()
    (copy / "link").symlink_to("model.mnn")
    with pytest.raises(RefusedError, match="signed"):
        check(copy, keys / "public.pem")
    (copy / "link").unlink()
    (copy / "report.html").unlink()
    with pytest.raises(RefusedError, match="signed"):
        check(copy, keys / "public.pem")


def test_another_key_a_missing_and_a_damaged_signature_are_exit_3(
    copy: Path, keys: Path, tmp_path: Path
) -> None:
    other = write_keys(tmp_path / "other")
    result = call("verify", copy, "--key", other / "public.pem", "--json")
    assert (result.code, result.document()["error"]["kind"]) == (REFUSED, "refused")
    signature = copy / "bundle.sig"
    whole = json.loads(signature.read_bytes())
    payload = json.loads(base64.b64decode(whole["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"] = payload["predicate"]["resources"][1:]
    forged = {
        **whole,
        "dsseEnvelope": {
            **whole["dsseEnvelope"],
            "payload": base64.b64encode(json.dumps(payload).encode()).decode(),
        },
    }
    for damaged in (
        b"",
        b"{",
        b"{}",
        b"[]",
        b"\xff\xfe",
        json.dumps(forged).encode(),
        signature.read_bytes()[:-40],
    ):
        signature.write_bytes(damaged)
        result = call("verify", copy, "--key", keys / "public.pem")
        assert result.code == REFUSED, damaged
        assert "Traceback" not in result.err
    signature.unlink()
    result = call("verify", copy, "--key", keys / "public.pem")
    assert result.code == REFUSED
    assert "not signed" in result.err


def test_keys_that_are_none_are_exit_2(copy: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key")
    odd = write_keys(tmp_path / "odd", "SECP256K1")
    for name in (tmp_path / "nothing.pem", tmp_path / "text.pem", odd / "private.pem", keys / "public.pem"):
        assert call("sign", copy, "--key", name).code == USAGE, name
    for name in (tmp_path / "nothing.pem", tmp_path / "text.pem", odd / "public.pem", keys / "private.pem"):
        assert call("verify", copy, "--key", name).code == USAGE, name


def test_a_key_with_a_password_takes_it_from_the_environment(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = write_keys(tmp_path / "locked", password=b"open sesame")
    assert call("sign", copy, "--key", locked / "private.pem").code == USAGE
    monkeypatch.setenv("MNNPREP_KEY_PASSWORD", "wrong")
    assert call("sign", copy, "--key", locked / "private.pem").code == USAGE
    monkeypatch.setenv("MNNPREP_KEY_PASSWORD", "open sesame")
    assert call("sign", copy, "--key", locked / "private.pem").code == 0
    assert check(copy, locked / "public.pem")[0].status.value == "passed"


def test_a_bundle_that_is_not_as_its_manifest_says_is_not_signed(copy: Path, keys: Path) -> None:
    (copy / "model.mnn").write_bytes(b"another")
    result = call("sign", copy, "--key", keys / "private.pem")
    assert result.code == REFUSED
    assert "model.mnn has other bytes" in result.err


def test_a_signature_that_leaves_a_file_out_is_refused(copy: Path, keys: Path) -> None:
    """Made with the right key, by another tool, which was told to pass a file over."""
    import model_signing.hashing
    import model_signing.signing

    from mnnprep.errors import RefusedError

    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["bundle.sig", "model.mnn"])
    config = (
        model_signing.signing.Config()
        .set_hashing_config(hashing)
        .use_elliptic_key_signer(private_key=keys / "private.pem")
    )
    config.sign(copy, copy / "bundle.sig")
    with pytest.raises(RefusedError, match="leaves files out") as refused:
        check(copy, keys / "public.pem")
    assert refused.value.seen == "model.mnn"


def test_signing_and_verifying_open_no_socket(
    copy: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert call("sign", copy, "--key", keys / "private.pem").code == 0
    assert check(copy, keys / "public.pem")[0].status.value == "passed"


def test_without_the_extra_the_error_names_it(
    copy: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deps.installed
    monkeypatch.setattr(deps, "installed", lambda module: module != "model_signing" and real(module))
    for command, key in (("sign", "private.pem"), ("verify", "public.pem")):
        result = call(command, copy, "--key", keys / key)
        assert result.code == REFUSED
        assert "mnnprep[sign]" in result.err
