"""Attention and what exporters put around it."""
