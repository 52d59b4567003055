"""Operators that are defined by others: ONNX's function bodies, the model's own functions."""
