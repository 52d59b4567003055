"""Tensors filled or built from nothing but a shape."""
