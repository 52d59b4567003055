"""Nets for a phone: those that half precision breaks, and those that it does not."""
