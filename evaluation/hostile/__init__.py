"""Hostile files of every format, with canaries, through every command."""
