"""Faults planted on purpose, and right models: what is missed, what is refused without a reason."""
