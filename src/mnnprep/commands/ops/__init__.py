"""`ops --measure`: ONNX's own cases through MNN, as they are and repaired."""
