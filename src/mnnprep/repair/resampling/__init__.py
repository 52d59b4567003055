"""Resize, GridSample and their kin."""
