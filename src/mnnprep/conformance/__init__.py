"""ONNX's own test cases through MNN, judged by an oracle that knows nothing of mnnprep's proof."""
