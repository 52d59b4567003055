"""One guard around reading what a stranger wrote.

Bytes that are not as their format says are a refusal, never a traceback.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnnprep.errors import MnnprepError, RefusedError
from mnnprep.safety.faults import PLAIN, fault
from mnnprep.safety.printable import plain
from mnnprep.text import first_line

AGAIN = "download or save it again, and compare its size or checksum with the original's"
SHOWN = 200  # characters of a cause: a name from the file in it can be of any length

DEFECTS = (ImportError, NameError)  # no bytes of a file can cause them: they are faults of ours


@contextmanager
def reading(path: Path, title: str = "file") -> Iterator[None]:
    """The region in which *path*, a *title*, is read, and nothing else is done.

    Raises:
        RefusedError: the file is damaged: a reader met an absent index or key, a size that is none, text that
        is not text, nesting
            without end, a member that can't be inflated; or the system can't read it.
        MnnprepError: as a reader raised it; MemoryError: there is none left.
    """
    try:
        yield
    except (MnnprepError, MemoryError, *DEFECTS):
        raise
    except OSError as error:
        if error.errno in PLAIN:
            raise fault(error.errno, str(path)) from error
        if error.errno is None:  # h5py raises it for what it can't parse
            raise damaged(path.name, title, error) from error
        raise RefusedError(
            "the source can't be read",
            seen=f"{path}: {error.strerror or error}",
            next="check its permissions and the disk",
        ) from error
    except Exception as error:
        raise damaged(path.name, title, error) from error


def damaged(name: str, title: str, error: BaseException) -> RefusedError:
    """Return the refusal of a file whose reader met *error*.

    It names the reader's place, for whoever has to look into it.
    """
    return RefusedError(
        f"the {title} is damaged: it does not follow its format", seen=f"{name}: {cause(error)}", next=AGAIN
    )


def cause(error: BaseException) -> str:
    """Say what went wrong and in which of our modules, in one line."""
    text = first_line(plain(error))
    text = text if len(text) <= SHOWN else text[:SHOWN] + " …"
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "mnnprep" in Path(frame.filename).parts
    ]
    place = f" (in {Path(ours[-1].filename).stem}.{ours[-1].name})" if ours else ""
    return f"{type(error).__name__}{': ' * bool(text)}{text}{place}"
