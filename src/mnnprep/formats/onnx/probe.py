"""The step that runs an ONNX model with values inside it as outputs, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.net import open_session
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.files import FileRef, file_ref, save_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.model.running import case_inputs
from mnnprep.safety.error_text import message
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run ``model`` on ``cases`` and keep ``values``.

    They are names of graph outputs or of values in the main graph.
    """

    model: ReadPath
    values: list[str]
    cases: list[CaseFile]
    directory: WritePath


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """For each case, by its index, an npz with the values by name.

    A value that is not a tensor is left out.
    """

    values: dict[str, FileRef]


def probe(job: ProbeJob) -> Probed:
    """Run the graph as it is written (unoptimized) and write the values asked for.

    The outputs are added by appending to the file's bytes: protobuf parsers merge what is said twice of the
    same message, so that no weight passes through this process but those that onnxruntime loads.

    Raises:
        RefusedError: onnxruntime can't load or run the model.
    """
    doing("loading the model in onnxruntime")
    onnx = require("onnx")
    path = Path(job.directory) / "probed.onnx"
    shutil.copyfile(job.model, path)
    stated = {o.name for o in skeleton(job.model).graph.output}
    extra = onnx.ModelProto()
    for name in job.values:
        if name not in stated:
            extra.graph.output.add(name=name)
    with path.open("ab") as file:
        file.write(extra.SerializePartialToString())
    session = open_session(str(path), optimize=False, data_directory=str(Path(job.model).parent.absolute()))
    files = {}
    for case in job.cases:
        doing(f"running the reference on case {case.index}")
        try:
            results = session.run(job.values, case_inputs(case.file.path))
        except Exception as error:  # onnxruntime raises classes of its own C++ module
            raise RefusedError(
                "onnxruntime can't run this model", seen=message(error), next="run it on its own first"
            ) from error
        target = Path(job.directory) / f"{case.index}.npz"
        save_arrays(
            target,
            {
                name: value
                for name, value in zip(job.values, results, strict=True)
                if isinstance(value, np.ndarray)
            },
        )
        files[str(case.index)] = file_ref(target)
    path.unlink()
    return Probed(values=files)


PROBE = Step.of(probe, RUNTIME)
