"""The parts of rules: reading a graph, writing new nodes, and what several rules share."""
