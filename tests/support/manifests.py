"""The stored manifests, and one whose every text tries to break out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mnnprep.bundle.manifest import Manifest

DATA = Path(__file__).parent.parent / "data"
GOLDEN = ("proven", "unproven", "differs", "refused")
HOSTILE = '"><script>alert(1)</script>{{ 7*7 }}\x1b[31m\u202e</td>'


def golden(name: str) -> Manifest:
    return msgspec.json.decode((DATA / f"manifest-{name}.json").read_bytes(), type=Manifest)


def hostile(value: Any) -> Any:
    """*value* with every free text in it replaced by one that tries to break out; paths stay different."""
    if isinstance(value, dict):
        fixed = ("schema", "verdict", "check", "status", "sha256", "mnn_dtype", "layout")
        made = {key: item if key in fixed else hostile(item) for key, item in value.items()}
        return made | ({"path": HOSTILE + value["path"]} if "path" in value else {})
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value
