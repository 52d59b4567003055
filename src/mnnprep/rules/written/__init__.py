"""Operators that the converter does not read, written out by those that it does."""
