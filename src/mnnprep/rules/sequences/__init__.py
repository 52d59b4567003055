"""Sequences and optionals that can be told beforehand."""
