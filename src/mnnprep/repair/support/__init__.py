"""What the rules are made of: reading a graph, writing new nodes, and the parts that several rules share."""
