"""The reach of a step, which its job states by the types of its fields.

A worker is confined to that (see `workers.confine`).

A field of another type names nothing that is read or written, or what lies in the run's scratch, which every
step may read.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

REACH = "reach"

# A file or directory that the step reads.
ReadPath = Annotated[str, msgspec.Meta(extra={REACH: "read"})]
# The same for data of the user's own: where files in the directory are links, the step reads what they lead
# to.
LinkedPath = Annotated[str, msgspec.Meta(extra={REACH: "linked"})]
# A directory in the run's scratch that the step writes in, or a file in one.
WritePath = Annotated[str, msgspec.Meta(extra={REACH: "write"})]
# A program of the user's that the step starts; empty: none.
ProgramPath = Annotated[str, msgspec.Meta(extra={REACH: "start"})]
