"""The kind of a file: decided by its content, then by its suffix; each backend recognises its own."""

from __future__ import annotations

from pathlib import Path

from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats import foreign
from mnnprep.formats.content import Content
from mnnprep.formats.registry import BACKENDS, SOURCE_KINDS
from mnnprep.formats.torch_files import record_names
from mnnprep.safety.damage import AGAIN, reading
from mnnprep.text import listed

_SHARED_SUFFIXES = (".pt", ".pth")  # whatever torch.save or torch.jit.save wrote
_SUFFIX_TITLES = {
    suffix: kind.title for kind in SOURCE_KINDS.values() for suffix in kind.suffixes if suffix != ".bin"
} | dict.fromkeys(_SHARED_SUFFIXES, "PyTorch file")


def identify(path: Path) -> str:
    """The name of the source kind (`formats.registry.SOURCE_KINDS`) of the file or directory at *path*.

    Raises:
        UsageError: there is nothing at *path*.
        RefusedError: it is empty, an HTML page, a Git LFS pointer, a torch.package archive, truncated, or
            foreign; the message says what it looks like.
    """
    require_there(path)
    with reading(path):
        return _directory_kind(path) if path.is_dir() else _file_kind(path)


def require_there(path: str | Path) -> None:
    """Require that there is something at *path*.

    Raises:
        UsageError: nothing is there, or nothing can be.
    """
    try:
        if Path(path).exists():
            return
    except (OSError, ValueError) as error:  # too long a name, a null byte
        raise UsageError(
            "this can't be a path", seen=f"{path}: {error}"[:300], next="give a model file"
        ) from error
    raise UsageError(
        "there is no such file or directory",
        seen=str(path),
        next="check the path; a factory is given as file.py:callable",
    )


def _directory_kind(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    for backend in BACKENDS:
        if backend.sniff_directory and (kind := backend.sniff_directory(path, names)):
            return kind
    raise RefusedError(
        "the directory does not hold a model that mnnprep knows",
        seen=f"{path.name}: {listed(names, 8) or 'empty'}",
        next="give the model file itself, or a SavedModel directory (with saved_model.pb)",
    )


def _file_kind(path: Path) -> str:
    if not path.is_file():
        raise RefusedError("this is neither a file nor a directory", seen=str(path), next="give a model file")
    with Content(path) as content:
        if content.size == 0:
            raise RefusedError(
                "the file is empty", seen=f"{path.name}, 0 bytes", next="download or save it again"
            )
        foreign.refuse_html(path.name, content.head)
        foreign.refuse_lfs_pointer(path.name, content.head)
        for backend in BACKENDS:
            if kind := backend.sniff(content):
                return kind
        if content.is_zip:
            raise _unknown_zip(path)
        raise _unknown(content)


def _unknown_zip(path: Path) -> RefusedError:
    names = record_names(path)
    if names and all(name.endswith(".npy") for name in names):
        what = "a NumPy .npz archive; real inputs are given by --samples"
    else:
        what = f"a ZIP archive with {', '.join(names[:5]) or 'nothing in it'}"
    return RefusedError(
        "this is not a model that mnnprep knows",
        seen=f"{path.name}: {what}",
        next="give a model file; unpack an archive first",
    )


def _unknown(content: Content) -> RefusedError:
    expected = _SUFFIX_TITLES.get(content.suffix)
    if content.text is None and content.suffix in (".mnn", ".safetensors", ".pt", ".pth"):
        next_step = AGAIN
    else:
        suffixes = (suffix for kind in SOURCE_KINDS.values() if kind.prepared for suffix in kind.suffixes)
        next_step = "give a model: " + ", ".join(dict.fromkeys(suffixes))
    return RefusedError(
        f"the file's name says {expected}, its content does not"
        if expected
        else "this is not a model that mnnprep knows",
        seen=f"{content.path.name}, {content.size} bytes: {foreign.describe(content.head, content.text)}",
        next=next_step,
    )
