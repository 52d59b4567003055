"""Export a SavedModel as if protobuf's limits were small: ``python large_graph.py MODEL DIR``; prints what
each method made, or why it did not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import onnx_route, skeleton
from mnnprep.formats.tensorflow.steps import export_source
from mnnprep.model.messages import ExportJob, InputSpecs, Source

skeleton.GRAPH_LIMIT = 1000
onnx_route.EXTERNAL_THRESHOLD = 500
for method in ("freeze", "onnx"):
    directory = Path(sys.argv[2], method)
    directory.mkdir()
    try:
        made = export_source(
            ExportJob(
                source=Source(kind="savedmodel", path=sys.argv[1]),
                wants=InputSpecs(),
                method=method,
                opset=13,
                directory=str(directory),
            )
        )
        print(method, *(Path(f.path).name for f in made.files))
    except RefusedError as error:
        print(method, "refused:", error.what, "|", error.next)
