"""Repairs of an ONNX graph for MNN: one file a rule, named as it is, one row each in `rules.table`.

What several rules share lies in `rules.support`.
"""
