"""Models through the whole of `prepare`, and an oracle that is asked about what it calls proven.

The oracle runs the bundle's ``model.mnn`` on inputs that the proof never saw and compares with what the
source gave for them. It shares no code with the proof (:mod:`mnnprep.commands.ops.oracle`).
"""
