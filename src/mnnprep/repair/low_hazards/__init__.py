"""What half precision does to an ONNX model in MNN, told before the model is converted."""
