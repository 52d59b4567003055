"""Trained weights, read safely from every layout they are saved in: into a torch model, or into one file.

``layouts`` turns a place (``files``) into the tree of what it holds, its tensors as plans (``plan``): where
their bytes are, none of them read, no pickle executed (``inert``).  ``select`` finds the state dict that is
meant.  From there ``apply`` loads it into a module, all of it or nothing; ``filters`` and ``writer`` make the
one file of `mnnprep consolidate`.
"""
