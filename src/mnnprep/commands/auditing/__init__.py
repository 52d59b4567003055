"""Reading a bundle without believing it: its files, its yardstick, and whether its record agrees with
itself.
"""
