"""The JSON schema of ``manifest.json``, from the types that read it.

``python -m mnnprep.bundle.schema`` prints it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from mnnprep.bundle.manifest import SCHEMA, Manifest

TITLE = "The manifest of an mnnprep bundle"


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12. A field that it does not name is of a newer version, and may be there."""
    made = msgspec.json.schema(Manifest)
    made["$defs"]["Manifest"]["properties"]["schema"] = {"const": SCHEMA}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE, **made}


def schema_text() -> str:
    """Return the manifest's schema as indented JSON that ends in a line break."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
