"""TensorFlow Lite models: read in place, run by LiteRT, copied or taken to ONNX."""
