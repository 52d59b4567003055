"""TorchScript archives whose bytes depend on the module alone.

``torch.jit.save`` names the archive's root folder after the file and writes debug records that hold
the paths of the source code; both are left out here.  Records are stored uncompressed and aligned to
64 bytes, as the format's reader maps them (caffe2/serialize/inline_container.h).
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require

if TYPE_CHECKING:
    from torch import nn

ROOT = "model"
ALIGNMENT = 64
DROPPED = (".debug_pkl", "/.data/serialization_id")
ZIP64_EXTRA = 20  # bytes that zipfile adds to the header of a record near 2 GiB or more
LOCAL_HEADER = 30  # bytes of a zip local file header before the name


def save_script(module: nn.Module, path: Path) -> None:
    """Save a torch.jit.ScriptModule: the same module always gives the same bytes, wherever it is written."""
    torch = require("torch")
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    with (
        zipfile.ZipFile(buffer) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as target,
    ):
        for entry in sorted(source.infolist(), key=lambda e: e.filename):
            name = entry.filename.partition("/")[2]
            if f"/{name}".endswith(DROPPED):
                continue
            record = zipfile.ZipInfo(f"{ROOT}/{name}")
            record.file_size = entry.file_size
            record.extra = _padding(target, record)
            with source.open(entry) as reader, target.open(record, "w") as writer:
                while chunk := reader.read(1 << 20):
                    writer.write(chunk)


def _padding(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    """An extra field (id ``FB``) that makes the record's bytes start at a multiple of 64."""
    assert archive.fp is not None
    start = archive.fp.tell() + LOCAL_HEADER + len(record.filename.encode()) + 4
    if record.file_size * 1.05 > zipfile.ZIP64_LIMIT:
        start += ZIP64_EXTRA
    length = -start % ALIGNMENT
    return b"FB" + length.to_bytes(2, "little") + b"Z" * length
