"""Gathering, scattering, splitting and padding."""
