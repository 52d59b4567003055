"""The looks of a file that is not a model, so that an error can say it."""

from __future__ import annotations

import re

from mnnprep.errors import RefusedError
from mnnprep.text import first_line

# (offset, bytes, what it is): the signatures of `file`'s magic database
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"RIFF", "a RIFF file (WAV, AVI or WebP)"),
    (0, b"\x1f\x8b", "gzip-compressed data; decompress it first"),
    (0, b"BZh", "bzip2-compressed data; decompress it first"),
    (0, b"\xfd7zXZ\x00", "xz-compressed data; decompress it first"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard-compressed data; decompress it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "an ELF executable or library"),
    (0, b"MZ", "a Windows executable or library"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"GGUF", "a GGUF model (llama.cpp)"),
    (4, b"ORTM", "a model in ONNX Runtime's own .ort format; give the .onnx file that it was made from"),
    (0, b"7767517\n", "an ncnn network"),
    (0, b"7767517\r", "an ncnn network"),
    (0, b"ftrt", "a TensorRT engine"),
)

_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")


def refuse_html(name: str, head: bytes) -> None:
    """Refuse a web page that was saved in place of the file."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1024].lower()
    if start.startswith((b"<!doctype html", b"<html")) or (start.startswith(b"<") and b"<html" in start):
        title = re.search(rb"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        seen = f"{name}, a page" + (f" titled {title[1].decode(errors='replace').strip()!r}" if title else "")
        raise RefusedError(
            "this is an HTML page, not a model: the download saved a web page (an error, a login or a"
            " preview)",
            seen=seen,
            next=(
                "download the file itself: on GitHub the Raw link, on Hugging Face /resolve/ instead of"
                " /blob/"
            ),
        )


def refuse_lfs_pointer(name: str, head: bytes) -> None:
    """Refuse a Git LFS pointer (github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
    if _LFS.match(head):
        oid = re.search(rb"oid (\S+)", head)
        size = re.search(rb"size (\d+)", head)
        raise RefusedError(
            "this is a Git LFS pointer, not the model: the repository was cloned without its large files",
            seen=(
                f"{name}, oid {oid[1].decode(errors='replace') if oid else '?'}, size"
                f" {size[1].decode() if size else '?'} bytes"
            ),
            next=f"git lfs pull --include '*{name}'",
        )


def as_text(head: bytes, whole: bool) -> str | None:
    """Return the text of a file that begins so, None for one that is not text.

    ``whole`` says that nothing follows.
    """
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if whole or error.start < len(head) - 4:  # else the cut is inside a character
            return None
        text = head[: error.start].decode("utf-8-sig")
    return None if _CONTROL.search(text) else text


def describe(head: bytes, text: str | None) -> str:
    """Say what a file that begins with *head* looks like."""
    for offset, magic, what in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return what
    if text is None:
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return "a Python pickle that torch.save did not write"
        return f"data of unknown format, beginning with {head[:8].hex(' ')}"
    stripped = text.lstrip()
    first = first_line(stripped)[:60]
    if '"weight_map"' in text:
        return "the index of sharded weights; it goes with a factory, by --weights"
    if stripped.startswith(("{", "[")):
        return f"JSON text, beginning {first!r}"
    if stripped.startswith("<"):
        return f"XML text, beginning {first!r}"
    if re.match(r'(\s*(#.*)?\n)*(import \w|from \S+ import |def \w+\(|class \w+[(:]|@\w|""")', text):
        return "Python source; a factory is given as file.py:callable"
    if re.match(r"node\s*\{", stripped):
        return "a TensorFlow graph as text (.pbtxt); save it in binary form"
    return f"plain text, beginning {first!r}" if first else "blank text"
