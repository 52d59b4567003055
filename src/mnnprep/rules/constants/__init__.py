"""What is the same for every input."""
