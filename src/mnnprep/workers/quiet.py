"""Importing a framework without what it does on the side.

Nothing of that is needed, and the system is asked for nothing but files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator

# Nothing is found to be run (h5py asks `uname` for the processor), and joblib, which scikit-learn brings,
# makes no semaphore.
_MEANWHILE = {"PATH": os.devnull, "JOBLIB_MULTIPROCESSING": "0"}


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keep packages that are imported within the block from opening sockets and starting programs.

    What they find out thereby is set right at its end.
    """
    kept = {name: os.environ.get(name) for name in _MEANWHILE}
    has_ipv6 = socket.has_ipv6
    os.environ |= _MEANWHILE
    socket.has_ipv6 = False  # urllib3 binds a socket to see whether it works, too
    try:
        yield
    finally:
        socket.has_ipv6 = has_ipv6
        if (connection := sys.modules.get("urllib3.util.connection")) is not None:
            connection.HAS_IPV6 = has_ipv6  # type: ignore[attr-defined]
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
