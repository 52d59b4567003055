"""Judging an attempt: what the artifact and MNN computed against the reference, as checks."""
