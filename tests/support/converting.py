"""Converting a model in the session's worker."""

from __future__ import annotations

from pathlib import Path

from evaluation.nets.mnn_models import SEED
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.workers.host import Host


def converted(host: Host, model: Path) -> str:
    """Convert the ONNX file *model* into a directory of its name; the path of what MNN made of it."""
    directory = model.with_suffix("")
    directory.mkdir()
    job = ConvertJob(model=str(model), frontend="ONNX", uuid_seed=SEED, directory=str(directory))
    done = host.run(CONVERT, job, timeout=60).value
    assert done.file is not None, done
    return done.file.path
