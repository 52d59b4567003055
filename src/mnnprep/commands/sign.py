"""Signing a bundle, and telling whether one is as its signer left it.

It is done by OpenSSF model signing with a key of one's own.

The signature is ``bundle.sig`` inside the bundle, a Sigstore bundle (https://docs.sigstore.dev/about/bundle/)
over an in-toto statement that names every other file by its sha256.  Keys are elliptic-curve PEM files
(P-256, P-384, P-521); nothing is asked of a network.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from mnnprep import deps
from mnnprep.bundle.manifest import SIGNATURE_NAME, read_manifest
from mnnprep.commands.auditing.files import present
from mnnprep.commands.verify import Verification, audited, verify
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.files import atomic_write
from mnnprep.safety.error_text import message
from mnnprep.safety.leftovers import Scratch

PASSWORD_VARIABLE = "MNNPREP_KEY_PASSWORD"


def sign(bundle: Path, key: Path) -> Path:
    """Sign *bundle* with the private *key*.

    Its password, if it has one, is in the environment variable MNNPREP_KEY_PASSWORD.

    Returns the signature's path; one that is there is replaced.  Nothing is run: `verify` says whether the
    model is right.

    Raises:
        UsageError: there is no bundle, or no such key.
        RefusedError: the bundle is not as its manifest says, or the extra `sign` is not installed.
    """
    manifest = read_manifest(bundle)
    bad = [c for c in audited(bundle, manifest) if c.status is Status.FAILED]
    if bad:
        told = "; ".join(f"{c.check}: {c.reason}" for c in bad)
        raise RefusedError(
            "the bundle does not match its manifest, so it was not signed",
            seen=told,
            next=f"see mnnprep verify {bundle}",
        )
    signing = _library("signing")
    password = os.environ.get(PASSWORD_VARIABLE)
    config = signing.Config().set_hashing_config(_hashing())
    try:
        config.use_elliptic_key_signer(
            private_key=_key(key), password=password.encode() if password else None
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_key("private", key, error) from error
    with Scratch() as scratch, contextlib.redirect_stdout(sys.stderr):
        config.sign(bundle.resolve(), scratch / SIGNATURE_NAME)
        with atomic_write(bundle / SIGNATURE_NAME) as file:
            file.write((scratch / SIGNATURE_NAME).read_bytes())
    return bundle / SIGNATURE_NAME


def signature_check(bundle: Path, key: Path | None) -> list[Check]:
    """Make the ``signature`` check of a bundle that is signed, or must be since a *key* is given.

    The key is a public one. Returns None for another bundle.

    Raises:
        UsageError: there is no such key.
        RefusedError: the bundle is not signed, or not with this key, or is not what was signed: nothing of it
        is to be used.
    """
    path = bundle / SIGNATURE_NAME
    if key is None:
        unread = (
            "the bundle is signed, but the signature was not checked: give the signer's public key with --key"
        )
        return [catalog.SIGNATURE.not_run(unread, required=False)] if os.path.lexists(path) else []
    name = _key(key)
    if path.is_symlink() or not path.is_file():
        raise RefusedError(
            "the bundle is not signed",
            seen=f"no file {SIGNATURE_NAME}",
            next="get it from its signer, or leave --key out",
        )
    verifying = _library("verifying")
    config = verifying.Config().set_hashing_config(_hashing())
    try:
        config.use_elliptic_key_verifier(public_key=name)
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_key("public", key, error) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):
            config.verify(bundle.resolve(), path)
        unsigned = sorted(set(present(bundle)) - {SIGNATURE_NAME} - _signed(path))
    except (
        Exception
    ) as error:  # InvalidSignature, ValueError for what differs, and what a damaged file makes a parser raise
        raise RefusedError(
            "the bundle is not what was signed with this key",
            seen=message(error),
            next="get the bundle from its signer, or ask for the right public key",
        ) from error
    if unsigned:
        raise RefusedError(
            "the signature leaves files out",
            seen=", ".join(unsigned[:5]),
            next="have the bundle signed again with `mnnprep sign`",
        )
    return [catalog.SIGNATURE.passed(subject=key.name)]


def verify_signed(bundle: Path, key: Path | None, **how: Any) -> Verification:
    """:func:`mnnprep.commands.verify.verify` after the signature.

    A bundle that is not as it was signed is not even read. Raises as both.
    """
    signature = signature_check(bundle, key)
    found = verify(bundle, **how)
    return msgspec.structs.replace(found, evidence=[*signature, *found.evidence])


def _signed(path: Path) -> set[str]:
    """The files that a signature names."""
    payload = json.loads(base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]))
    return {str(resource["name"]) for resource in payload["predicate"]["resources"]}


def _library(module: str) -> Any:
    deps.require("model_signing")
    return deps.require(f"model_signing.{module}")


def _hashing() -> Any:
    """Every file by its sha256 but the signature itself; a symbolic link is an error."""
    return _library("hashing").Config().set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)


def _key(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(
            "there is no key at this path",
            seen=str(path),
            next="give a PEM file, for example one that `openssl ecparam` wrote",
        )
    return path


def _no_key(kind: str, path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"this is not a {kind} key for an elliptic curve",
        seen=f"{path.name}: {message(error)}",
        next=(
            "give a PEM file of P-256, P-384 or P-521: openssl ecparam -genkey -name prime256v1 -noout -out"
            " private.pem; openssl ec -in private.pem -pubout -out public.pem"
        ),
    )
