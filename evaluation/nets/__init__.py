"""Nets of every format that the evaluations and the tests share: factories, makers of small files, and real
trained files.
"""
