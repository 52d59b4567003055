"""Finding the node where MNN leaves the reference."""
