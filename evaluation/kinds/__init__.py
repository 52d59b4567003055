"""Small models, each of a kind that real ones have and that once was not proven: how each must end."""
