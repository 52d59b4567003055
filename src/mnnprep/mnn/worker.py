"""The workers that hold MNN: its converter, and its runtime."""

from __future__ import annotations

from mnnprep.workers.step import Worker

# glibc fills memory that it gives with 0x3f and memory that it takes back with 0xc0: floats that nobody set
# are 0.75 or -6.0, integers are large. A result that depends on them shows, whatever was there by chance.
# Small blocks would otherwise come from a cache as they are.
DIRTY_MEMORY = (("MALLOC_PERTURB_", "192"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"))

CONVERTER = Worker("MNN's converter", ("numpy", "_tools", "mnnprep.mnn.convert"))
RUNTIME = Worker(
    "MNN's runtime", ("numpy", "MNN", "MNN.nn", "MNN.expr", "mnnprep.mnn.run"), environment=DIRTY_MEMORY
)
