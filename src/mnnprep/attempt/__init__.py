"""One attempt: the artifact of a recipe, its verification, the result."""
