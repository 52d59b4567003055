"""Reading a bundle without believing it.

Its files, its yardstick, and whether its record agrees with itself.
"""
