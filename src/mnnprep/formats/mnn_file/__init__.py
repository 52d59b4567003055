"""A ``.mnn`` file as a source: what is in it, made anew by MNN's converter, as JSON and back."""
