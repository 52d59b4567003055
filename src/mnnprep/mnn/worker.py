"""MNN's steps by name, and what a worker that runs them imports first. Strings only."""

from __future__ import annotations

PRELOAD = ("numpy", "_tools", "MNN", "MNN.nn", "MNN.expr")
CONVERT = "mnnprep.mnn.convert:convert"
RUN = "mnnprep.mnn.run:run"
FRONTENDS = "mnnprep.mnn.frontends:frontends"
