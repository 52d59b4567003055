"""Repairs of an ONNX graph for MNN: one file a rule, named as it is, one row each in `repair.table`.

What several rules share lies in `repair.support`.
"""
