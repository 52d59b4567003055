"""What comes from strangers, and what a system does: archives, damage, faults, leftovers, printable text."""
