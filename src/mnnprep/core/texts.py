"""What an exception says, in one line that holds its cause."""

from __future__ import annotations

import re

from mnnprep.core.prose import without_paths

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


def message(error: BaseException | str) -> str:
    """The first line of an exception or of its text, without its type and without directories; the cause, if
    that line only says that one follows.
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
