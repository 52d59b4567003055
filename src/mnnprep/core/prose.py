"""What a framework, a converter or the user's own code says, made the same on every machine.

An exception's text may name files of this machine.  Here, where it becomes a reason, their directories go;
nothing else of the manifest is ever rewritten, since a name such as ``/model/x`` is data.
"""

from __future__ import annotations

import os
import re
from itertools import islice

LONGEST = 1024  # characters looked at for one path
MOST_ENDS = 32  # places where it may end, a directory's name may hold blanks
_START = re.compile(r"(?<![\w.~/<\-\\])/(?=[^\s/])")
_END = re.compile(r"""[\s'"`<>|,;:()\[\]{}]|$""")
_SOURCE = re.compile(r"\.(?:py|cc|cpp|cxx|cu|c|h|hpp|inl)$")
_LIBRARY = re.compile(r"^.*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


def said(error: BaseException) -> str:
    """The text of *error* without directories; the name of its class where it has no text."""
    return without_paths(str(error).strip()) or type(error).__name__


def without_paths(text: str) -> str:
    """*text* with every absolute path of a file shortened to its name, a library's to its place in the
    library.

    Only what this machine can tell to be a path is one: it exists, its directory (below another) does, or it
    ends as a source file does.  Anything else that begins with a slash, a node's name say, stays as it is.
    """
    parts: list[str] = []
    at = 0
    while found := _START.search(text, at):
        start = found.start()
        end = _path_end(text, start)
        parts += [text[at:start], _shortened(text[start:end]) if end else "/"]
        at = end or start + 1
    return "".join([*parts, text[at:]])


def _path_end(text: str, start: int) -> int:
    """Where the path that begins at *start* ends; 0 where none does."""
    line = text[start : start + LONGEST].partition("\n")[0]
    ends = [m.start() for m in islice(_END.finditer(line, 2), MOST_ENDS)]
    word = line[: ends[0]]
    if _SOURCE.search(word):
        return start + len(word)
    top, below, _ = word[1:].partition("/")
    if not below or not _exists(f"/{top}"):
        return 0
    for end in reversed(ends):  # the longest that exists
        path = line[:end].rstrip(".")
        if path.count("/") > 1 and _exists(path):
            return start + len(path)
    for end in reversed(ends):  # a file that is missing, in a directory that is there
        directory = line[:end].rpartition("/")[0]
        if directory.count("/") > 1 and " " not in line[len(directory) : end] and _exists(directory):
            return start + end
    return 0


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL
        return False


def _shortened(path: str) -> str:
    path = path.rstrip("/")
    below = _LIBRARY.sub("", path)
    return below if below != path else path.rpartition("/")[2]
