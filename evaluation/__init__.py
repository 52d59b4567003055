"""Programs that judge mnnprep as a whole: run one with `python -m evaluation.NAME` from the project's
root.
"""
