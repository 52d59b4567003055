"""Guards against strangers' files and a system's faults: archives, damage, leftovers, printable text."""
