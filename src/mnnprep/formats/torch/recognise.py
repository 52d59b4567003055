"""Whether a file is one of PyTorch's (`formats.torch_files` says how they differ)."""

from __future__ import annotations

from mnnprep.formats import torch_files
from mnnprep.formats.content import Content
from mnnprep.weights.files import LocalFile
from mnnprep.weights.safetensors import looks_like_it, read_header


def sniff(content: Content) -> str:
    """The kind of a file.

    Raises:
        RefusedError: the file is damaged, or one that mnnprep never loads.
    """
    head, path = content.head, content.path
    if content.text is not None:
        return ""
    if content.is_zip:
        return torch_files.zip_kind(path)
    if torch_files.is_legacy(head):
        torch_files.require_whole_legacy(path)
        return torch_files.pickle_kind(torch_files.model_scan(path))
    if head[257:262] == b"ustar":
        return torch_files.tar_kind(path)
    if not content.is_foreign and (looks_like_it(head) or content.suffix == ".safetensors"):
        read_header(LocalFile(path, path.name))
        return "safetensors"
    return ""
