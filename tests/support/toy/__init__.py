"""A framework made up for the tests: a net is a JSON file of matrices, and numpy runs it."""
