"""The text of an exception, a converter or the user's code, in one line that is the same everywhere.

An exception's text may name files of this machine.  Here, where it becomes a reason, their directories go;
nothing else of the manifest is ever rewritten, since a name such as ``/model/x`` is data.
"""

from __future__ import annotations

import os
import re
from itertools import islice

LIMIT = 400  # characters of a line; of a longer one the beginning and the end
CHAINED = 3  # exceptions of a chain that are told

# First lines that say only that something below failed: TorchScript's interpreter, TensorFlow's executor,
# AutoGraph, Keras.
_OPENERS = re.compile(
    r"The following operation failed in the TorchScript interpreter|Graph execution error:|in user"
    r" code:|Exception encountered when calling|Traceback"
)
_RAISED = re.compile(r"\s*(?:builtins\.)?(?P<said>[A-Za-z_][\w.]*(?:Error|Exception): \S.*)")
_AROUND = re.compile(
    r"\s*(?:File \"|Detected at |<stack |\[\[|\{\{function_node|Arguments received|Call"
    r" arguments|•|Traceback|Original stack|~|\^|$)"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

LONGEST_PATH = 1024  # characters looked at for one path
MOST_ENDS = 32  # places where it may end, a directory's name may hold blanks
_START = re.compile(r"(?<![\w.~/<\-\\])/(?=[^\s/])")
_END = re.compile(r"""[\s'"`<>|,;:()\[\]{}]|$""")
_SOURCE = re.compile(r"\.(?:py|cc|cpp|cxx|cu|c|h|hpp|inl)$")
_LIBRARY = re.compile(r"^.*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


def said(error: BaseException) -> str:
    """The text of *error* without directories; the name of its class if it has no text."""
    return without_paths(str(error).strip()) or type(error).__name__


def without_paths(text: str) -> str:
    """Return *text* with every absolute path of a file shortened to its name.

    A library's is shortened to its place in the library.

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


def message(error: BaseException | str) -> str:
    """Return the first line of an exception or of its text, without its type and directories.

    It is the cause's, if that line only says that one follows.
    """
    lines = [line for line in _COLOURS.sub("", without_paths(str(error))).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__ if isinstance(error, BaseException) else ""
    if not _OPENERS.match(lines[0].strip()):
        return shortened(lines[0])
    raised = [match["said"] for line in lines[1:] if (match := _RAISED.fullmatch(line))]
    plain = [line for line in lines[1:] if not _AROUND.match(line)]
    return shortened((raised[-1:] or plain[:1] or lines[:1])[0])


def cause(error: BaseException) -> str:
    """An exception in one line: its type, what it says, and the exception that it was raised from."""
    told: list[str] = []
    link: BaseException | None = error
    while link is not None and len(told) < CHAINED:
        said, name = message(link), type(link).__name__
        told.append(said if said == name or _RAISED.fullmatch(said) else f"{name}: {said}")
        link = link.__cause__
    return shortened(", from ".join(dict.fromkeys(told)))


def shortened(line: str, limit: int = LIMIT) -> str:
    """*line*, of which the middle is left out where it is longer than *limit*."""
    line = line.strip()
    if len(line) <= limit:
        return line
    half = (limit - 3) // 2
    return f"{line[:half].rstrip()} … {line[-half:].lstrip()}"


def _path_end(text: str, start: int) -> int:
    """Return the end of the path that begins at *start*; 0 if there is none."""
    line = text[start : start + LONGEST_PATH].partition("\n")[0]
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
