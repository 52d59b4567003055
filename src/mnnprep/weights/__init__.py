"""Trained weights, read safely from every layout they are saved in, into a torch model.

``layouts`` turns a path into the objects it holds (a pickle through ``inert``, which executes
nothing), ``select`` finds the state dict that fits among them, ``read`` does both, and ``apply``
loads the result into a module, all of it or nothing.
"""
