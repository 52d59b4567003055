"""The workers that run what a bundle holds."""

from __future__ import annotations

from pathlib import Path

from mnnprep.bundle.manifest import Manifest
from mnnprep.model.request import Limits
from mnnprep.targets.environment import engine_workers
from mnnprep.workers.pool import Workers


def bundle_workers(bundle: Path, manifest: Manifest, limits: Limits | None) -> Workers:
    """Workers that may read *bundle*, with MNN of the version that it was made with.

    Raises:
        RefusedError: that version is not here.
    """
    return Workers(
        limits or Limits(), reads=[str(bundle.resolve())], replaced=engine_workers(manifest.engine)
    )
