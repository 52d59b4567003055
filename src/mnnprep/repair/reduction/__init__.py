"""Reductions and arg-reductions."""
