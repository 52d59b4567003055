"""PyTorch: factories, TorchScript files, exported programs and live modules, to ONNX or TorchScript."""
