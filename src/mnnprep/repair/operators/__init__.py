"""Operators that the converter does not read, or reads as others."""
