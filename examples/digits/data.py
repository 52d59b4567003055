"""scikit-learn's digits (1797 images, shipped with it), split by a fixed seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0


class Split(NamedTuple):
    """Images float32 [n, 1, 8, 8] in 0..1, and labels int64 [n]."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def load() -> tuple[Split, Split]:
    """The training images (three quarters) and the held-out ones, always the same."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    parts = train_test_split(
        images, data.target.astype(np.int64), test_size=0.25, random_state=SEED, stratify=data.target
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])
