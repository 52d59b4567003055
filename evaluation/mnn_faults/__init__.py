"""Faults of MNN, each as the smallest model that shows it: what docs/mnn-faults.md lists."""

from __future__ import annotations

from evaluation.mnn_faults.arithmetic import ARITHMETIC
from evaluation.mnn_faults.fault import Fault
from evaluation.mnn_faults.indexing import INDEXING
from evaluation.mnn_faults.layers import NORMS
from evaluation.mnn_faults.products import PRODUCTS
from evaluation.mnn_faults.windows import WINDOWS

FAULTS: tuple[Fault, ...] = (*PRODUCTS, *ARITHMETIC, *WINDOWS, *NORMS, *INDEXING)
