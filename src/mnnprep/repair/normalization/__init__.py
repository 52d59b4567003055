"""Softmax, normalizations and what belongs to training."""
