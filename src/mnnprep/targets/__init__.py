"""Other machines and other engines: their environments, and running a converted model there."""
