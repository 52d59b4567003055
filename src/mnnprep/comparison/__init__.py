"""Whether two sets of numbers agree: tolerance, outputs, weights."""
