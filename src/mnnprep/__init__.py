"""mnnprep: from a trained model to a file MNN takes, proven to compute the same thing.

>>> import mnnprep
>>> mnnprep.prepare("model.onnx", "out").verdict.value      # doctest: +SKIP
'proven'
"""

from typing import TYPE_CHECKING, Any

from mnnprep._version import __version__

__all__ = [
    "__version__",
    "bisect",
    "check",
    "compare",
    "consolidate",
    "doctor",
    "inspect",
    "kit",
    "prepare",
    "run",
    "sign",
    "verify",
]

if TYPE_CHECKING:
    from mnnprep.api import (
        bisect,
        check,
        compare,
        consolidate,
        doctor,
        inspect,
        kit,
        prepare,
        run,
        sign,
        verify,
    )


def __getattr__(name: str) -> Any:
    """The functions of :mod:`mnnprep.api`, imported when first asked for."""
    if name in __all__:
        from mnnprep import api

        return getattr(api, name)
    raise AttributeError(f"module 'mnnprep' has no attribute {name!r}")
