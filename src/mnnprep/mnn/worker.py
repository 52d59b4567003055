"""MNN's steps by name, and what a worker that runs them imports first. Strings only."""

from __future__ import annotations

PRELOAD = ("numpy", "MNN", "MNN.nn", "MNN.expr", "mnnprep.mnn.run")
CONVERT_PRELOAD = ("numpy", "_tools", "mnnprep.mnn.convert")
CONVERT = "mnnprep.mnn.convert:convert"
RUN = "mnnprep.mnn.run:run"
FRONTENDS = "mnnprep.mnn.frontends:frontends"
