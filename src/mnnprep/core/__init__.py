"""What every layer speaks of: signatures, requests, cases, checks.

Standard library, msgspec and numpy only.
"""
