"""Arithmetic, comparisons and products."""
