"""Checks, the catalogue of them, and the verdict. Standard library and msgspec only."""
