"""Repairs of an ONNX graph for MNN: one file a rule, all listed in `rules.table`."""
