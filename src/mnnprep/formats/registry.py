"""The frameworks that mnnprep prepares models of, as an explicit tuple of light descriptors.

A new framework is one package with a ``backend.py``, one row of ``BACKENDS``, one extra and one test file.
A file is offered to the backends in this order.
"""

from __future__ import annotations

from mnnprep.errors import InternalError
from mnnprep.formats.backend import ArtifactFormat, Backend, Role, SourceKind, SourceSteps
from mnnprep.formats.caffe.backend import BACKEND as CAFFE
from mnnprep.formats.mnn_file.backend import BACKEND as MNN_FILE
from mnnprep.formats.onnx.backend import BACKEND as ONNX
from mnnprep.formats.tensorflow.backend import BACKEND as TENSORFLOW
from mnnprep.formats.tflite.backend import BACKEND as TFLITE
from mnnprep.formats.torch.backend import BACKEND as TORCH

BACKENDS: tuple[Backend, ...] = (ONNX, TORCH, TENSORFLOW, TFLITE, CAFFE, MNN_FILE)
SOURCE_KINDS: dict[str, SourceKind] = {kind.name: kind for backend in BACKENDS for kind in backend.kinds}
ARTIFACTS: dict[str, ArtifactFormat] = {a.name: a for backend in BACKENDS for a in backend.artifacts}


def kind_of(name: str) -> SourceKind:
    """The source kind *name*.

    Raises:
        InternalError: no backend has it.
    """
    if name not in SOURCE_KINDS:
        raise InternalError("a kind of source that no backend has was asked for", seen=name)
    return SOURCE_KINDS[name]


def steps_of(name: str) -> SourceSteps:
    """The steps of the source kind *name*.

    Raises:
        InternalError: sources of that kind are not prepared.
    """
    steps = kind_of(name).steps
    if steps is None:
        raise InternalError("the steps of a kind of source without any were asked for", seen=name)
    return steps


def backend_of(name: str) -> Backend:
    """The backend of the source kind *name*."""
    kind = kind_of(name)
    return next(backend for backend in BACKENDS if kind in backend.kinds)


def live_backend(thing: object) -> tuple[Backend, SourceKind]:
    """The backend that takes the live object *thing*, by the packages of its classes, and its kind.

    The first with live objects if none is of its own: it says what it takes.
    """
    tops = {type_.__module__.partition(".")[0] for type_ in type(thing).__mro__}
    able = [backend for backend in BACKENDS if backend.live]
    backend = next((b for b in able if b.factory_imports & tops), able[0])
    return backend, next(kind for kind in backend.kinds if kind.role is Role.LIVE)
