"""`mnnprep bisect` on planted faults: whether it names the node, and at what cost."""
