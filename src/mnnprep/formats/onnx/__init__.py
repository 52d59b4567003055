"""ONNX: the format that MNN's ONNX frontend takes, run by onnxruntime."""
