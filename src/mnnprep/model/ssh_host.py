"""A machine that ssh reaches, as the user names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mnnprep.errors import UsageError

SSH = "ssh://"
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?"
    r"(?P<name>[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Host:
    """A host as the user names it: ``ssh://[USER@]NAME[:PORT]``, where NAME may be one of ~/.ssh/config."""

    name: str
    user: str = ""
    port: int | None = None

    @property
    def target(self) -> str:
        """What ssh calls it."""
        return f"{self.user}@{self.name.strip('[]')}" if self.user else self.name.strip("[]")

    @property
    def files(self) -> str:
        """What scp calls it: an address with colons stands in brackets."""
        return f"{self.user}@{self.name}" if self.user else self.name


def host_of(text: str) -> Host:
    """Read a host that the user named.

    Raises:
        UsageError: it is not of the form ``ssh://[USER@]NAME[:PORT]``.
    """
    found = _HOST.fullmatch(text.removeprefix(SSH))
    port = int(found["port"]) if found and found["port"] else None
    if not text.startswith(SSH) or found is None or (port is not None and not 0 < port < 1 << 16):
        raise UsageError(
            "this is not a host to reach by ssh",
            seen=text,
            next="write ssh://[USER@]NAME[:PORT], for example ssh://pi@board.local",
        )
    return Host(name=found["name"], user=found["user"] or "", port=port)
