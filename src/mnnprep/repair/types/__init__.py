"""Dtypes that MNN does not have, narrows, or reads wrongly from the file."""
