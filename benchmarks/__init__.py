"""Programs that measure time and memory: run one with `python -m benchmarks.NAME` from the project's root."""
