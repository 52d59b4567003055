"""Values that are the same for every input, and tensors filled from nothing but a shape."""
